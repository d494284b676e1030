// Slices laid into rows: each lane becomes as many rows as its slices nest, and in a row no two
// slices overlap. Everything is columns over "slots", which run row by row and in a row by time,
// so that a row is a binary search away and its busy time up to any moment is one subtraction. It
// knows neither pixels nor names.

import type { EventTable } from "@open-infra/profile/analyze";

/** Where there is no slot, event or row. */
export const NONE = 0xffffffff;

const PHASE_COMPLETE = 88;
/** i, I, R, n: moments without a duration, shown as hairlines. */
const INSTANTS: ReadonlySet<number> = new Set([105, 73, 82, 110]);

/** Children of a node of the tree over slots that answers `longestSlot`. */
const FAN = 8;
const FAN_BITS = 3;

/** The slices of a trace in rows. Rows of a lane lie together, the outermost first. */
export interface SliceRows {
  /** Slots of row `r` are `rowOffset[r]` up to `rowOffset[r + 1]`. */
  readonly rowOffset: Uint32Array;
  /** Rows of lane `l` are `laneRow[l]` up to `laneRow[l + 1]`. */
  readonly laneRow: Uint32Array;
  /** µs since the origin, a slot each. */
  readonly start: Float64Array;
  readonly end: Float64Array;
  /** Sum of the durations before this slot in its row, µs. */
  readonly busyBefore: Float64Array;
  /** Row of the event table. */
  readonly event: Uint32Array;
  /** Slot of an event, or `NONE` for what is no slice. */
  readonly slotOf: Uint32Array;
  /** Inner nodes of the tree: the longest slot below each, level after level. */
  readonly longest: Uint32Array;
  /** Where each level begins in `longest`; level 0 is the slots themselves and is not stored. */
  readonly longestLevel: Uint32Array;
}

type Columns = Pick<EventTable, "length" | "phase" | "lane" | "startUs" | "durationUs" | "lanes">;

/** Lays complete and instant events into rows. O(n log n), O(n) where the file is in order. */
export function layRows(table: Columns): SliceRows {
  const { order, laneOffset } = orderByLane(table);
  const depth = new Uint16Array(order.length);
  const laneRow = new Uint32Array(table.lanes.length + 1);
  for (let lane = 0; lane < table.lanes.length; lane++) {
    const slots = order.subarray(laneOffset[lane], laneOffset[lane + 1]);
    sortByStart(slots, table);
    const depths = assignDepths(slots, table, depth.subarray(laneOffset[lane]));
    laneRow[lane + 1] = (laneRow[lane] as number) + depths;
  }
  return placeSlots(table, { order, laneOffset, depth, laneRow });
}

interface Ordered {
  /** Events by lane, in the order of the file within one. */
  readonly order: Uint32Array;
  readonly laneOffset: Uint32Array;
}

function isSlice(phase: number): boolean {
  return phase === PHASE_COMPLETE || INSTANTS.has(phase);
}

function orderByLane({ length, phase, lane, lanes }: Columns): Ordered {
  const laneOffset = new Uint32Array(lanes.length + 1);
  for (let i = 0; i < length; i++) {
    if (isSlice(phase[i] as number)) laneOffset[(lane[i] as number) + 1]!++;
  }
  for (let l = 0; l < lanes.length; l++) laneOffset[l + 1]! += laneOffset[l] as number;
  const next = laneOffset.slice();
  const order = new Uint32Array(laneOffset[lanes.length] as number);
  for (let i = 0; i < length; i++) {
    if (isSlice(phase[i] as number)) order[next[lane[i] as number]!++] = i;
  }
  return { order, laneOffset };
}

/** Earlier first; of those that start together the longer one, which then contains the other. */
function sortByStart(slots: Uint32Array, { startUs, durationUs }: Columns): void {
  const compare = (a: number, b: number): number => {
    const byStart = (startUs[a] as number) - (startUs[b] as number);
    if (byStart !== 0) return byStart;
    const byLength = (durationUs[b] as number) - (durationUs[a] as number);
    return byLength !== 0 ? byLength : a - b;
  };
  for (let i = 1; i < slots.length; i++) {
    if (compare(slots[i - 1] as number, slots[i] as number) > 0) {
      slots.sort(compare);
      return;
    }
  }
}

