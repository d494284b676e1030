// What lies in a range of time: work by class and by name, and how busy each stream was. An event
// is counted if it overlaps the range, and its time is the part inside, as the analyser's
// selections have it; so the whole trace as a range gives the analyser's breakdown.

import { coveredIn, type Density } from "./intervals.ts";
import { type OverlapFigures, type OverlapSets, overlapIn } from "./overlap.ts";
import type { TimeRange } from "./viewport.ts";

/** Work of one class or one name inside a range. */
export interface WorkSum {
  /** Index into classes or strings. */
  readonly id: number;
  /** Class of a name: that of its first event. */
  readonly classId: number;
  readonly count: number;
  readonly totalUs: number;
  readonly meanUs: number;
}

/** A stream of a device, or a lane where no device was traced. */
export interface StreamBusy {
  readonly title: string;
  readonly busy: Density;
}

export interface RangeInput {
  readonly startUs: Float64Array;
  readonly durationUs: Float64Array;
  /** Index into `strings`, an event each. */
  readonly name: Uint32Array;
  /** Events that did work, in any order. */
  readonly workEvents: Uint32Array;
  /** Class of each of them. */
  readonly workClass: Uint16Array;
  readonly classCount: number;
  readonly stringCount: number;
  readonly overlap: OverlapSets;
  readonly streams: readonly StreamBusy[];
}

export interface RangeStats {
  readonly range: TimeRange;
  readonly count: number;
  /** Sum of the work's durations; above the busy time where streams overlap. */
  readonly totalUs: number;
  /** Largest first. */
  readonly classes: readonly WorkSum[];
  readonly names: readonly WorkSum[];
  readonly overlap: OverlapFigures;
  readonly streams: readonly { readonly title: string; readonly busyUs: number }[];
}

/** Sums up a range in one pass over the work. */
export function rangeStats(input: RangeInput, range: TimeRange): RangeStats {
  const { startUs, durationUs, name, workEvents, workClass } = input;
  const byClass = new Sums(input.classCount);
  const byName = new Sums(input.stringCount);
  const low = range.startUs;
  const high = range.endUs;
  for (let k = 0; k < workEvents.length; k++) {
    const event = workEvents[k] as number;
    const start = startUs[event] as number;
    const end = start + (durationUs[event] as number);
    if (start >= high || end < low || (end === low && start < end)) continue;
    const us = Math.min(end, high) - Math.max(start, low);
    const classId = workClass[k] as number;
    byClass.add(classId, us, classId);
    byName.add(name[event] as number, us, classId);
  }
  const classes = byClass.list();
  return {
    range,
    count: classes.reduce((sum, { count }) => sum + count, 0),
    totalUs: classes.reduce((sum, { totalUs }) => sum + totalUs, 0),
    classes,
    names: byName.list(),
    overlap: overlapIn(input.overlap, low, high),
    streams: input.streams.map(({ title, busy }) => ({
      title,
      busyUs: coveredIn(busy, low, high),
    })),
  };
}

class Sums {
  readonly #count: Uint32Array;
  readonly #totalUs: Float64Array;
  readonly #classId: Uint16Array;

  constructor(size: number) {
    this.#count = new Uint32Array(size);
    this.#totalUs = new Float64Array(size);
    this.#classId = new Uint16Array(size);
  }

  add(id: number, us: number, classId: number): void {
    if (this.#count[id] === 0) this.#classId[id] = classId;
    this.#count[id]!++;
    this.#totalUs[id]! += us;
  }

  list(): WorkSum[] {
    const sums: WorkSum[] = [];
    for (let id = 0; id < this.#count.length; id++) {
      const count = this.#count[id] as number;
      if (count === 0) continue;
      const totalUs = this.#totalUs[id] as number;
      const classId = this.#classId[id] as number;
      sums.push({ id, classId, count, totalUs, meanUs: totalUs / count });
    }
    return sums.sort((a, b) => b.totalUs - a.totalUs || a.id - b.id);
  }
}
