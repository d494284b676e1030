// A trace in memory: columns of numbers, one row an event, so that a million events cost tens of
// megabytes and are walked fast. The reader fills it, everything else reads it. It knows the Chrome
// trace event format, not what the events mean.

/** A row of the viewer: a thread of a process, or a stream of a device. */
export interface TraceLane {
  /** As written in the file, but that words which spell an integer are numbers. */
  readonly pid: string | number;
  readonly tid: string | number;
  /** From the metadata; "" where it says nothing. */
  readonly processName: string;
  readonly threadName: string;
  /** `process_labels` of the metadata: "CPU", "GPU 0", … */
  readonly processLabels: string;
  readonly processSortIndex: number;
  readonly threadSortIndex: number;
}

/** What the reader left out or mended, so that nothing is lost unsaid. All zero in a clean file. */
export interface TraceNotes {
  /** Events that have no row, by `ph`: counts of memory dumps, object snapshots, `n`, … */
  readonly skippedPhases: Readonly<Record<string, number>>;
  /** `E` and `e` that end nothing: left out. */
  readonly unmatchedEnds: number;
  /** `B` and `b` that never end: rows of phase 66 or 98 and duration 0. */
  readonly unclosedBegins: number;
  /** Durations below 0, which clocks of two devices can give: set to 0. */
  readonly negativeDurations: number;
  /** `X` events without `dur`: their duration is 0. */
  readonly missingDurations: number;
  /** Events left out because a field cannot be used; only a tolerant reader goes on after one. */
  readonly malformedEvents: number;
  /** A bare array of events lacked its `]`, as the format allows. */
  readonly unterminatedArray: boolean;
  /** Why reading stopped before the end of the file; only a tolerant reader keeps what it has. */
  readonly stopped?: Error;
}

/** Rows in the order of the file; metadata events became lanes. */
export interface EventTable {
  readonly length: number;
  /**
   * Absolute time, µs, that `startUs` counts from: the earliest event's, rounded down to a whole
   * microsecond, so that it is exact in a float64.
   */
  readonly originUs: number;
  /**
   * Character code of `ph`: 88 X, 67 C, 115 s, 116 t, 102 f, 105 i. `B` with its `E` and `b` with
   * its `e` are one row of X; 66 B and 98 b remain only where the end is missing.
   */
  readonly phase: Uint8Array;
  /** Index into `lanes`. */
  readonly lane: Uint32Array;
  /** Index into `strings`. */
  readonly name: Uint32Array;
  /** Index into `strings`; "" where there is none. */
  readonly category: Uint32Array;
  /** µs since `originUs`, with the file's fractions; never below 0. */
  readonly startUs: Float64Array;
  /** µs, never below 0; 0 for what has none. */
  readonly durationUs: Float64Array;
  /** Id of a flow (`s`, `t`, `f`): index into `strings`; 0xffffffff where there is none. */
  readonly flowId: Uint32Array;
  /** `args.correlation`, which ties a kernel to its launch; −1 where there is none. */
  readonly correlation: Float64Array;
  /** `args.stream` of what ran on a device; −1 where there is none. */
  readonly stream: Int32Array;
  /** Product of `args.grid`: thread blocks of a kernel, at most 2³² − 1; 0 where there is none. */
  readonly gridBlocks: Uint32Array;
  /** Other numbers of `args` the reader was asked for, by name; NaN where an event has none. */
  readonly argColumns: Readonly<Record<string, Float64Array>>;
  /** Names, categories and flow ids, each once. */
  readonly strings: readonly string[];
  /**
   * Those with events, in the order a viewer shows: by process sort index, pid, thread sort index,
   * tid; numbers before words.
   */
  readonly lanes: readonly TraceLane[];
  /** The rest of the file's top level, parsed: `distributedInfo`, `deviceProperties`, … */
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly notes: TraceNotes;
  /** The JSON text of event `i`'s `args`, or undefined; only if the reader was asked to keep it. */
  argsText(i: number): string | undefined;
}
