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

/** Arrows as they are found: one number each, `from * slots + to`, which sorts as the pair does. */
class LinkKeys {
  readonly #slots: number;
  #keys: Float64Array = new Float64Array(256);
  #length = 0;

  constructor(slots: number) {
    this.#slots = slots;
  }

  add(from: number, to: number): void {
    if (from === NONE || to === NONE || from === to) return;
    if (this.#length === this.#keys.length) {
      const wider = new Float64Array(2 * this.#length);
      wider.set(this.#keys);
      this.#keys = wider;
    }
    this.#keys[this.#length++] = from * this.#slots + to;
  }

  /** Each pair once: a launch and its kernel are tied twice, by a flow and by correlation. */
  finish(): Omit<FlowLinks, "unbound"> {
    const keys = this.#keys.slice(0, this.#length).sort();
    const unique = keys.filter((key, index) => index === 0 || key !== keys[index - 1]);
    const from = Uint32Array.from(unique, (key) => Math.floor(key / this.#slots));
    const to = Uint32Array.from(unique, (key) => key % this.#slots);
    const { length } = unique;
    const ends = Float64Array.from(to, (slot, link) => slot * length + link).sort();
    return { from, to, byTo: Uint32Array.from(ends, (key) => key % length) };
  }
}

/** Finds all arrows. O(n log n) in their number. */
export function findLinks(table: EventTable, rows: SliceRows): FlowLinks {
  const keys = new LinkKeys(rows.event.length);
  const unbound = linkFlows(table, rows, keys);
  linkLaunches(table, rows, keys);
  return { ...keys.finish(), unbound };
}

function isFlow(phase: number): boolean {
  return phase === PHASE_START || phase === PHASE_STEP || phase === PHASE_END;
}

function linkFlows(table: EventTable, rows: SliceRows, keys: LinkKeys): number {
  const { phase, flowId, category, strings } = table;
  /** The flow event before in the same group, as a chain from the last one. */
  const before = new Uint32Array(table.length).fill(NONE);
  const last = new Map<number, number>();
  for (let i = 0; i < table.length; i++) {
    if (!isFlow(phase[i] as number) || flowId[i] === NONE) continue;
    const group = (flowId[i] as number) * strings.length + (category[i] as number);
    const previous = last.get(group);
    if (previous !== undefined) before[i] = previous;
    last.set(group, i);
  }
  let unbound = 0;
  for (const end of last.values()) {
    const events: number[] = [];
    for (let i = end; i !== NONE; i = before[i] as number) events.push(i);
    events.sort((a, b) => compareFlow(table, a, b));
    const slots = events.map((event) => slotOfFlow(table, rows, event));
    unbound += events.length === 1 ? 1 : slots.filter((slot) => slot === NONE).length;
    linkGroup(events, slots, { phase, keys });
  }
  return unbound;
}

/** A start comes before its end even where two clocks say otherwise. */
function compareFlow({ phase, startUs }: EventTable, a: number, b: number): number {
  const rank = (i: number): number => {
    if (phase[i] === PHASE_START) return 0;
    return phase[i] === PHASE_STEP ? 1 : 2;
  };
  return rank(a) - rank(b) || (startUs[a] as number) - (startUs[b] as number) || a - b;
}

/** One start may have several ends: each end hangs on the step before it, or on the start. */
function linkGroup(
  events: readonly number[],
  slots: readonly number[],
  { phase, keys }: { readonly phase: Uint8Array; readonly keys: LinkKeys },
): void {
  const starts = events.filter((event) => phase[event] === PHASE_START).length;
  if (starts > 1) {
    // An id used again and again: the k-th start belongs to the k-th end.
    const ends = slots.slice(starts);
    for (const [k, to] of ends.entries()) keys.add(slots[Math.min(k, starts - 1)] as number, to);
    return;
  }
  let from = slots[0] as number;
  for (let k = 1; k < slots.length; k++) {
    const to = slots[k] as number;
    keys.add(from, to);
    if (phase[events[k] as number] === PHASE_STEP) from = to;
  }
}

function slotOfFlow(table: EventTable, rows: SliceRows, event: number): number {
  return enclosingSlot(rows, table.lane[event] as number, table.startUs[event] as number);
}

/** Ties launches on the host to what ran on a device: same correlation, no stream against one. */
function linkLaunches(table: EventTable, rows: SliceRows, keys: LinkKeys): void {
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
    if (from !== undefined) keys.add(rows.slotOf[from] as number, rows.slotOf[i] as number);
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
