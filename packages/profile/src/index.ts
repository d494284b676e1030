// The public face of the package: the recorder and the shape of what it writes.

export {
  nullRecorder,
  type Recorder,
  type TraceArgs,
  type TraceEvent,
  TraceRecorder,
  type TraceRecorderOptions,
} from "./recorder.ts";
