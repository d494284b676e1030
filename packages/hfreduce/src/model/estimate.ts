// What an allreduce takes by formulas, fast enough to try many sizes: bounds of each resource, and
// a pipeline of chunks through them. simulate.ts plays the same out event by event; the tests hold
// one against the other.

import { doubleTree, treeHeight } from "../topology.ts";
import type { MachineModel, Variant } from "./machine.ts";
import { memoryOperations, pcieUnits, rootPortUnits } from "./memory.ts";
import { windowChunks } from "./simulate.ts";

/** A resource and the gradient rate it allows. */
export interface RateBound {
  readonly resource: "memory" | "rootPort" | "nic" | "window";
  readonly GBs: number;
}

/** What is estimated. */
export interface EstimateOptions {
  readonly nodes: number;
  readonly bytes: number;
  readonly variant?: Variant;
}

export interface Estimate {
  readonly seconds: number;
  readonly GBs: number;
  /** Of that, the way of one chunk through all levels, alone. */
  readonly fillSeconds: number;
  /** Lowest first. */
  readonly bounds: readonly RateBound[];
}

/** How much longer a round trip takes among other chunks than alone, by simulation. */
const queueing = 1.4;

interface ChunkTimes {
  /** Down from the GPUs, and the node's sum. */
  readonly fetch: number;
  /** Up one level of a tree, and down one. */
  readonly up: number;
  readonly down: number;
  /** Back to the GPUs. */
  readonly back: number;
}

function chunkTimes(machine: MachineModel, variant: Variant, bytes: number): ChunkTimes {
  const { rootPortGBs, rootPortEfficiency, memoryGBs, nicGBs, hopUs, messageUs } = machine;
  const port = rootPortUnits(variant);
  const portRate = rootPortGBs * rootPortEfficiency * 1e9;
  const operations = memoryOperations(machine, variant).steps.map((s) => s.reads + s.writes);
  const memory = (step: number): number =>
    ((operations[step] as number) * bytes) / (memoryGBs * 1e9);
  const hop = bytes / (nicGBs * 1e9) + (hopUs + messageUs) * 1e-6;
  return {
    fetch: (port.down * bytes) / portRate + memory(0) + memory(1),
    up: hop + memory(2),
    // An inner node serves its two children one after the other.
    down: hop + bytes / (2 * nicGBs * 1e9),
    back: memory(3) + (port.up * bytes) / portRate,
  };
}

/** Gradient bytes that one node sends for each byte: two in a tree, one between two nodes. */
function sentUnits(nodes: number): number {
  if (nodes === 1) return 0;
  return nodes === 2 ? 1 : 2;
}

function rateBounds(
  machine: MachineModel,
  variant: Variant,
  units: number,
  chunkBytes: number,
): RateBound[] {
  const { nicGBs, messageUs, rootPortGBs, rootPortEfficiency } = machine;
  const port = rootPortUnits(variant);
  const message = chunkBytes / (nicGBs * 1e9) + messageUs * 1e-6;
  return [
    { resource: "memory", GBs: memoryOperations(machine, variant).ceilingGBs },
    { resource: "rootPort", GBs: (rootPortGBs * rootPortEfficiency) / (port.down + port.up) },
    { resource: "nic", GBs: units === 0 ? Infinity : chunkBytes / message / units / 1e9 },
  ];
}

function pipelined(
  bytes: number,
  chunkBytes: number,
  fill: number,
  bounds: readonly RateBound[],
): Estimate {
  const sorted = bounds.toSorted((a, b) => a.GBs - b.GBs);
  const rate = (sorted[0] as RateBound).GBs * 1e9;
  const seconds = fill + Math.max(0, bytes - chunkBytes) / rate;
  return { seconds, GBs: bytes / seconds / 1e9, fillSeconds: fill, bounds: sorted };
}

/** The double binary tree. */
export function estimateTree(options: EstimateOptions, machine: MachineModel): Estimate {
  const { nodes, bytes, variant = "gdrcopy" } = options;
  const chunkBytes = Math.min(machine.chunkBytes, bytes);
  const height = Math.max(...doubleTree(nodes).map(treeHeight));
  const times = chunkTimes(machine, variant, chunkBytes);
  const fill = times.fetch + height * (times.up + times.down) + times.back;
  const bounds = rateBounds(machine, variant, sentUnits(nodes), chunkBytes);
  // A chunk leaves the window a round trip after it came in, and meets queues on its way.
  const window = (windowChunks(machine) * chunkBytes) / (fill * queueing) / 1e9;
  return pipelined(bytes, chunkBytes, fill, [...bounds, { resource: "window", GBs: window }]);
}

/** The same machine with a ring between nodes. */
export function estimateRing(options: EstimateOptions, machine: MachineModel): Estimate {
  const { nodes, bytes, variant = "gdrcopy" } = options;
  const segment = Math.max(1, bytes / nodes);
  const chunkBytes = Math.min(machine.chunkBytes, segment);
  const times = chunkTimes(machine, variant, chunkBytes);
  const steps = 2 * (nodes - 1);
  const fill = times.fetch + steps * times.up + times.back;
  const units = steps / nodes;
  return pipelined(bytes, Math.min(bytes, chunkBytes * nodes), fill, [
    ...rateBounds(machine, variant, units, chunkBytes),
  ]);
}

/**
 * NCCL's ring over all GPUs of this machine: the rate of GPU to NIC without the host, halved
 * because every byte goes out and comes in by it, and a cost for each of its `2(n − 1)` steps.
 */
export function estimateNccl(
  options: { readonly gpus: number; readonly bytes: number },
  machine: MachineModel,
): { readonly seconds: number; readonly GBs: number } {
  const { gpus, bytes } = options;
  if (gpus < 2) return { seconds: 0, GBs: Infinity };
  const transfer = (pcieUnits(gpus).ncclSteps * bytes) / (machine.peerToPeerGBs * 1e9);
  const seconds = transfer + 2 * (gpus - 1) * machine.ringStepUs * 1e-6;
  return { seconds, GBs: bytes / seconds / 1e9 };
}