/** µs by which a slice may begin before the end of the one before: times are rounded sums. */
const HAIR_US = 1e-3;
/** Twice the step of a clock of microseconds since 1970 in a float64. */
const CLOCK_STEP_US = 0.5;

/** Whether a slice may follow one that ends at `freeUs` in its row. */
function follows(freeUs: number, startUs: number, endUs: number): boolean {
  const overlapUs = freeUs - startUs;
  if (overlapUs <= HAIR_US) return true;
  // Not inside the one before, and over it by less than the clock can be trusted with.
  return endUs > freeUs && overlapUs <= Math.min(CLOCK_STEP_US, (endUs - startUs) / 10);
}

/**
 * The first row that is free again. For nested slices that is their depth in the stack; slices that
 * overlap without nesting, which no stack makes but streams do, go side by side.
 */
function assignDepths(slots: Uint32Array, table: Columns, depth: Uint16Array): number {
  const freeAt: number[] = [];
  for (let k = 0; k < slots.length; k++) {
    const event = slots[k] as number;
    const start = table.startUs[event] as number;
    const end = start + (table.durationUs[event] as number);
    let row = 0;
    while (row < freeAt.length && !follows(freeAt[row] as number, start, end)) row++;
    freeAt[row] = end;
    depth[k] = row;
  }
  return freeAt.length;
}

interface Placed extends Ordered {
  readonly depth: Uint16Array;
  readonly laneRow: Uint32Array;
}

function placeSlots(table: Columns, { order, laneOffset, depth, laneRow }: Placed): SliceRows {
  const count = order.length;
  const lanes = table.lanes.length;
  const rowOffset = new Uint32Array((laneRow[lanes] as number) + 1);
  const rows = {
    rowOffset,
    laneRow,
    start: new Float64Array(count),
    end: new Float64Array(count),
    busyBefore: new Float64Array(count),
    event: new Uint32Array(count),
    slotOf: new Uint32Array(table.length).fill(NONE),
  };
  for (let lane = 0; lane < lanes; lane++) {
    const firstRow = laneRow[lane] as number;
    const end = laneOffset[lane + 1] as number;
    for (let k = laneOffset[lane] as number; k < end; k++) {
      rowOffset[firstRow + (depth[k] as number) + 1]!++;
    }
  }
  for (let row = 1; row < rowOffset.length; row++) rowOffset[row]! += rowOffset[row - 1] as number;
  const next = rowOffset.slice();
  const busy = new Float64Array(rowOffset.length);
  for (let lane = 0; lane < lanes; lane++) {
    const end = laneOffset[lane + 1] as number;
    for (let k = laneOffset[lane] as number; k < end; k++) {
      const row = (laneRow[lane] as number) + (depth[k] as number);
      const slot = next[row]!++;
      const event = order[k] as number;
      const durationUs = table.durationUs[event] as number;
      rows.start[slot] = table.startUs[event] as number;
      rows.end[slot] = (table.startUs[event] as number) + durationUs;
      rows.busyBefore[slot] = busy[row] as number;
      busy[row]! += durationUs;
      rows.event[slot] = event;
      rows.slotOf[event] = slot;
    }
  }
  return { ...rows, ...buildLongest(rows.start, rows.end) };
}

