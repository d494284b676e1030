// A second door, for who only looks: the view of a job's log, without DuckDB or a file system. The
// console bundles it.

export {
  type AttemptView,
  type ExecutorView,
  type FailureView,
  type JobEntry,
  JobView,
  type StepView,
} from "./job-view.ts";
export { LogFeed } from "./log-feed.ts";
export type { LogLine, StepLine } from "./log-lines.ts";
export {
  boxHeight,
  boxWidth,
  layoutPlan,
  type PlacedStep,
  type PlanLayout,
  planCurve,
} from "./plan-layout.ts";
export { type Quantiles, quantile, Sample } from "./sample.ts";
