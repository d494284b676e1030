// A trace in memory: columns of numbers, one row an event, so that a million events cost tens of
// megabytes and are walked fast. The reader fills it, everything else reads it. It knows the Chrome
// trace event format, not what the events mean.

/** A row of the viewer: a thread of a process, or a stream of a device. */
export interface TraceLane {
  /** As written in the file; most are numbers, some profilers write words. */
  readonly pid: string | number;
  readonly tid: string | number;
  readonly processName: string;
  readonly threadName: string;
  /** From the metadata; lanes sort by process, then by this, then by tid. */
  readonly processSortIndex: number;
  readonly threadSortIndex: number;
}

/** Events in the order of the file, but for metadata, which became lanes and strings. */
export interface EventTable {
  readonly length: number;
  /** Absolute time of the earliest event, µs; `startUs` counts from here. */
  readonly originUs: number;
  /** Character code of `ph`: 88 X, 67 C, 115 s, 116 t, 102 f, 105 i, … B and E are paired into X. */
  readonly phase: Uint8Array;
  /** Index into `lanes`. */
  readonly lane: Uint32Array;
  /** Index into `strings`. */
  readonly name: Uint32Array;
  /** Index into `strings`; "" where there is none. */
  readonly category: Uint32Array;
  /** µs since `originUs`, with the file's fractions. */
  readonly startUs: Float64Array;
  /** µs; 0 for what has none. */
  readonly durationUs: Float64Array;
  /** Id of a flow (`s`, `t`, `f`): index into `strings`; 0xffffffff where there is none. */
  readonly flowId: Uint32Array;
  /** `args.correlation`, which ties a kernel to its launch; −1 where there is none. */
  readonly correlation: Int32Array;
  /** `args.stream` of what ran on a device; −1 where there is none. */
  readonly stream: Int32Array;
  /** Product of `args.grid`: thread blocks of a kernel; 0 where there is none. */
  readonly gridBlocks: Uint32Array;
  /** Names, categories and flow ids, each once. */
  readonly strings: readonly string[];
  readonly lanes: readonly TraceLane[];
  /** The rest of the file's top level, parsed: `distributedInfo`, `deviceProperties`, … */
  readonly metadata: Readonly<Record<string, unknown>>;
  /** The JSON text of event `i`'s `args`, or undefined; only if the reader was asked to keep it. */
  argsText(i: number): string | undefined;
}
