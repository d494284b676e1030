// The public face: `init()` gives a session, a session gives DataFrames.

export {
  type BenchmarkOptions,
  type CopyReport,
  type FileIoOptions,
  type FileIoReport,
  type FilePassReport,
  type FstestOptions,
  type FstestReport,
  fileIo,
  fstest,
  type HashPartitionOptions,
  type HashPartitionReport,
  hashPartition,
  type PartitionCount,
  type RowSum,
  type Timing,
  type UrlOrderReport,
  type UrlsSortOptions,
  type UrlsSortReport,
  urlsSort,
  type WrongPlace,
} from "./benchmarks/index.ts";
export { type ChannelChoice, files, nats } from "./channel/job-card.ts";
export type { NatsOptions } from "./channel/nats-connect.ts";
export {
  type DataSet,
  type FilePart,
  type GeneratedColumn,
  type Schema,
  withParts,
} from "./dataset/dataset.ts";
export { splitEvenly, splitRows } from "./dataset/split.ts";
export { fromClause } from "./dataset/sql-text.ts";
export {
  ChannelError,
  DiskError,
  InfeasibleTaskError,
  JobLockedError,
  LaunchError,
  NoExecutorError,
  PlanError,
  SessionClosedError,
  TaskError,
} from "./errors.ts";
export { type ExecutorEnd, type ExecutorOptions, runExecutor } from "./executor/run-executor.ts";
export { fromModule, ModuleFunction } from "./functions/function-ref.ts";
export type { Udf, UdfOptions } from "./functions/udf.ts";
export type { SortComparison } from "./graysort/gnu-sort.ts";
export { type GraysortOptions, type GraysortReport, graysort } from "./graysort/graysort.ts";
export type { SortSummary } from "./graysort/validate.ts";
export {
  type CommandOptions,
  command,
  type MpirunOptions,
  mpirun,
  type SshOptions,
  ssh,
} from "./launch/command.ts";
export { type KubernetesOptions, kubernetes } from "./launch/kubernetes.ts";
export type { Launched, Launcher, LaunchRequest } from "./launch/launcher.ts";
export { type SlurmOptions, slurm } from "./launch/slurm.ts";
export { JobFollower } from "./live/follow.ts";
export {
  type AttemptView,
  type ExecutorView,
  type FailureView,
  type JobEntry,
  JobView,
  type StepView,
} from "./live/job-view.ts";
export { findJob, JobLister, jobState, listJobs } from "./live/jobs.ts";
export type { LogLine, StepLine } from "./live/log-lines.ts";
export { type Quantiles, quantile } from "./live/sample.ts";
export type {
  BatchOptions,
  ComputeFunction,
  ComputeOptions,
  CutOptions,
  DataSetPartitionOptions,
  EvenOptions,
  HashOptions,
  LoadOptions,
  ProjectionOptions,
  RangeOptions,
  RangePoint,
  ScriptFunction,
  ShuffleOptions,
  SinkOptions,
  StreamNodeFunction,
} from "./nodes/options.ts";
export type { PartitionOutput } from "./nodes/outputs.ts";
export { type NodeInput, PlanNodes } from "./nodes/plan-nodes.ts";
export type { PlanGraph } from "./plan/graph.ts";
export type { NodeOptions, PlanNode } from "./plan/node.ts";
export type { TaskEvent } from "./scheduler/scheduler.ts";
export { DataFrame, type SourceFrame } from "./session/dataframe.ts";
export type {
  CsvWriteOptions,
  FunctionOptions,
  JoinOptions,
  JsonWriteOptions,
  LooseRow,
  ParquetWriteOptions,
  RepartitionOptions,
  Row,
  WriteMode,
} from "./session/frame-options.ts";
export { GroupedFrame } from "./session/grouped.ts";
export type { NodeFigures } from "./session/node-metrics.ts";
export type { SessionOptions } from "./session/options.ts";
export type { CsvReadOptions, JsonReadOptions, ParquetReadOptions } from "./session/readers.ts";
export { type RerunOptions, type RerunReport, readTasks, rerunTask } from "./session/rerun.ts";
export { init, Session } from "./session/session.ts";
export type { ComputeContext } from "./task/ops/compute.ts";
export type { Script, ScriptContext } from "./task/ops/script.ts";
