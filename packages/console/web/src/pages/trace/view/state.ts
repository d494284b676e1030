// What a person has done to a timeline: selected, searched, marked, folded. Signals, so that panels
// follow by themselves; where the view stands is the controller's, because it changes every frame.

import { computed, type ReadonlySignal, type Signal, signal } from "@preact/signals";
import type { LaneLayout } from "../timeline/lanes.ts";
import { layLanes } from "../timeline/lanes.ts";
import { NONE } from "../timeline/rows.ts";
import { findSlices, parseQuery, type Query, type SearchHits } from "../timeline/search.ts";
import type { TraceData } from "../timeline/trace-data.ts";
import type { TimeRange } from "../timeline/viewport.ts";

/** What the pointer is over. */
export interface Hover {
  readonly slot: number;
  /** CSS pixels within the timeline. */
  readonly x: number;
  readonly y: number;
}

/** Arrows in the view when all are asked for. */
export interface ArrowCount {
  readonly inView: number;
  readonly drawn: number;
}

/** The state of one open trace. */
export class TimelineState {
  readonly data: TraceData;
  /** Slot of the selected slice, or `NONE`. */
  readonly selected: Signal<number> = signal(NONE);
  /** The selected time, or null. */
  readonly range: Signal<TimeRange | null> = signal(null);
  readonly marks: Signal<readonly TimeRange[]> = signal([]);
  /** Keys of folded bands. */
  readonly folded: Signal<ReadonlySet<string>> = signal(new Set());
  /** The kind of work that the legend brings forward, or null. */
  readonly emphasis: Signal<number | null> = signal(null);
  readonly allArrows: Signal<boolean> = signal(false);
  readonly arrows: Signal<ArrowCount> = signal({ inView: 0, drawn: 0 });
  readonly hover: Signal<Hover | null> = signal(null);
  readonly searchText: Signal<string> = signal("");
  /** Place among the hits by time; −1 before the first step. */
  readonly hitIndex: Signal<number> = signal(-1);
  readonly query: ReadonlySignal<Query> = computed(() => parseQuery(this.searchText.value));
  readonly hits: ReadonlySignal<SearchHits> = computed(() =>
    findSlices(this.data, this.query.value),
  );
  readonly layout: ReadonlySignal<LaneLayout> = computed(() =>
    layLanes({ ...this.data, folded: this.folded.value }),
  );

  constructor(data: TraceData) {
    this.data = data;
  }

  /** Whether anything is searched for that can be. */
  get searching(): boolean {
    const query = this.query.value;
    return query !== null && !("problem" in query);
  }

  search(text: string): void {
    this.searchText.value = text;
    this.hitIndex.value = -1;
  }

  /** Takes back one thing a time: the range, then the selection, then the search. */
  clear(): void {
    if (this.range.peek() !== null) this.range.value = null;
    else if (this.selected.peek() !== NONE) this.selected.value = NONE;
    else this.search("");
  }

  toggleFold(key: string): void {
    const next = new Set(this.folded.peek());
    if (!next.delete(key)) next.add(key);
    this.folded.value = next;
  }

  /** Start and end of the selected slice; the selected time; or null. */
  get focus(): TimeRange | null {
    const range = this.range.peek();
    if (range !== null) return range;
    const slot = this.selected.peek();
    if (slot === NONE) return null;
    const { start, end } = this.data.rows;
    return { startUs: start[slot] as number, endUs: end[slot] as number };
  }
}
