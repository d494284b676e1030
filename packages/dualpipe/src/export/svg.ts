// A simulated run as one self-contained SVG: a row for each rank, a rectangle for each computation,
// a time axis, a legend, and the activations each rank holds beneath. It uses no style sheet and no
// script, and colours that read on light and on dark ground, so that it can be put anywhere.
//
// Where computations are narrower than a pixel, a row shows what fills most of each pixel instead,
// so that the file stays small whatever the schedule's length.

import { InputError } from "@open-infra/errors";
import type { OpKindName, Schedule } from "../schedule/schedule.ts";
import type { RankTimeline, SimulationResult } from "../simulate/simulate.ts";
import { type Cell, type CellHalf, cellsOfRank, timelineOf } from "./cells.ts";
import { memoryRows } from "./svg-memory.ts";
import { element, escapeXml, fixed, ink, shades } from "./svg-parts.ts";

/** How the picture looks. */
export interface SvgOptions {
  /** Pixels, margins included. @default 1200 */
  readonly width?: number;
  /** Height of a rank's row, pixels. @default 24, less for many ranks */
  readonly rowHeight?: number;
  /** @default the schedule's name, ranks, micro-batches and makespan */
  readonly title?: string;
  /** The activations each rank holds, beneath. @default true */
  readonly memory?: boolean;
  /** Outline the critical path, if the run has one. @default true */
  readonly criticalPath?: boolean;
  /** A tooltip for each computation. @default where there are at most 4,000 */
  readonly tooltips?: boolean;
  /** First rank, and the one after the last, to show. @default all */
  readonly ranks?: readonly [from: number, to: number];
  /** Written after times: `ms`. @default nothing */
  readonly unit?: string;
}

const margin = { left: 72, right: 16, top: 52, axis: 30 };
const ranksMax = 256;
const fontFamily = "ui-sans-serif, system-ui, Segoe UI, Helvetica, Arial, sans-serif";

interface Layout {
  readonly from: number;
  readonly to: number;
  readonly width: number;
  readonly plotWidth: number;
  readonly rowHeight: number;
  /** Pixels of a unit of time. */
  readonly scale: number;
  readonly tooltips: boolean;
}

function layoutOf(schedule: Schedule, result: SimulationResult, options: SvgOptions): Layout {
  const [from, to] = options.ranks ?? [0, schedule.numRanks];
  if (!(Number.isInteger(from) && Number.isInteger(to) && 0 <= from && from < to)) {
    throw new InputError("ranks", `[${from}, ${to}]`, "a range of ranks, [from, to)");
  }
  if (to > schedule.numRanks || to - from > ranksMax) {
    const allowed = `at most ${ranksMax} of ${schedule.numRanks} ranks, as ranks: [from, to]`;
    throw new InputError("ranks", `[${from}, ${to}]`, allowed);
  }
  const width = options.width ?? 1200;
  if (!(width >= 240 && width <= 16_384)) {
    throw new InputError("width", String(width), "240 to 16384 pixels");
  }
  const rowHeight = options.rowHeight ?? Math.max(4, Math.min(24, Math.floor(720 / (to - from))));
  if (!(rowHeight >= 2 && rowHeight <= 200)) {
    throw new InputError("rowHeight", String(rowHeight), "2 to 200 pixels");
  }
  const plotWidth = width - margin.left - margin.right;
  const scale = result.makespan > 0 ? plotWidth / result.makespan : 0;
  const tooltips = options.tooltips ?? result.numOperations <= 4000;
  return { from, to, width, plotWidth, rowHeight, scale, tooltips };
}

const hundredths = (value: number): string => String(Number(value.toPrecision(6)));

function halfText(kind: string, { direction, stage, microBatch }: CellHalf): string {
  return `${kind} direction ${direction}, stage ${stage}, micro-batch ${microBatch}`;
}

function tooltip(cell: Cell, unit: string): string {
  const first = halfText(cell.pair === undefined ? cell.kind : "F", cell);
  const what = cell.pair === undefined ? first : `${first} with ${halfText("B", cell.pair)}`;
  return `${what}: ${hundredths(cell.start)} to ${hundredths(cell.end)}${unit}`;
}

/** Rectangles of one half, with its micro-batch's number if there is room. */
function halfBox(
  { x, y, w, h }: { x: number; y: number; w: number; h: number },
  kind: OpKindName,
  half: CellHalf,
): string {
  const { fill, text } = shades(kind, half.direction);
  const box = element("rect", {
    x: fixed(x),
    y: fixed(y),
    width: fixed(w),
    height: fixed(h),
    fill,
  });
  const size = Math.min(11, h - 2);
  const number = String(half.microBatch);
  if (size < 6 || number.length * size * 0.62 + 2 > w) return box;
  const at = { x: fixed(x + w / 2), y: fixed(y + h / 2 + size * 0.36) };
  return box + element("text", { ...at, "font-size": fixed(size), fill: text }, number);
}

