// The public face of the executor: ranks that run a schedule's operations over a user's stages.

export {
  DualPipe,
  type DualPipeOptions,
  type DualPipeResult,
  type DualPipeStepOptions,
  DualPipeV,
} from "./dual-pipe.ts";
export {
  type OpPlace,
  PipelineAbortedError,
  PipelineClosedError,
  RankLostError,
  ScheduleExecutionError,
  StageError,
  WaitTimeoutError,
} from "./errors.ts";
export { InProcessNetwork, type InProcessOptions } from "./in-process.ts";
export {
  launchPipeline,
  Pipeline,
  type PipelineResult,
  type PipelineStepOptions,
  type RankStats,
  type StageFilter,
  type StageValue,
} from "./launch.ts";
export type { LaunchOptions, ScheduleBuilder } from "./launch-options.ts";
export type { Batch, MicroBatch, MicroBatchList } from "./micro-batches.ts";
export type { StepOutcome, StepStats, StepWork } from "./parts.ts";
export type { RankProgram } from "./program.ts";
export { rankPrograms } from "./rank-programs.ts";
export { RanksTransport } from "./ranks-transport.ts";
export { createMlpStage, type MlpOptions, MlpStage, mseLoss } from "./reference/mlp-stage.ts";
export { PipelineRunner, type PlacedStage, type RunnerOptions } from "./runner.ts";
export type {
  Criterion,
  CriterionResult,
  MaybePromise,
  OverlappedBackward,
  OverlappedForward,
  Stage,
  StageContext,
  StageForward,
} from "./stage.ts";
export { syncGradients } from "./sync-gradients.ts";
export type { ChromeTrace } from "./traces.ts";
export {
  describeKey,
  type Message,
  MessageKind,
  type MessageParts,
  messageKey,
  parseMessageKey,
  type Receive,
  type Transport,
} from "./transport.ts";
export { WeightGradStore, type WeightGradTask } from "./weight-grad-store.ts";
export {
  portsOf,
  type WorkerSeat,
  type WorkerSeats,
  WorkerTransport,
  workerSeats,
} from "./worker-transport.ts";
