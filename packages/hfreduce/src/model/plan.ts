// Plans an allreduce on a machine of a given size: the best chunk, tree or ring, what limits it,
// and what NCCL's ring would take.

import { InputError } from "@open-infra/errors";
import { type Estimate, estimateNccl, estimateRing, estimateTree } from "./estimate.ts";
import { fireFlyer2, type MachineModel, type Variant, variants } from "./machine.ts";
import { memoryOperations } from "./memory.ts";
import { type SimulatedAllreduce, simulateAllreduce } from "./simulate.ts";

/** What is planned. */
export interface PlanOptions {
  readonly gpus: number;
  /** Of gradients, on each GPU. */
  readonly bytes: number;
  /** @default "gdrcopy" */
  readonly variant?: Variant;
  /** @default as many as the nodes fill */
  readonly zones?: number;
  /** @default Fire-Flyer 2 */
  readonly machine?: MachineModel;
}

/** One way to do it. */
export interface PlannedWay {
  readonly way: "tree" | "ring" | "nccl";
  /** Absent for NCCL, which chooses its own. */
  readonly chunkBytes?: number;
  readonly simulated: boolean;
  readonly seconds: number;
  readonly GBs: number;
}

/** A plan. */
export interface AllreducePlan {
  readonly gpus: number;
  readonly nodes: number;
  readonly zones: number;
  readonly bytes: number;
  readonly variant: Variant;
  /** The size of chunks that the estimates below are smallest with. */
  readonly chunkBytes: number;
  /** Fastest first; the trees simulated, up to a size, the others estimated. */
  readonly ways: readonly PlannedWay[];
  /**
   * The resource with the lowest rate for the faster of tree and ring; latency where one chunk's
   * way through all levels is more than half of the time.
   */
  readonly limitedBy: Estimate["bounds"][number]["resource"] | "latency";
  readonly bounds: Estimate["bounds"];
  readonly memoryOperations: number;
  /** The tree with other chunks, estimated. */
  readonly chunks: readonly { readonly chunkBytes: number; readonly GBs: number }[];
}

const mostNodes = 4096;
/** Chunks of all nodes that are still simulated; beyond, the estimate has to do. */
const mostSimulated = 200_000;
const smallestChunk = 64 << 10;
const largestChunk = 16 << 20;

function check(
  { gpus, bytes, variant = "gdrcopy", zones = 1 }: PlanOptions,
  m: MachineModel,
): void {
  const most = mostNodes * m.gpusPerNode;
  const whole = (name: string, value: number, low: number, high: number): void => {
    if (Number.isSafeInteger(value) && value >= low && value <= high) return;
    throw new InputError(name, `${value}`, `a whole number from ${low} to ${high}`);
  };
  whole("gpus", gpus, 1, most);
  whole("bytes", bytes, 1, 2 ** 50);
  whole("zones", zones, 1, Math.ceil(gpus / m.gpusPerNode));
  if (!variants.includes(variant)) throw new InputError("variant", variant, variants.join(", "));
}

/** The tree's rate with each size of chunk. */
function scanChunks(
  options: { readonly nodes: number; readonly bytes: number; readonly variant: Variant },
  machine: MachineModel,
): { readonly chunkBytes: number; readonly GBs: number }[] {
  const tried: { chunkBytes: number; GBs: number }[] = [];
  for (let chunkBytes = smallestChunk; chunkBytes <= largestChunk; chunkBytes *= 2) {
    tried.push({ chunkBytes, GBs: estimateTree(options, { ...machine, chunkBytes }).GBs });
  }
  return tried;
}

function plannedTree(where: SimulatedAllreduce, machine: MachineModel): PlannedWay {
  const { chunkBytes } = machine;
  const simulated = where.nodes * Math.ceil(where.bytes / chunkBytes) <= mostSimulated;
  const run = simulated ? simulateAllreduce : estimateTree;
  const { seconds, GBs } = run(where, machine);
  return { way: "tree", chunkBytes, simulated, seconds, GBs };
}

/**
 * Plans an allreduce. Nodes that are not full count as full ones.
 *
 * @throws InputError naming the option.
 */
export function planAllreduce(options: PlanOptions): AllreducePlan {
  const machine = options.machine ?? fireFlyer2;
  check(options, machine);
  const { gpus, bytes, variant = "gdrcopy" } = options;
  const nodes = Math.ceil(gpus / machine.gpusPerNode);
  const zones = options.zones ?? Math.ceil(nodes / machine.nodesPerZone);
  const chunks = scanChunks({ nodes, bytes, variant }, machine);
  const { chunkBytes } = chunks.reduce((best, one) => (one.GBs > best.GBs ? one : best));
  const tuned = { ...machine, chunkBytes };
  const tree = estimateTree({ nodes, bytes, variant }, tuned);
  const ring = estimateRing({ nodes, bytes, variant }, tuned);
  const nccl = estimateNccl({ gpus, bytes }, machine);
  const where = { nodes, bytes, variant, zones };
  const ways: PlannedWay[] = [
    plannedTree(where, tuned),
    { way: "ring", chunkBytes, simulated: false, seconds: ring.seconds, GBs: ring.GBs },
    { way: "nccl", simulated: false, ...nccl },
  ];
  if (chunkBytes !== machine.chunkBytes) ways.push(plannedTree(where, machine));
  const better = ring.seconds < tree.seconds ? ring : tree;
  const latency = better.fillSeconds > better.seconds / 2;
  return {
    gpus,
    nodes,
    zones,
    bytes,
    variant,
    chunkBytes,
    ways: ways.toSorted((a, b) => a.seconds - b.seconds),
    limitedBy: latency ? "latency" : (better.bounds[0] as Estimate["bounds"][number]).resource,
    bounds: better.bounds,
    memoryOperations: memoryOperations(machine, variant).total,
    chunks,
  };
}
