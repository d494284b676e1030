// Placing on the GPUs that are left when ranks have failed: which lost experts go where first, and
// how a policy that knows nothing of failures sees the rest as a smaller cluster.

import { completePlacement } from "../convert.ts";
import { keepsNodeLimit } from "../node-limit.ts";
import type { EplbShape } from "../placement.ts";
import { isHierarchical } from "../shape.ts";
import type { ExpertRef, SlotShape } from "./slots.ts";
import { countHeld, emptySlot, lostExperts } from "./slots.ts";

/** GPUs that have not failed, ascending. */
export function liveGpus(numGpus: number, failed: ReadonlySet<number>): number[] {
  return Array.from({ length: numGpus }, (_, gpu) => gpu).filter((gpu) => !failed.has(gpu));
}

/**
 * The cluster of the live GPUs alone. Nodes and groups stay where every node that is left has as
 * many GPUs as the others and the groups can be dealt to them; otherwise the rest is one node.
 */
export function survivingShape(shape: EplbShape, live: readonly number[]): EplbShape {
  const { numReplicas, numGroups, numNodes, numGpus } = shape;
  const gpusPerNode = numGpus / numNodes;
  const onNode = Map.groupBy(live, (gpu) => Math.floor(gpu / gpusPerNode));
  const sizes = new Set([...onNode.values()].map(({ length }) => length));
  const replicas = (numReplicas / numGpus) * live.length;
  const even = sizes.size === 1 && Number.isInteger(gpusPerNode);
  if (even && numGroups % onNode.size === 0) {
    return { numReplicas: replicas, numGpus: live.length, numNodes: onNode.size, numGroups };
  }
  return { numReplicas: replicas, numGpus: live.length, numNodes: 1, numGroups: 1 };
}

/** Whether minimal migration with the node limit, where the cluster has one, can start here. */
export function fitsNodes(row: Int32Array, shape: EplbShape, numLogical: number): boolean {
  return !isHierarchical(shape) || keepsNodeLimit(completePlacement(1, numLogical, row), shape);
}

/** The slots of the live GPUs, side by side: [numLayers × live slots]. */
export function gatherLive(
  slots: Int32Array,
  shape: SlotShape,
  live: readonly number[],
): Int32Array {
  const { numLayers, numReplicas, numGpus } = shape;
  const perGpu = numReplicas / numGpus;
  const gathered = new Int32Array(numLayers * live.length * perGpu);
  let to = 0;
  for (let layer = 0; layer < numLayers; layer++) {
    for (const gpu of live) {
      const from = layer * numReplicas + gpu * perGpu;
      gathered.set(slots.subarray(from, from + perGpu), to);
      to += perGpu;
    }
  }
  return gathered;
}

/** The reverse of `gatherLive`; slots of failed GPUs are empty. */
export function scatterLive(
  gathered: Int32Array,
  shape: SlotShape,
  live: readonly number[],
): Int32Array {
  const { numLayers, numReplicas, numGpus } = shape;
  const perGpu = numReplicas / numGpus;
  const slots = new Int32Array(numLayers * numReplicas).fill(emptySlot);
  let from = 0;
  for (let layer = 0; layer < numLayers; layer++) {
    for (const gpu of live) {
      slots.set(gathered.subarray(from, from + perGpu), layer * numReplicas + gpu * perGpu);
      from += perGpu;
    }
  }
  return slots;
}

/** Where lost experts go. */
export interface Repair {
  /** What slots hold with every lost expert placed that can be. */
  readonly target: Int32Array;
  readonly placed: readonly ExpertRef[];
  /** Experts for which no slot is left; their tokens cannot be served. */
  readonly unplaced: readonly ExpertRef[];
}

/**
 * Places the experts that no slot holds, the most loaded first, and moves nothing else: into empty
 * slots of live GPUs, the least loaded GPU first, then over the redundant replica whose loss raises
 * the load of its expert's other replicas least.
 */
export function repairSlots(
  held: Int32Array,
  loads: ArrayLike<number>,
  shape: SlotShape,
  failed: ReadonlySet<number>,
): Repair {
  const target = held.slice();
  const placed: ExpertRef[] = [];
  const unplaced: ExpertRef[] = [];
  const byLayer = Map.groupBy(lostExperts(held, shape), ({ layer }) => layer);
  for (const [layer, lost] of byLayer) {
    const loadOf = (expert: number): number => loads[layer * shape.numLogical + expert] as number;
    const repair = new LayerRepair(target, layer, loadOf, shape, failed);
    for (const ref of lost.toSorted((a, b) => loadOf(b.expert) - loadOf(a.expert))) {
      (repair.place(ref.expert) ? placed : unplaced).push(ref);
    }
  }
  return { target, placed, unplaced };
}

/** One layer under repair; writes into the target it was given. */
class LayerRepair {
  readonly #row: Int32Array;
  readonly #count: Int32Array;
  readonly #loadOf: (expert: number) => number;
  readonly #perGpu: number;
  readonly #failed: ReadonlySet<number>;

  constructor(
    target: Int32Array,
    layer: number,
    loadOf: (expert: number) => number,
    shape: SlotShape,
    failed: ReadonlySet<number>,
  ) {
    const { numReplicas, numLogical, numGpus } = shape;
    this.#row = target.subarray(layer * numReplicas, (layer + 1) * numReplicas);
    this.#count = new Int32Array(numLogical);
    countHeld(this.#row, 0, numReplicas, this.#count);
    this.#loadOf = loadOf;
    this.#perGpu = numReplicas / numGpus;
    this.#failed = failed;
  }

  place(expert: number): boolean {
    let best: number | undefined;
    let bestCost: readonly number[] = [];
    for (let slot = 0; slot < this.#row.length; slot++) {
      const cost = this.#cost(slot);
      if (cost === undefined || (best !== undefined && !isLess(cost, bestCost))) continue;
      best = slot;
      bestCost = cost;
    }
    if (best === undefined) return false;
    const old = this.#row[best] as number;
    if (old >= 0) this.#count[old] = (this.#count[old] as number) - 1;
    this.#row[best] = expert;
    this.#count[expert] = 1;
    return true;
  }

  /** Empty before redundant; then what the loss costs; then how loaded the GPU is. */
  #cost(slot: number): readonly number[] | undefined {
    const gpu = Math.floor(slot / this.#perGpu);
    if (this.#failed.has(gpu)) return undefined;
    const old = this.#row[slot] as number;
    if (old < 0) return [0, this.#gpuLoad(gpu)];
    const replicas = this.#count[old] as number;
    if (replicas < 2) return undefined;
    return [1, this.#loadOf(old) / (replicas - 1), this.#gpuLoad(gpu)];
  }

  #gpuLoad(gpu: number): number {
    let load = 0;
    for (let slot = gpu * this.#perGpu; slot < (gpu + 1) * this.#perGpu; slot++) {
      const expert = this.#row[slot] as number;
      if (expert >= 0) load += this.#loadOf(expert) / (this.#count[expert] as number);
    }
    return load;
  }
}

/** Lexicographic order of equally meant numbers. */
function isLess(a: readonly number[], b: readonly number[]): boolean {
  for (let i = 0; i < a.length && i < b.length; i++) {
    if (a[i] !== b[i]) return (a[i] as number) < (b[i] as number);
  }
  return false;
}
