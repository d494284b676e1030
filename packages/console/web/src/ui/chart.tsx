// A line chart over the last minutes: uPlot with the app's colours, a time axis that reads "minutes
// ago", and a cursor that all charts of a page share. Draws what it is given; knows no statistics.

import type { VNode } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

/** A custom property of tokens.css, without the dashes. */
export type ColorName = "accent" | "second" | "alert" | "ink-3";

export interface ChartSeries {
  readonly label: string;
  readonly color: ColorName;
  /** "points" is for values that come now and then, where a line would claim too much. */
  readonly style?: "line" | "points";
}

export interface ChartProps {
  /** Ages in seconds (0 is now, negative is the past), then one array a series. */
  readonly data: readonly [number[], ...(number | null)[][]];
  readonly series: readonly ChartSeries[];
  /** How far back the axis reaches. */
  readonly spanSeconds: number;
  /** Top of the axis; without it the axis follows the data. */
  readonly max?: number;
  /** Top of the axis at least. @default 1 */
  readonly maxAtLeast?: number;
  /** What the picture shows, for those who cannot see it. */
  readonly description: string;
  readonly format: (value: number) => string;
  /** The axis counts whole things, so no ticks between them. @default false */
  readonly whole?: boolean;
  /** Charts of one group show one cursor. */
  readonly group: string;
  /** The index under the cursor, or null when it left. */
  readonly onHover?: (index: number | null) => void;
}

const HEIGHT_PX = 136;
/** 1, 2, 5, 10, … up to five billion. */
const WHOLE_STEPS = Array.from(
  { length: 30 },
  (_, index) => (1 + (index % 3) ** 2) * 10 ** Math.floor(index / 3),
);

/** The chart fills its parent's width and redraws when colours or data change. */
export function Chart(props: ChartProps): VNode {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const latest = useRef(props);
  latest.current = props;
  useLayoutEffect(() => {
    const target = place.current;
    if (target === null) return;
    const draw = (): void => {
      plot.current?.destroy();
      plot.current = new uPlot(optionsOf(latest, target), alignedData(latest.current), target);
    };
    draw();
    const resizing = new ResizeObserver(() => {
      const width = Math.floor(target.clientWidth);
      if (width > 0 && width !== plot.current?.width) {
        plot.current?.setSize({ width, height: HEIGHT_PX });
      }
    });
    resizing.observe(target);
    // A canvas keeps its colours, so another scheme needs another drawing.
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", draw);
    return () => {
      scheme.removeEventListener("change", draw);
      resizing.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, []);
  useLayoutEffect(() => {
    plot.current?.setData(alignedData(props));
  }, [props.data]);
  return <div class="chart" ref={place} role="img" aria-label={props.description} />;
}

function alignedData({ data }: ChartProps): uPlot.AlignedData {
  const [ages, ...series] = data;
  return [ages, ...series];
}

function optionsOf(latest: { readonly current: ChartProps }, target: HTMLElement): uPlot.Options {
  const { series, group, whole } = latest.current;
  const style = getComputedStyle(target);
  const color = (name: string): string => style.getPropertyValue(`--${name}`).trim();
  const font = `10.5px ${style.getPropertyValue("--mono")}`;
  const axis = {
    stroke: color("ink-3"),
    font,
    grid: { stroke: color("line"), width: 1 },
    ticks: { show: false },
  };
  return {
    width: Math.max(Math.floor(target.clientWidth), 1),
    height: HEIGHT_PX,
    padding: [6, 14, 0, 0],
    legend: { show: false },
    cursor: {
      sync: { key: group },
      y: false,
      drag: { x: false, y: false },
      points: { size: 5 },
    },
    scales: {
      x: { time: false, range: () => [-latest.current.spanSeconds, 0] },
      y: { range: (_, __, top) => [0, axisTop(top, latest.current)] },
    },
    axes: [
      {
        ...axis,
        size: 22,
        gap: 4,
        splits: () => ageSplits(latest.current.spanSeconds),
        values: ageLabels,
      },
      {
        ...axis,
        size: 44,
        gap: 6,
        space: 26,
        values: (_, ticks) => ticks.map(tickLabel(latest)),
        ...(whole === true && { incrs: WHOLE_STEPS }),
      },
    ],
    series: [{}, ...series.map((entry, index) => seriesOptions(entry, index === 0, color))],
    hooks: {
      setCursor: [(chart) => latest.current.onHover?.(chart.cursor.idx ?? null)],
    },
  };
}

function axisTop(top: number | null, { max, maxAtLeast }: ChartProps): number {
  if (max !== undefined) return max;
  return Math.max((top ?? 0) * 1.15, maxAtLeast ?? 1);
}

function seriesOptions(
  { label, color: name, style }: ChartSeries,
  filled: boolean,
  color: (name: string) => string,
): uPlot.Series {
  const stroke = color(name);
  const points = { show: true, size: 4, fill: stroke };
  if (style === "points") return { label, stroke, points, paths: () => null };
  return {
    label,
    stroke,
    width: 1.5,
    points: { ...points, filter: lonePoints },
    ...(filled && { fill: color(`${name}-soft`) }),
  };
}

/** A sample between two gaps, of which a line alone would show nothing. */
function lonePoints(chart: uPlot, seriesIndex: number): number[] {
  const values = chart.data[seriesIndex] ?? [];
  const isGap = (index: number): boolean => typeof values[index] !== "number";
  return Array.from(values.keys()).filter(
    (index) => !isGap(index) && isGap(index - 1) && isGap(index + 1),
  );
}

function ageSplits(spanSeconds: number): number[] {
  const step = spanSeconds > 120 ? 60 : 15;
  const steps = Math.floor(spanSeconds / step);
  return Array.from({ length: steps + 1 }, (_, index) => (index - steps) * step);
}

function ageLabels(_: uPlot, splits: number[]): string[] {
  return splits.map((age) => {
    if (age === 0) return "now";
    return age % 60 === 0 ? `−${-age / 60} min` : `−${-age} s`;
  });
}

function tickLabel(latest: { readonly current: ChartProps }): (value: number) => string {
  return (value) => latest.current.format(value);
}
