// The public face: collectives over nodes and devices.

export {
  allreduceMany,
  type BucketOptions,
  GradientBuckets,
  type GradientSpec,
  planBuckets,
} from "./buckets.ts";
export type { Algorithm, ReduceOp } from "./kernel.ts";
export { openReducer, type ReducerOptions } from "./open.ts";
export type { Devices } from "./operands.ts";
export {
  type AllreduceOptions,
  type CallOptions,
  HfReduce,
  type ReduceOptions,
  type RootOptions,
} from "./reducer.ts";
export {
  doubleTree,
  type Members,
  membersOf,
  rootedTrees,
  type Tree,
  treeHeight,
} from "./topology.ts";
