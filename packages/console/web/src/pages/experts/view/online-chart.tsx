// Balance over the steps of a replay as three lines, and beneath them the slots that were moved.
// The x axis counts steps, so this is not the clock chart of the engine page.

import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { formatCount } from "../../../ui/format.ts";
import type { OnlineResult } from "../compute.ts";
import { ratioTicks } from "./ratio-ticks.ts";

export const arms = [
  ["fixed", "never moved"],
  ["fresh", "fresh each interval"],
  ["controller", "controller"],
] as const;

const WIDTH = 1000;
const LINES = { top: 8, height: 170 };
const BARS = { top: 196, height: 52 };
const LEFT = 48;
const BOTTOM = BARS.top + BARS.height;

/** Where values lie in the drawing. */
function geometryOf({ windows }: OnlineResult) {
  const high = Math.max(...windows.flatMap((row) => arms.map(([arm]) => row[arm].maxOverMean)));
  const top = Math.max(1.01, 1 + (high - 1) * 1.08);
  const moves = windows.flatMap((row) => [row.controller.movedSlots, row.fresh.movedSlots]);
  const column = (WIDTH - LEFT) / windows.length;
  return {
    top,
    most: Math.max(1, ...moves),
    column,
    x: (index: number): number => LEFT + column * (index + 0.5),
    y: (value: number): number => LINES.top + LINES.height * (1 - (value - 1) / (top - 1)),
  };
}

/** What was moved in each window, fresh beside controller. */
function MovedBars({ result }: { readonly result: OnlineResult }): VNode {
  const { most, column, x } = geometryOf(result);
  const bar = (arm: "fresh" | "controller", index: number, slots: number): VNode => {
    const height = (BARS.height * slots) / most;
    const left = x(index) + column * (arm === "fresh" ? -0.42 : 0.02);
    const size = { x: left, y: BOTTOM - height, width: column * 0.4, height };
    return <rect class={`bar ${arm}`} {...size} />;
  };
  return (
    <g>
      {result.windows.map((row, index) => (
        <g key={row.step}>
          {bar("fresh", index, row.fresh.movedSlots)}
          {bar("controller", index, row.controller.movedSlots)}
        </g>
      ))}
    </g>
  );
}

export function OnlineChart({ result }: { readonly result: OnlineResult }): VNode {
  const [hovered, setHovered] = useState<number | null>(null);
  const { windows } = result;
  const { top, most, column, x, y } = geometryOf(result);
  const digits = top - 1 < 0.2 ? 2 : 1;
  return (
    <div class="online-chart">
      <svg
        viewBox={`0 0 ${WIDTH} ${BOTTOM + 16}`}
        preserveAspectRatio="none"
        role="img"
        aria-label="Max ÷ mean load over the steps, and moved slots. The table below says the same."
        onPointerMove={(event) => {
          const box = event.currentTarget.getBoundingClientRect();
          const at = ((event.clientX - box.left) / box.width) * WIDTH;
          const index = Math.floor((at - LEFT) / column);
          setHovered(index >= 0 && index < windows.length ? index : null);
        }}
        onPointerLeave={() => setHovered(null)}
      >
        {ratioTicks(1, top).map((tick) => (
          <line key={tick} class="grid" x1={LEFT} x2={WIDTH} y1={y(tick)} y2={y(tick)} />
        ))}
        {hovered !== null && (
          <rect class="column" x={x(hovered) - column / 2} y={0} width={column} height={BOTTOM} />
        )}
        <MovedBars result={result} />
        {arms.map(([arm]) => (
          <polyline
            key={arm}
            class={`line ${arm}`}
            points={windows.map((row, i) => `${x(i)},${y(row[arm].maxOverMean)}`).join(" ")}
          />
        ))}
      </svg>
      <ChartAxis ticks={ratioTicks(1, top).map((tick) => [y(tick), tick.toFixed(digits)])} />
      <p class="bench-readout" role="status">
        {hovered === null
          ? `Max ÷ mean load; beneath, slots moved: at most ${formatCount(most)} in ` +
            `${windows[0]?.steps ?? 0} steps.`
          : readout(result, hovered)}
      </p>
    </div>
  );
}

/** Texts stand beside the drawing, which is stretched. */
function ChartAxis({ ticks }: { readonly ticks: readonly (readonly [number, string])[] }): VNode {
  return (
    <ol class="chart-axis" aria-hidden="true">
      {ticks.map(([at, text]) => (
        <li key={text} style={{ top: `${(100 * at) / (BOTTOM + 16)}%` }}>
          {text}
        </li>
      ))}
    </ol>
  );
}

function readout({ windows }: OnlineResult, index: number): string {
  const row = windows[index];
  if (row === undefined) return "";
  const parts = arms.map(([arm, title]) => `${title} ${row[arm].maxOverMean.toFixed(3)}`);
  return (
    `Steps ${row.step} to ${row.step + row.steps - 1}: ${parts.join(", ")}; moved ` +
    `${formatCount(row.fresh.movedSlots)} fresh, ` +
    `${formatCount(row.controller.movedSlots)} controller`
  );
}
