// A trace as the page holds it: columns that came from the worker without a copy, and what was
// computed from them there once. Nothing in it changes after loading.

import type { KernelClass, TraceLane, TraceNotes } from "@open-infra/profile/analyze";
import type { CounterTrack } from "./counters.ts";
import type { FlowLinks } from "./flows.ts";
import type { OverlapSets } from "./overlap.ts";
import type { RangeInput, StreamBusy } from "./range-stats.ts";
import type { SliceRows } from "./rows.ts";

/** Everything the timeline draws and sums. All times are µs since `originUs`. */
export interface TraceData {
  readonly title: string;
  readonly originUs: number;
  /** From the origin to the end of the last event. */
  readonly spanUs: number;
  /** Events of the file that have a row, metadata apart. */
  readonly events: number;
  readonly lanes: readonly TraceLane[];
  readonly strings: readonly string[];
  /** Columns, an event each. */
  readonly name: Uint32Array;
  readonly category: Uint32Array;
  readonly lane: Uint32Array;
  readonly phase: Uint8Array;
  readonly startUs: Float64Array;
  readonly durationUs: Float64Array;
  readonly rows: SliceRows;
  /** Index into `workKinds`, a slot each. */
  readonly kindOfSlot: Uint8Array;
  /** Kinds that occur, by the time they take. */
  readonly kinds: readonly number[];
  /** `device`, or `lanes` where nothing ran on one and the innermost spans are the work. */
  readonly workSource: "device" | "lanes";
  readonly workEvents: Uint32Array;
  readonly workClass: Uint16Array;
  readonly classes: readonly KernelClass[];
  /** From the first to the last work: the span of the analyser's figures. */
  readonly work: {
    readonly startUs: number;
    readonly endUs: number;
    /** Sum of the devices' own spans, which begin and end apart. */
    readonly deviceSpansUs: number;
  };
  readonly overlap: OverlapSets;
  readonly streams: readonly StreamBusy[];
  readonly links: FlowLinks;
  readonly counters: readonly CounterTrack[];
  readonly notes: TraceNotes;
}

/** What `rangeStats` reads of a trace. */
export function rangeInput(data: TraceData): RangeInput {
  return { ...data, classCount: data.classes.length, stringCount: data.strings.length };
}

/** Name of the slice in a slot. */
export function slotName({ rows, name, strings }: TraceData, slot: number): string {
  return strings[name[rows.event[slot] as number] as number] ?? "";
}
