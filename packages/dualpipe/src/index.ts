// The public face of the pure part: schedules and everything computed from them. It runs anywhere,
// the browser included; ranks that really run stages are in `@open-infra/dualpipe/runtime`.

export {
  type ChromeTraceOptions,
  type PipelineTrace,
  type PipelineTraceEvent,
  toChromeTrace,
} from "./export/chrome-trace.ts";
export {
  type Comparison,
  compareWithTrace,
  type MeasuredRun,
  type MeasuredStep,
  measuredRun,
  type TraceInput,
  TraceMismatchError,
  timesFromTrace,
} from "./export/measured.ts";
export { type SvgOptions, toSvg } from "./export/svg.ts";
export { toTextTimeline } from "./export/text-timeline.ts";
export type { LayerCost } from "./plan/costs.ts";
export {
  type InfeasiblePlan,
  type Plan,
  type PlanChoice,
  type PlanOptions,
  type PlanResult,
  planPipeline,
} from "./plan/plan.ts";
export {
  activationCurve,
  type HeldUntil,
  type PeakActivations,
  peakActivations,
} from "./schedule/activations.ts";
export {
  type BuildOptions,
  type BuiltInName,
  buildSchedule,
  builtInNames,
  isBuiltInName,
} from "./schedule/build.ts";
export { CellIndex } from "./schedule/cell-index.ts";
export { type CommunicationOptions, withCommunication } from "./schedule/communication.ts";
export {
  dualPipe,
  dualPipeV,
  type StepCounts,
  stepCounts,
  stepUnits,
} from "./schedule/dualpipe.ts";
export {
  type BubbleFormula,
  bubbleFormula,
  type CellTimes,
  type FormulaOptions,
  type ZeroBubbleRate,
  zeroBubbleRates,
} from "./schedule/formulas.ts";
export { forwardOnly } from "./schedule/forward-only.ts";
export {
  type OpJson,
  rankToJson,
  type ScheduleJson,
  scheduleFromJson,
  scheduleJsonText,
  scheduleToJson,
} from "./schedule/json.ts";
export {
  type InterleavedOptions,
  interleaved1F1B,
  oneFOneB,
} from "./schedule/one-f-one-b.ts";
export type { ScheduleOptions } from "./schedule/options.ts";
export {
  type Op,
  type OpInput,
  OpKind,
  type OpKindName,
  opAt,
  opKindNames,
  type RankOps,
  RankOpsBuilder,
  type Schedule,
  type ScheduleName,
} from "./schedule/schedule.ts";
export { ScheduleError } from "./schedule/schedule-error.ts";
export { formatOp, formatRank, formatSchedule } from "./schedule/text.ts";
export {
  assertValidSchedule,
  type ValidateOptions,
  type ValidationReport,
  validateSchedule,
} from "./schedule/validate/validate.ts";
export type { Violation, ViolationCode } from "./schedule/validate/violations.ts";
export type { Reading } from "./schedule/validate/walk.ts";
export { zb1p, zbv } from "./schedule/zero-bubble.ts";
export type { CriticalPath, CriticalReason, CriticalStep } from "./simulate/critical-path.ts";
export { type BlockedRank, DeadlockError } from "./simulate/deadlock.ts";
export type { Communication, LinkValue, NodeValue } from "./simulate/links.ts";
export type { LowerBound } from "./simulate/lower-bound.ts";
export {
  type MemoryCurve,
  memoryCurve,
  type PeakMemory,
  peakMemory,
  type StageMemory,
} from "./simulate/memory.ts";
export {
  type RankIdle,
  type RankTimeline,
  type SimulateOptions,
  type SimulationResult,
  simulate,
} from "./simulate/simulate.ts";
export type { OpDurations, PairTime, StageTimes, StageValue } from "./simulate/times.ts";
