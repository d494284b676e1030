// The public face of the analyser. It runs anywhere, the browser included.

export * from "./analysis.ts";
export {
  EventTableBuilder,
  type EventTableBuilderOptions,
  NO_STRING,
  type TraceRow,
} from "./builder.ts";
export type { EventTable, TraceLane, TraceNotes } from "./event-table.ts";
export type { LaneKey } from "./lane-table.ts";
export type { TraceLimits } from "./limits.ts";
export { type MergeTracesOptions, mergeTraces } from "./merge-traces.ts";
export { type ReadTraceOptions, readTrace, type TraceSource } from "./read-trace.ts";
export { TraceError, type TracePosition, type TraceProblem } from "./trace-error.ts";
export { TraceReader, type TraceReaderOptions } from "./trace-reader.ts";
export { type WriteTraceOptions, writeTrace } from "./write-trace.ts";
