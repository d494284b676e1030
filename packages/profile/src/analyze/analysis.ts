// The analyses as one list of names: what index.ts gives beside the reader. Each function takes a
// `Work`, which `selectWork` makes of a table and a selection.

export { type AnalyzeOptions, analyzeTrace, type TraceAnalysis } from "./analyze-trace.ts";
export {
  type AnnotationAnalysis,
  type AnnotationBreakdown,
  type AnnotationStream,
  type Attribution,
  annotationBreakdown,
  attribute,
} from "./annotations.ts";
export { type Bounds, bounds } from "./bounds.ts";
export {
  type Classifier,
  createClassifier,
  type KernelClass,
  type KernelGroup,
  type KernelRule,
  kernelGroups,
  parseRules,
  unclassified,
} from "./classify.ts";
export {
  type DiffEntry,
  type DiffOptions,
  type DiffThresholds,
  diffTraces,
  type TraceDiff,
} from "./diff.ts";
export { type IdleBreakdown, type IdleOptions, idleBreakdown } from "./idle.ts";
export {
  type Intervals,
  intersect,
  lengthOf,
  lengthWithin,
  sharedLength,
  subtract,
  UnionBuilder,
  unionOfPairs,
  unite,
} from "./intervals.ts";
export {
  type IssueWaitAnalysis,
  type IssueWaitOptions,
  type IssueWaitPair,
  issueWaitPairs,
} from "./issue-wait.ts";
export {
  type ClassBreakdown,
  type DurationStats,
  type KernelBreakdown,
  kernelBreakdown,
  type NameBreakdown,
  type VariantBreakdown,
} from "./kernels.ts";
export { type LaunchOptions, type LaunchStats, launchStats } from "./launch-stats.ts";
export { findLaunches, type Launches } from "./launches.ts";
export { isAnnotation } from "./nesting.ts";
export {
  type OverlapAnalysis,
  type OverlapFigures,
  overlap,
  type StreamOverlap,
} from "./overlap.ts";
export { type Phase, type PhaseAnalysis, phases } from "./phases.ts";
export { builtinRules } from "./rules.ts";
export { shortName } from "./short-name.ts";
export { type GridShare, multiprocessors, type SmPartition, smPartition } from "./sm-partition.ts";
export { type Distribution, distribution } from "./statistics.ts";
export type { WorkDevice, WorkStream } from "./streams.ts";
export {
  breakdownOf,
  type DeviceBreakdown,
  type DeviceTime,
  deviceTime,
  type StreamBreakdown,
  type TimeBreakdown,
  temporalBreakdown,
} from "./temporal.ts";
export {
  classMask,
  deviceRows,
  type Selection,
  selectWork,
  unionOfClasses,
  unionOfStream,
  type Work,
  type WorkOptions,
} from "./work.ts";
