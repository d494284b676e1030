// The paper's count of memory operations: how often each byte of a gradient is read from or written
// to host memory on its way, and what bandwidth that leaves.

import type { MachineModel, Variant } from "./machine.ts";

/** A step and its operations for each byte of the gradient. */
export interface MemoryStep {
  readonly step: string;
  readonly reads: number;
  readonly writes: number;
}

/** All steps of a variant. */
export interface MemoryOperations {
  readonly steps: readonly MemoryStep[];
  readonly total: number;
  /** What host memory allows, GB/s of gradient. */
  readonly ceilingGBs: number;
}

/**
 * Counts the operations: 24 for eight GPUs and two NUMA nodes (13.3 GB/s), 30 with `memcpy`
 * (10.7), 16 with NVLink pairs (20; derived by the same rules, not in the paper).
 */
export function memoryOperations(
  machine: MachineModel,
  variant: Variant = "gdrcopy",
): MemoryOperations {
  const { gpusPerNode, numaNodes, memoryGBs } = machine;
  // A pair of GPUs that has added up over NVLink brings one buffer.
  const buffers = variant === "nvlink" ? Math.ceil(gpusPerNode / 2) : gpusPerNode;
  const back = variant === "memcpy" ? gpusPerNode : numaNodes;
  const steps = [
    { step: "GPUs to host", reads: 0, writes: buffers },
    { step: "add up", reads: buffers, writes: 1 },
    // Sent and received in each of both passes, and added once.
    { step: "between nodes", reads: 3, writes: 2 },
    { step: "host to GPUs", reads: back, writes: 0 },
  ];
  const total = steps.reduce((sum, { reads, writes }) => sum + reads + writes, 0);
  return { steps, total, ceilingGBs: memoryGBs / total };
}

/** How often each byte crosses a GPU's PCIe link in each direction. */
export interface PcieUnits {
  /** Once down, once up. */
  readonly hfreduce: number;
  /** A ring of `n` GPUs as the paper counts it, `(2n − 1) / n`. */
  readonly ncclPaper: number;
  /**
   * The same by the usual count of a ring's steps, `2(n − 1) / n`; the paper's has one step more.
   */
  readonly ncclSteps: number;
}

export function pcieUnits(gpus: number): PcieUnits {
  return { hfreduce: 1, ncclPaper: (2 * gpus - 1) / gpus, ncclSteps: (2 * (gpus - 1)) / gpus };
}

/**
 * Bytes over the shared root port for each byte of gradient. Both of its GPUs copy down and up.
 * With NVLink the other GPU of each pair brings the sum, and both take half of the result.
 */
export function rootPortUnits(variant: Variant): { readonly down: number; readonly up: number } {
  return variant === "nvlink" ? { down: 0, up: 1 } : { down: 2, up: 2 };
}
