export {
  nullRecorder,
  type Recorder,
  type TraceArgs,
  type TraceEvent,
  TraceRecorder,
  type TraceRecorderOptions,
} from "./recorder.ts";