function buildLongest(
  start: Float64Array,
  end: Float64Array,
): Pick<SliceRows, "longest" | "longestLevel"> {
  const sizes: number[] = [];
  for (let size = Math.ceil(start.length / FAN); ; size = Math.ceil(size / FAN)) {
    sizes.push(size);
    if (size <= 1) break;
  }
  const longestLevel = new Uint32Array(sizes.length + 1);
  for (const [level, size] of sizes.entries()) {
    longestLevel[level + 1] = (longestLevel[level] as number) + size;
  }
  const longest = new Uint32Array(longestLevel[sizes.length] as number);
  let below = start.length;
  for (const [level, size] of sizes.entries()) {
    const base = longestLevel[level] as number;
    for (let node = 0; node < size; node++) {
      let best = NONE;
      let bestUs = -1;
      const last = Math.min(below, (node + 1) * FAN);
      for (let child = node * FAN; child < last; child++) {
        const slot = level === 0 ? child : longest[(longestLevel[level - 1] as number) + child]!;
        const us = (end[slot] as number) - (start[slot] as number);
        if (us > bestUs) {
          best = slot;
          bestUs = us;
        }
      }
      longest[base + node] = best;
    }
    below = size;
  }
  return { longest, longestLevel };
}

/** The slot of the longest slice among `from` up to `to` (exclusive, above `from`). O(log n). */
export function longestSlot(rows: SliceRows, from: number, to: number): number {
  const { start, end, longest, longestLevel } = rows;
  let best = from;
  let bestUs = -1;
  const consider = (level: number, node: number): void => {
    const slot = level === 0 ? node : longest[(longestLevel[level - 1] as number) + node]!;
    const us = (end[slot] as number) - (start[slot] as number);
    // Of equals the first, whichever way the blocks are walked.
    if (us > bestUs || (us === bestUs && slot < best)) {
      best = slot;
      bestUs = us;
    }
  };
  let low = from;
  let high = to;
  for (let level = 0; low < high; level++) {
    while (low < high && (low & (FAN - 1)) !== 0) consider(level, low++);
    while (low < high && (high & (FAN - 1)) !== 0) consider(level, --high);
    low >>>= FAN_BITS;
    high >>>= FAN_BITS;
  }
  return best;
}

/** The first index in `[low, high)` whose value is above `bound`, or `high`. */
export function firstAbove(values: Float64Array, bound: number, low: number, high: number): number {
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((values[middle] as number) > bound) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** The first index in `[low, high)` whose value is `bound` or above, or `high`. */
export function firstAtLeast(
  values: Float64Array,
  bound: number,
  low: number,
  high: number,
): number {
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((values[middle] as number) >= bound) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** The row of a slot. */
export function rowOfSlot({ rowOffset }: SliceRows, slot: number): number {
  let low = 0;
  let high = rowOffset.length - 1;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((rowOffset[middle + 1] as number) > slot) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** The lane of a row. */
export function laneOfRow({ laneRow }: SliceRows, row: number): number {
  let low = 0;
  let high = laneRow.length - 1;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((laneRow[middle + 1] as number) > row) high = middle;
    else low = middle + 1;
  }
  return low;
}

/**
 * The slot in `row` at `timeUs`, or within `slackUs` of it, so that what is thinner than a pixel
 * can be pointed at too; `NONE` where there is none.
 */
export function slotAt(rows: SliceRows, row: number, timeUs: number, slackUs: number): number {
  const first = rows.rowOffset[row] as number;
  const last = rows.rowOffset[row + 1] as number;
  const after = firstAbove(rows.start, timeUs, first, last);
  const before = after - 1;
  const toBefore = before >= first ? timeUs - (rows.end[before] as number) : Infinity;
  if (toBefore < 0) return before;
  const toAfter = after < last ? (rows.start[after] as number) - timeUs : Infinity;
  if (Math.min(toBefore, toAfter) > slackUs) return NONE;
  return toBefore <= toAfter ? before : after;
}

/** The innermost slot of `lane` that covers `timeUs`, its ends included; `NONE` without one. */
export function enclosingSlot(rows: SliceRows, lane: number, timeUs: number): number {
  const firstRow = rows.laneRow[lane] as number;
  for (let row = (rows.laneRow[lane + 1] as number) - 1; row >= firstRow; row--) {
    const slot = slotAt(rows, row, timeUs, 0);
    if (slot !== NONE) return slot;
  }
  return NONE;
}