function drawCells(
  schedule: Schedule,
  timeline: readonly RankTimeline[],
  rank: number,
  y: number,
  layout: Layout,
  unit: string,
): string {
  const { scale, rowHeight } = layout;
  const h = rowHeight - (rowHeight > 6 ? 2 : 0);
  let out = "";
  for (const cell of cellsOfRank(schedule, timeline, rank)) {
    if (cell.end <= cell.start) continue;
    const x = margin.left + cell.start * scale;
    const full = (cell.end - cell.start) * scale;
    // A hair between neighbours, where there is room for one.
    const w = full > 3 ? full - 0.6 : full;
    const body =
      cell.pair === undefined
        ? halfBox({ x, y, w, h }, cell.kind, cell)
        : halfBox({ x, y, w, h: h / 2 }, "F", cell) +
          halfBox({ x, y: y + h / 2, w, h: h / 2 }, "B", cell.pair);
    out += layout.tooltips
      ? element("g", {}, `<title>${escapeXml(tooltip(cell, unit))}</title>${body}`)
      : body;
  }
  return out;
}

const kindsDrawn: readonly OpKindName[] = ["F", "B", "I", "W", "FB"];

/** What fills most of each pixel of a row, as runs of one colour. */
function drawColumns(
  schedule: Schedule,
  timeline: readonly RankTimeline[],
  rank: number,
  y: number,
  layout: Layout,
): string {
  const columns = Math.floor(layout.plotWidth);
  const share = new Float64Array(columns * kindsDrawn.length);
  for (const { start, end, kind } of cellsOfRank(schedule, timeline, rank)) {
    const [from, to] = [start * layout.scale, end * layout.scale];
    for (let column = Math.floor(from); column < Math.min(to, columns); column++) {
      const at = column * kindsDrawn.length + kindsDrawn.indexOf(kind);
      share[at] = (share[at] as number) + Math.min(to, column + 1) - Math.max(from, column);
    }
  }
  const winner = (column: number): number => {
    const of = share.subarray(column * kindsDrawn.length, (column + 1) * kindsDrawn.length);
    const most = Math.max(...of);
    const busy = of.reduce((sum, part) => sum + part, 0);
    return busy < 0.5 ? -1 : of.indexOf(most);
  };
  const h = layout.rowHeight - (layout.rowHeight > 6 ? 2 : 0);
  let out = "";
  let begin = 0;
  for (let column = 1; column <= columns; column++) {
    const kind = winner(begin);
    if (column < columns && winner(column) === kind) continue;
    if (kind >= 0) {
      const { fill } = shades(kindsDrawn[kind] as OpKindName, 0);
      const x = fixed(margin.left + begin);
      out += element("rect", { x, y: fixed(y), width: column - begin, height: fixed(h), fill });
    }
    begin = column;
  }
  return out;
}

/** Whole numbers of 1, 2 or 5 times a power of ten, about 10 of them. */
function axis(makespan: number, y: number, layout: Layout, unit: string): string {
  if (!(makespan > 0)) return "";
  const rough = makespan / 10;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5, 10].find((m) => m * power >= rough) as number) * power;
  let out = "";
  for (let i = 0; i * step <= makespan * (1 + 1e-9); i++) {
    const x = fixed(margin.left + i * step * layout.scale);
    out += element("line", { x1: x, x2: x, y1: fixed(y), y2: fixed(y + 4), stroke: ink.line });
    out += element("text", { x, y: fixed(y + 16), "font-size": 11 }, hundredths(i * step));
  }
  if (unit !== "") {
    const at = { x: margin.left - 8, y: fixed(y + 16), "text-anchor": "end" };
    out += element("text", { ...at, "font-size": 11 }, escapeXml(unit.trim()));
  }
  return out;
}

/** What one entry of the legend says, and the colours it says it of. */
interface LegendEntry {
  readonly text: string;
  readonly fills: readonly string[];
  readonly outline?: boolean;
}

function legendEntries(schedule: Schedule, inColumns: boolean, critical: boolean): LegendEntry[] {
  const used = new Set<number>();
  for (const { kind } of schedule.ranks) for (const k of kind) used.add(k);
  const hasPairs = used.has(kindsDrawn.indexOf("FB"));
  const names: readonly (readonly [OpKindName, string])[] = [
    ["F", "forward"],
    ["B", "backward"],
    ["I", "backward for the input"],
    ["W", "backward for the weights"],
  ];
  const both = schedule.numDirections === 2 && !inColumns;
  const entries: LegendEntry[] = names
    .filter(
      ([kind]) =>
        used.has(kindsDrawn.indexOf(kind)) || (hasPairs && !inColumns && "FB".includes(kind)),
    )
    .map(([kind, name]) => ({
      text: both ? `${name}, → and ←` : name,
      fills: (both ? [0, 1] : [0]).map((direction) => shades(kind, direction).fill),
    }));
  if (hasPairs && inColumns) entries.push({ text: "overlapped", fills: [shades("FB", 0).fill] });
  else if (hasPairs) entries.push({ text: "two halves: overlapped", fills: [] });
  if (critical) entries.push({ text: "critical path", fills: ["none"], outline: true });
  return entries;
}

