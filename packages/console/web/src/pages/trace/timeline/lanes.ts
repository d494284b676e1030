// Where lanes stand on the page: processes with a head, lanes with a row a depth, counters as
// strips; any of them can be folded. Pure geometry in CSS pixels.

import type { TraceLane } from "@open-infra/profile/analyze";
import type { CounterTrack } from "./counters.ts";
import type { SliceRows } from "./rows.ts";

/** Height of one row of slices, the line between rows included. */
export const ROW_PX = 18;
/** Room above the first row of a lane. */
export const LANE_TOP_PX = 3;
const FOLDED_PX = 12;
const PROCESS_PX = 24;
const LANE_GAP_PX = 8;
const COUNTER_PX = 34;

/** One strip of the timeline. */
export interface Band {
  readonly kind: "process" | "lane" | "counter";
  /** Stable name: what folding remembers. */
  readonly key: string;
  readonly title: string;
  readonly folded: boolean;
  readonly y: number;
  readonly height: number;
  /** Index into lanes; −1 for a process. */
  readonly lane: number;
  /** Rows drawn, from `firstRow` on. */
  readonly firstRow: number;
  readonly rowCount: number;
  readonly rowHeight: number;
  /** Index into the counters; −1 for others. */
  readonly counter: number;
}

export interface LaneLayout {
  readonly bands: readonly Band[];
  readonly height: number;
}

export interface LayoutInput {
  readonly lanes: readonly TraceLane[];
  readonly rows: SliceRows;
  readonly counters: readonly CounterTrack[];
  /** Keys of folded bands. */
  readonly folded: ReadonlySet<string>;
}

/** What a lane is called: its thread's name, or the number it is known by. */
export function laneTitle({ threadName, tid }: TraceLane): string {
  if (threadName !== "") return threadName;
  if (typeof tid === "number") return `thread ${tid}`;
  return tid === "" ? "no thread" : tid;
}

/** What a process is called. */
export function processTitle({ processName, processLabels, pid }: TraceLane): string {
  if (processName === "" && typeof pid === "string" && pid !== "") return pid;
  const name = processName === "" ? "process" : processName;
  const id = name.includes(String(pid)) ? "" : ` ${pid}`;
  return `${name}${id}${processLabels === "" ? "" : ` · ${processLabels}`}`;
}

/** Places every band below the one before. The lanes come sorted as a viewer shows them. */
export function layLanes({ lanes, rows, counters, folded }: LayoutInput): LaneLayout {
  const bands: Band[] = [];
  let y = 0;
  const push = (band: Omit<Band, "y">): void => {
    bands.push({ ...band, y });
    y += band.height;
  };
  let process = "";
  for (const [lane, info] of lanes.entries()) {
    const processKey = `p:${info.pid}`;
    const processFolded = folded.has(processKey);
    if (processKey !== process) {
      process = processKey;
      push(processBand(info, lane, processFolded));
    }
    if (processFolded) continue;
    const band = laneBand(lane, info, rows, folded);
    if (band !== undefined) push(band);
    for (const [counter, track] of counters.entries()) {
      if (track.lane === lane) push(counterBand(counter, track));
    }
  }
  return { bands, height: y };
}

function processBand(info: TraceLane, lane: number, folded: boolean): Omit<Band, "y"> {
  return {
    kind: "process",
    key: `p:${info.pid}`,
    title: processTitle(info),
    folded,
    height: PROCESS_PX,
    lane,
    firstRow: 0,
    rowCount: 0,
    rowHeight: 0,
    counter: -1,
  };
}

function laneBand(
  lane: number,
  info: TraceLane,
  rows: SliceRows,
  folded: ReadonlySet<string>,
): Omit<Band, "y"> | undefined {
  const firstRow = rows.laneRow[lane] as number;
  const rowCount = (rows.laneRow[lane + 1] as number) - firstRow;
  if (rowCount === 0) return undefined;
  const key = `l:${info.pid}/${info.tid}`;
  const isFolded = folded.has(key);
  const rowHeight = isFolded ? FOLDED_PX : ROW_PX;
  const shown = isFolded ? 1 : rowCount;
  return {
    kind: "lane",
    key,
    title: laneTitle(info),
    folded: isFolded,
    height: shown * rowHeight + LANE_GAP_PX,
    lane,
    firstRow,
    rowCount: shown,
    rowHeight,
    counter: -1,
  };
}

function counterBand(counter: number, track: CounterTrack): Omit<Band, "y"> {
  return {
    kind: "counter",
    key: `c:${track.lane}/${track.title}`,
    title: track.title,
    folded: false,
    height: COUNTER_PX,
    lane: track.lane,
    firstRow: 0,
    rowCount: 0,
    rowHeight: 0,
    counter,
  };
}

/** Index of the band at `y`, or −1 above and below all. */
export function bandAt({ bands, height }: LaneLayout, y: number): number {
  if (y < 0 || y >= height) return -1;
  let low = 0;
  let high = bands.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >>> 1;
    if ((bands[middle] as Band).y <= y) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** The row of slices at `y` of a band, or −1 between rows. */
export function rowAt(band: Band, y: number): number {
  const index = Math.floor((y - band.y - LANE_TOP_PX) / band.rowHeight);
  return band.kind === "lane" && index >= 0 && index < band.rowCount ? band.firstRow + index : -1;
}

/** Where a row of slices stands, or undefined where its process is folded. */
export function placeOfRow(
  { bands }: LaneLayout,
  lane: number,
  row: number,
): { readonly top: number; readonly height: number } | undefined {
  const band = bands.find((candidate) => candidate.kind === "lane" && candidate.lane === lane);
  if (band === undefined) return undefined;
  const index = Math.min(row - band.firstRow, band.rowCount - 1);
  return { top: band.y + LANE_TOP_PX + index * band.rowHeight, height: band.rowHeight - 1 };
}
