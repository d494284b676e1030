// The oracle of the optimizer's tests: every placement of a tiny layer, one after another.

import type { EplbShape } from "../src/index.ts";

/** Lowest maximum loads over all placements, and over those with a property. */
export interface Optima {
  readonly any: number;
  /** No expert twice on a GPU. */
  readonly noDuplicates: number;
  /** Every group on one node, equally many groups on each. */
  readonly nodeLimit: number;
  readonly both: number;
}

/** Tries experts^slots placements; slots inside a GPU only in ascending order. */
export function bruteForce(loads: readonly number[], shape: EplbShape): Optima {
  const { numReplicas, numGpus } = shape;
  const perGpu = numReplicas / numGpus;
  const slots = new Int32Array(numReplicas);
  const counts = new Int32Array(loads.length);
  const best = { any: Infinity, noDuplicates: Infinity, nodeLimit: Infinity, both: Infinity };
  const fill = (slot: number): void => {
    if (slot === numReplicas) {
      if (!counts.includes(0)) consider();
      return;
    }
    const first = slot % perGpu === 0 ? 0 : (slots[slot - 1] as number);
    for (let expert = first; expert < loads.length; expert++) {
      slots[slot] = expert;
      counts[expert] = (counts[expert] as number) + 1;
      fill(slot + 1);
      counts[expert] = (counts[expert] as number) - 1;
    }
  };
  const consider = (): void => {
    let worst = 0;
    let duplicates = false;
    for (let start = 0; start < numReplicas; start += perGpu) {
      const gpu = slots.subarray(start, start + perGpu);
      const sum = gpu.reduce((s, e) => s + (loads[e] as number) / (counts[e] as number), 0);
      worst = Math.max(worst, sum);
      duplicates ||= new Set(gpu).size < perGpu;
    }
    const limited = keepsGroups(slots, loads.length, shape);
    best.any = Math.min(best.any, worst);
    if (!duplicates) best.noDuplicates = Math.min(best.noDuplicates, worst);
    if (limited) best.nodeLimit = Math.min(best.nodeLimit, worst);
    if (limited && !duplicates) best.both = Math.min(best.both, worst);
  };
  fill(0);
  return best;
}

/** True if every group is on one node and every node has equally many. */
export function keepsGroups(slots: Int32Array, numLogical: number, shape: EplbShape): boolean {
  if (shape.numGroups % shape.numNodes !== 0) return false;
  const perNode = shape.numReplicas / shape.numNodes;
  const nodes = Array.from({ length: shape.numNodes }, (_, node) => {
    const held = slots.subarray(node * perNode, (node + 1) * perNode);
    return new Set(Array.from(held, (e) => Math.floor((e * shape.numGroups) / numLogical)));
  });
  const all = new Set(nodes.flatMap((groups) => [...groups]));
  return all.size === shape.numGroups && nodes.every((g) => g.size * nodes.length === all.size);
}
