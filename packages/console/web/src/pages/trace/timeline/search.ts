// Finding slices by name: a word in any case, or a regular expression between slashes. A name is
// tested once, however many events carry it; the hits are slots in order of time.

import type { SliceRows } from "./rows.ts";

/** What was asked for, or why it cannot be. */
export type Query =
  | { readonly test: (name: string) => boolean }
  | { readonly problem: string }
  | null;

/** Reads a search: `gemm` is a substring, `/^F\d/` an expression. Null for nothing. */
export function parseQuery(text: string): Query {
  const trimmed = text.trim();
  if (trimmed === "") return null;
  const expression = /^\/(.+)\/([a-z]*)$/s.exec(trimmed);
  if (expression !== null) {
    try {
      // Stateless flags only: `g` and `y` would make every other test fail.
      const flags = (expression[2] ?? "").replace(/[gy]/g, "");
      const pattern = new RegExp(expression[1] as string, flags);
      return { test: (name) => pattern.test(name) };
    } catch (error) {
      return { problem: error instanceof Error ? error.message : String(error) };
    }
  }
  const wanted = trimmed.toLowerCase();
  return { test: (name) => name.toLowerCase().includes(wanted) };
}

/** Hits of a search. */
export interface SearchHits {
  /** Slots, ascending: row by row, for drawing. */
  readonly slots: Uint32Array;
  /** The same by time, for going from one to the next. */
  readonly byTime: Uint32Array;
}

export interface Searchable {
  readonly rows: SliceRows;
  /** Index into `strings`, an event each. */
  readonly name: Uint32Array;
  readonly strings: readonly string[];
}

/** Finds all slices whose name passes. */
export function findSlices({ rows, name, strings }: Searchable, query: Query): SearchHits {
  const none = { slots: new Uint32Array(0), byTime: new Uint32Array(0) };
  if (query === null || "problem" in query) return none;
  const passes = Uint8Array.from(strings, (text) => (query.test(text) ? 1 : 0));
  const { event, start } = rows;
  let count = 0;
  for (let slot = 0; slot < event.length; slot++) {
    count += passes[name[event[slot] as number] as number] as number;
  }
  const slots = new Uint32Array(count);
  let at = 0;
  for (let slot = 0; slot < event.length; slot++) {
    if (passes[name[event[slot] as number] as number] === 1) slots[at++] = slot;
  }
  return { slots, byTime: orderByTime(slots, start) };
}

function orderByTime(slots: Uint32Array, start: Float64Array): Uint32Array {
  const times = Float64Array.from(slots, (slot) => start[slot] as number);
  const order = Uint32Array.from(slots.keys());
  order.sort((a, b) => (times[a] as number) - (times[b] as number) || a - b);
  return order.map((index) => slots[index] as number);
}

/**
 * The hit after or before a place in time: of those at one time the next in the list, so that
 * pressing on reaches every hit; around the end it starts over. Returns an index into `byTime`.
 */
export function nextHit({ byTime }: SearchHits, current: number, step: 1 | -1): number {
  const count = byTime.length;
  if (count === 0) return -1;
  if (current < 0) return step === 1 ? 0 : count - 1;
  return (current + step + count) % count;
}

/** Index into `byTime` of the first hit that starts at `timeUs` or later; 0 if none does. */
export function firstHitFrom({ byTime }: SearchHits, rows: SliceRows, timeUs: number): number {
  let low = 0;
  let high = byTime.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((rows.start[byTime[middle] as number] as number) >= timeUs) high = middle;
    else low = middle + 1;
  }
  return low === byTime.length ? 0 : low;
}
