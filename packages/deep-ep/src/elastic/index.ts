// What the package shows of ElasticBuffer.

export { ElasticBuffer, type ElasticBufferOptions } from "./buffer.ts";
export type {
  CombineOptions as ElasticCombineOptions,
  CombineResult as ElasticCombineResult,
} from "./combine.ts";
export type {
  DispatchOptions as ElasticDispatchOptions,
  DispatchResult as ElasticDispatchResult,
  PreviousEvent,
  StreamOptions,
  TokenInput,
} from "./dispatch-options.ts";
export type { Fetched, FetchHook } from "./engram.ts";
export { type Selection, type SelectionShape, unbalancedSelection } from "./gate.ts";
export { type Gathered, maxGathersPerSession } from "./gather.ts";
export { EPHandle, type Routes } from "./handle.ts";
export type { PipelineOptions } from "./pipeline.ts";
export {
  type BufferShape,
  expectedGroups,
  type Topology,
  theoreticalNumQps,
  theoreticalNumSms,
  type WorkerModel,
} from "./sizes.ts";
