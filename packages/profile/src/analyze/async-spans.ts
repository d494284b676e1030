// Nestable async events (`b` … `e` of one category and id) as spans. They belong to a process, not
// to a thread, come in any order, and overlap; so they are paired once all are known, and laid on
// lanes of their own, as few as do not overlap.

import type { LaneKey } from "./lane-table.ts";
import { SlotPool } from "./slot-pool.ts";

/** One `b` or `e` as it was read. */
export interface AsyncEnd {
  /** Its row if it is a `b`, −1 if it is an `e`. */
  readonly row: number;
  readonly pid: LaneKey;
  readonly category: string;
  /** `id`, `id2` and `scope`, as text that equals only for the same thing. */
  readonly id: string;
  readonly atUs: number;
}

/** A paired one: the row of its `b`, its length, and the lane among those of (pid, category). */
export interface AsyncSpan {
  readonly row: number;
  readonly pid: LaneKey;
  readonly category: string;
  readonly durationUs: number;
  /** 0, 1, … : spans of one slot nest or follow each other. */
  readonly slot: number;
}

/** What an id has open: its rows, innermost last, and the slot it holds meanwhile. */
interface Track {
  readonly open: AsyncEnd[];
  readonly spans: { begin: AsyncEnd; endUs: number }[];
}

/** Trees of spans, each under one root, in order of time. */
interface Tree {
  readonly spans: readonly { begin: AsyncEnd; endUs: number }[];
  readonly fromUs: number;
  readonly untilUs: number;
}

function pair(ends: readonly AsyncEnd[]): { trees: Tree[]; open: number[]; unmatched: number } {
  const tracks = new Map<string, Track>();
  const trees: Tree[] = [];
  let unmatched = 0;
  for (const end of ends) {
    const key = JSON.stringify([end.pid, end.category, end.id]);
    let track = tracks.get(key);
    if (track === undefined) {
      track = { open: [], spans: [] };
      tracks.set(key, track);
    }
    if (end.row >= 0) {
      track.open.push(end);
      continue;
    }
    const begin = track.open.pop();
    if (begin === undefined) {
      unmatched++;
      continue;
    }
    track.spans.push({ begin, endUs: end.atUs });
    if (track.open.length > 0) continue;
    trees.push({ spans: track.spans.splice(0), fromUs: begin.atUs, untilUs: end.atUs });
  }
  const open: number[] = [];
  for (const { open: left, spans } of tracks.values()) {
    open.push(...left.map(({ row }) => row));
    for (const span of spans) {
      trees.push({ spans: [span], fromUs: span.begin.atUs, untilUs: span.endUs });
    }
  }
  return { trees, open, unmatched };
}

/** Pairs `events`, in any order; rows of begins without an end are `open`. */
export function pairAsync(events: readonly AsyncEnd[]): {
  readonly spans: readonly AsyncSpan[];
  readonly open: readonly number[];
  readonly unmatchedEnds: number;
} {
  // Stable: at one time the order of the file decides which is inner.
  const { trees, open, unmatched } = pair(events.toSorted((a, b) => a.atUs - b.atUs));
  const slotsOf = new Map<string, SlotPool>();
  const spans: AsyncSpan[] = [];
  for (const tree of trees.toSorted((a, b) => a.fromUs - b.fromUs)) {
    const { pid, category } = (tree.spans[0] as { begin: AsyncEnd }).begin;
    const group = JSON.stringify([pid, category]);
    let slots = slotsOf.get(group);
    if (slots === undefined) {
      slots = new SlotPool();
      slotsOf.set(group, slots);
    }
    const slot = slots.take(tree.fromUs, tree.untilUs);
    for (const { begin, endUs } of tree.spans) {
      spans.push({ row: begin.row, pid, category, durationUs: endUs - begin.atUs, slot });
    }
  }
  return { spans, open, unmatchedEnds: unmatched };
}
