// Arrows between slices: flow events (`s`, `t`, `f` of one category and id) and launches with the
// kernels that carry their correlation. Found once, kept as columns, looked up by either end.

import type { EventTable } from "@open-infra/profile/analyze";
import { enclosingSlot, NONE, type SliceRows } from "./rows.ts";

const PHASE_START = 115;
const PHASE_STEP = 116;
const PHASE_END = 102;
const PHASE_COMPLETE = 88;

/** Arrows from slot to slot, ordered by where they begin. */
export interface FlowLinks {
  readonly from: Uint32Array;
  readonly to: Uint32Array;
  /** Links ordered by where they end: indices into `from` and `to`. */
  readonly byTo: Uint32Array;
  /** Flow events that could not be tied to a slice, or had no partner. */
  readonly unbound: number;
}

/** Finds all arrows. O(n log n) in the flow events. */
export function findLinks(table: EventTable, rows: SliceRows): FlowLinks {
  const pairs: [number, number][] = [];
  const seen = new Set<number>();
  const add = (from: number, to: number): void => {
    if (from === NONE || to === NONE || from === to) return;
    // A launch and its kernel are mostly tied twice, by a flow and by the correlation.
    const key = from * rows.event.length + to;
    if (seen.has(key)) return;
    seen.add(key);
    pairs.push([from, to]);
  };
  const unbound = linkFlows(table, rows, add);
  linkLaunches(table, rows, add);
  pairs.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const from = Uint32Array.from(pairs, ([slot]) => slot);
  const to = Uint32Array.from(pairs, ([, slot]) => slot);
  const byTo = Uint32Array.from(pairs.keys());
  byTo.sort((a, b) => (to[a] as number) - (to[b] as number) || a - b);
  return { from, to, byTo, unbound };
}

type Add = (from: number, to: number) => void;

function isFlow(phase: number): boolean {
  return phase === PHASE_START || phase === PHASE_STEP || phase === PHASE_END;
}

function linkFlows(table: EventTable, rows: SliceRows, add: Add): number {
  const { phase, flowId, category, startUs } = table;
  const events: number[] = [];
  for (let i = 0; i < table.length; i++) {
    if (isFlow(phase[i] as number) && flowId[i] !== NONE) events.push(i);
  }
  const rank = (i: number): number =>
    phase[i] === PHASE_START ? 0 : phase[i] === PHASE_STEP ? 1 : 2;
  // A start comes before its end even where two clocks say otherwise.
  events.sort(
    (a, b) =>
      (category[a] as number) - (category[b] as number) ||
      (flowId[a] as number) - (flowId[b] as number) ||
      rank(a) - rank(b) ||
      (startUs[a] as number) - (startUs[b] as number),
  );
  let unbound = 0;
  for (let first = 0; first < events.length; ) {
    let last = first + 1;
    while (last < events.length && sameFlow(table, events[first]!, events[last]!)) last++;
    const slots = events.slice(first, last).map((event) => slotOfFlow(table, rows, event));
    unbound += last - first === 1 ? 1 : slots.filter((slot) => slot === NONE).length;
    linkGroup(events.slice(first, last), slots, { phase, add });
    first = last;
  }
  return unbound;
}

function sameFlow({ category, flowId }: EventTable, a: number, b: number): boolean {
  return category[a] === category[b] && flowId[a] === flowId[b];
}

/** One start may have several ends: each end hangs on the step before it, or on the start. */
function linkGroup(
  events: readonly number[],
  slots: readonly number[],
  { phase, add }: { readonly phase: Uint8Array; readonly add: Add },
): void {
  const starts = events.filter((event) => phase[event] === PHASE_START).length;
  if (starts > 1) {
    // An id used again and again: the k-th start belongs to the k-th end.
    const ends = slots.slice(starts);
    for (const [k, to] of ends.entries()) add(slots[Math.min(k, starts - 1)] as number, to);
    return;
  }
  let from = slots[0] as number;
  for (let k = 1; k < slots.length; k++) {
    const to = slots[k] as number;
    add(from, to);
    if (phase[events[k] as number] === PHASE_STEP) from = to;
  }
}

function slotOfFlow(table: EventTable, rows: SliceRows, event: number): number {
  return enclosingSlot(rows, table.lane[event] as number, table.startUs[event] as number);
}

/** Ties launches on the host to what ran on a device: same correlation, no stream against one. */
function linkLaunches(table: EventTable, rows: SliceRows, add: Add): void {
  const { correlation, stream, phase } = table;
  const launch = new Map<number, number>();
  for (let i = 0; i < table.length; i++) {
    const id = correlation[i] as number;
    if (id >= 0 && stream[i] === -1 && phase[i] === PHASE_COMPLETE) launch.set(id, i);
  }
  if (launch.size === 0) return;
  for (let i = 0; i < table.length; i++) {
    const id = correlation[i] as number;
    if (id < 0 || stream[i] === -1 || phase[i] !== PHASE_COMPLETE) continue;
    const from = launch.get(id);
    if (from !== undefined) add(rows.slotOf[from] as number, rows.slotOf[i] as number);
  }
}

/** The slots an arrow leads to from `slot`, and those one comes from. */
export function partnersOf(
  { from, to, byTo }: FlowLinks,
  slot: number,
): { readonly into: readonly number[]; readonly outOf: readonly number[] } {
  const into: number[] = [];
  for (let k = lowerBound(from.length, (i) => (from[i] as number) >= slot); from[k] === slot; k++) {
    into.push(to[k] as number);
  }
  const outOf: number[] = [];
  const target = (i: number): number => to[byTo[i] as number] as number;
  const first = lowerBound(byTo.length, (i) => target(i) >= slot);
  for (let k = first; k < byTo.length && target(k) === slot; k++) {
    outOf.push(from[byTo[k] as number] as number);
  }
  return { into, outOf };
}

function lowerBound(count: number, reached: (index: number) => boolean): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (reached(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}

/**
 * Links that can be seen in a window of time: all whose ends span it. More than `most` are too many
 * to tell apart; then only their count is given.
 */
export function linksIn(
  { from, to }: FlowLinks,
  rows: SliceRows,
  window: { readonly startUs: number; readonly endUs: number },
  most: number,
): { readonly count: number; readonly links: readonly number[] } {
  const links: number[] = [];
  let count = 0;
  for (let k = 0; k < from.length; k++) {
    const a = rows.start[from[k] as number] as number;
    const b = rows.start[to[k] as number] as number;
    if (Math.max(a, b) < window.startUs || Math.min(a, b) > window.endUs) continue;
    count++;
    if (count <= most) links.push(k);
  }
  return count > most ? { count, links: [] } : { count, links };
}
