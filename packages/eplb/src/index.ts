// The public face of the package: rebalancing, its measures, migration, the online controller. All
// of it is pure and runs anywhere, the browser included.

export {
  type NestedPlacement,
  type PlacementFromOptions,
  placementFrom,
  toNested,
} from "./convert.ts";
export { type MeasureOptions, measurePlacement } from "./measure.ts";
export { alignSlots, diffPlacements, type SlotMove, type SourcePlace } from "./moves.ts";
export * from "./online/index.ts";
export { balancedPacking, type Packing } from "./packing.ts";
export type {
  BalanceReport,
  EplbShape,
  LayerBalance,
  LoadRows,
  Placement,
} from "./placement.ts";
export {
  type PolicyName,
  policyNames,
  type Rebalanced,
  type RebalanceOptions,
  rebalanceExperts,
} from "./rebalance.ts";
export { type Replication, replicateExperts } from "./replication.ts";
