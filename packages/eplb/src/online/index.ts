// The online half of the package: statistics, migration plans, the controller, and its simulation.

export { EplbController } from "./controller.ts";
export type {
  CancelAction,
  EplbAction,
  EplbControllerOptions,
  EplbMetrics,
  EplbReport,
  MoveAction,
  MoveRef,
  Payback,
  RebalanceFunction,
  RebalanceReason,
  ReportAction,
  RouteAction,
  StepInput,
} from "./controller-types.ts";
export {
  type GenerateOptions,
  generateLoads,
  type Popularity,
  popularities,
  type Scenario,
  scenarios,
} from "./generate.ts";
export type { LayerCopy, Staging } from "./layer-moves.ts";
export {
  type MigrationOptions,
  type MigrationPlan,
  type MigrationStep,
  planMigration,
  type SlotCommit,
  type SlotCopy,
} from "./migration.ts";
export {
  type ArmTotals,
  type SimulateOptions,
  type SimulationEvent,
  type SimulationResult,
  type SimulationWindow,
  simulateEplb,
} from "./simulate.ts";
export { type ExpertRef, linearSlots, routeSlots, type SlotShape } from "./slots.ts";
export {
  type ExpertCount,
  flattenLoads,
  LoadEma,
  type LoadEmaOptions,
  type LoadStatistics,
  LoadWindow,
  type LoadWindowOptions,
  loadRows,
  loadsFromSlots,
  mergeLoads,
} from "./statistics.ts";
export {
  type LoadTrace,
  type LoadTraceJson,
  loadTraceFrom,
  loadTraceToJson,
  RecordedTrace,
} from "./trace.ts";
