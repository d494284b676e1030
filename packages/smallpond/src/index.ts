// The public face: `init()` gives a session, a session gives DataFrames.

export type { DataSet, FilePart, Schema } from "./dataset/dataset.ts";
export {
  DiskError,
  InfeasibleTaskError,
  JobLockedError,
  NoExecutorError,
  PlanError,
  SessionClosedError,
  TaskError,
} from "./errors.ts";
export { fromModule, ModuleFunction } from "./functions/function-ref.ts";
export type { SortComparison } from "./graysort/gnu-sort.ts";
export { type GraysortOptions, type GraysortReport, graysort } from "./graysort/graysort.ts";
export type { SortSummary } from "./graysort/validate.ts";
export type { TaskEvent } from "./scheduler/scheduler.ts";
export {
  DataFrame,
  GroupedFrame,
  type LooseRow,
  type RepartitionOptions,
  type Row,
} from "./session/dataframe.ts";
export type { NodeFigures, Quantiles } from "./session/report.ts";
export { init, Session, type SessionOptions } from "./session/session.ts";
