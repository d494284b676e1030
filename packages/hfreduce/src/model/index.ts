// The cost model, pure: memory operations and network time of an allreduce, without running one.

export {
  type Estimate,
  type EstimateOptions,
  estimateNccl,
  estimateRing,
  estimateTree,
  type RateBound,
} from "./estimate.ts";
export { fireFlyer2, type MachineModel, type Variant, variants } from "./machine.ts";
export {
  type MemoryOperations,
  type MemoryStep,
  memoryOperations,
  type PcieUnits,
  pcieUnits,
} from "./memory.ts";
export { paperBytes, paperGpus, paperRows } from "./paper.ts";
export { type AllreducePlan, type PlannedWay, type PlanOptions, planAllreduce } from "./plan.ts";
export {
  type Resource,
  type SimulatedAllreduce,
  type SimulationResult,
  simulateAllreduce,
} from "./simulate.ts";
