// The public face of the package: the recorder and the shape of what it writes.

export {
  nullRecorder,
  type RecordedSpan,
  type Recorder,
  type SpanCategory,
  TraceRecorder,
  type TraceRecorderOptions,
} from "./recorder.ts";
export type { ChromeTrace, TraceArgs, TraceEvent } from "./trace-event.ts";
