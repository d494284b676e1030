// The machine of the paper (Fire-Flyer 2, arXiv 2408.14158) as numbers, and the constants that the
// paper does not give: those marked as fitted were chosen once so that all its rows come out.

/** One node and its network, as far as an allreduce feels them. Rates in GB/s, 10^9 bytes. */
export interface MachineModel {
  readonly gpusPerNode: number;
  readonly numaNodes: number;
  /** Reads and writes of host memory together. Paper: 16 channels DDR4-3200, 320 in practice. */
  readonly memoryGBs: number;
  /** Each direction. Paper: 200 Gb/s. */
  readonly nicGBs: number;
  /** Of the root port that two GPUs share, both directions together. Paper: 37.5. */
  readonly rootPortGBs: number;
  /** GPU to NIC without the host in between, for NCCL. Paper: about 9 GiB/s. */
  readonly peerToPeerGBs: number;
  /** Nodes of a zone. Paper: about 600. */
  readonly nodesPerZone: number;
  /** Fitted: share of the root port's rate that copies reach. */
  readonly rootPortEfficiency: number;
  /** Fitted: bytes of a chunk. */
  readonly chunkBytes: number;
  /** Fitted: bytes of a node that are on their way at once: its host buffers. */
  readonly windowBytes: number;
  /** Assumed: what a message costs its sender beside its bytes, microseconds. */
  readonly messageUs: number;
  /** Fitted: from the arrival of a chunk to its sending on, beside the transfer, microseconds. */
  readonly hopUs: number;
  /** Fitted to the cross-zone row: share of the NIC's rate that a pair across zones reaches. */
  readonly crossZoneEfficiency: number;
  /** Fitted to NCCL's end at 1,440 GPUs: what one step of its ring costs beside the transfer. */
  readonly ringStepUs: number;
}

/** Fire-Flyer 2. */
export const fireFlyer2: MachineModel = {
  gpusPerNode: 8,
  numaNodes: 2,
  memoryGBs: 320,
  nicGBs: 25,
  rootPortGBs: 37.5,
  peerToPeerGBs: 9 * 1.073741824,
  nodesPerZone: 600,
  rootPortEfficiency: 0.9,
  chunkBytes: 2 << 20,
  windowBytes: 32 << 20,
  messageUs: 4,
  hopUs: 60,
  crossZoneEfficiency: 0.9,
  ringStepUs: 25,
};

/**
 * How data come back to the GPUs: `gdrcopy` reads host memory once for each NUMA node, `memcpy`
 * once for each GPU; with `nvlink`, pairs of GPUs add up before and share out afterwards.
 */
export type Variant = "gdrcopy" | "memcpy" | "nvlink";
export const variants: readonly Variant[] = ["gdrcopy", "memcpy", "nvlink"];