function legend(entries: readonly LegendEntry[]): string {
  let x = margin.left;
  let out = "";
  for (const { text, fills, outline } of entries) {
    for (const fill of fills) {
      const stroke = outline ? { stroke: ink.alert, "stroke-width": 1.4 } : {};
      const box = { x: fixed(x), y: 30.5, width: 11, height: 11, fill, ...stroke };
      out += element("rect", box);
      x += 13;
    }
    const at = { x: fixed(x + 3), y: 40, "text-anchor": "start", "font-size": 11 };
    out += element("text", at, text);
    x += 16 + text.length * 5.9;
  }
  return out;
}

function criticalBoxes(result: SimulationResult, layout: Layout): string {
  let out = "";
  for (const { rank, start, end } of result.criticalPath?.steps ?? []) {
    if (rank < layout.from || rank >= layout.to) continue;
    const y = margin.top + (rank - layout.from) * layout.rowHeight;
    const x = margin.left + start * layout.scale;
    const box = {
      x: fixed(x + 0.5),
      y: fixed(y + 0.5),
      width: fixed(Math.max(0.5, (end - start) * layout.scale - 1.6)),
      height: fixed(layout.rowHeight - (layout.rowHeight > 6 ? 3 : 1)),
    };
    out += element("rect", box);
  }
  if (out === "") return "";
  return element("g", { fill: "none", stroke: ink.alert, "stroke-width": 1.4 }, out);
}

/**
 * A simulated run as an SVG document.
 *
 * @throws InputError if the run kept no timeline, or for more than 256 ranks at once.
 */
export function toSvg(
  schedule: Schedule,
  result: SimulationResult,
  options: SvgOptions = {},
): string {
  const timeline = timelineOf(result);
  const layout = layoutOf(schedule, result, options);
  const unit = options.unit === undefined ? "" : ` ${options.unit}`;
  const { from, to, rowHeight, width } = layout;
  const longest = Math.max(...schedule.ranks.slice(from, to).map(({ length }) => length));
  const inColumns = longest > layout.plotWidth;
  const labelEvery = Math.ceil(11 / rowHeight);
  let rows = "";
  for (let rank = from; rank < to; rank++) {
    const y = margin.top + (rank - from) * rowHeight;
    if ((rank - from) % labelEvery === 0) {
      const at = { x: margin.left - 8, y: fixed(y + Math.min(rowHeight, 24) / 2 + 3) };
      rows += element("text", { ...at, "text-anchor": "end", "font-size": 11 }, `rank ${rank}`);
    }
    const track = { x: margin.left, y, width: layout.plotWidth, height: rowHeight - 1 };
    rows += element("rect", { ...track, fill: ink.track, "fill-opacity": 0.16 });
    rows += inColumns
      ? drawColumns(schedule, timeline, rank, y, layout)
      : drawCells(schedule, timeline, rank, y, layout, unit);
  }
  const axisY = margin.top + (to - from) * rowHeight + 2;
  const critical =
    (options.criticalPath ?? true) && !inColumns && result.criticalPath !== undefined;
  let body = rows + axis(result.makespan, axisY, layout, unit);
  body += legend(legendEntries(schedule, inColumns, critical));
  if (critical) body += criticalBoxes(result, layout);
  let height = axisY + margin.axis;
  if (options.memory ?? true) {
    const place = { left: margin.left, top: height, scale: layout.scale, width: layout.plotWidth };
    const memory = memoryRows(schedule, result, { from, to }, place);
    body += memory.body;
    height = memory.bottom;
  }
  const title =
    options.title ??
    `${schedule.name}, ${schedule.numRanks} ranks, ${schedule.numMicroBatches} micro-batches: ` +
      `${hundredths(result.makespan)}${unit}`;
  const heading = { x: margin.left, y: 20, "text-anchor": "start", "font-size": 14 };
  body += element("text", { ...heading, "font-weight": 600 }, escapeXml(title));
  return element(
    "svg",
    {
      xmlns: "http://www.w3.org/2000/svg",
      width,
      height: Math.ceil(height),
      viewBox: `0 0 ${width} ${Math.ceil(height)}`,
      role: "img",
      "aria-label": title,
      "font-family": fontFamily,
      "text-anchor": "middle",
      fill: ink.text,
    },
    `<title>${escapeXml(title)}</title>${body}`,
  );
}
