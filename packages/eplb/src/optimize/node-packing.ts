// Groups to nodes where the partitions are too many to list: from the original's packing, groups
// are exchanged while that lowers the bound of the worst node. The bound sees more than the sum of
// the loads: a node whose groups hold two hot experts may lack slots for both.

/** A packing under improvement. */
export interface NodePacking {
  /** Node of each group; changed in place. */
  readonly packOf: Int32Array;
  readonly numNodes: number;
  /** Lower bound on the maximum load of a node that holds these groups. */
  boundOf(groups: readonly number[]): number;
  /** Good enough: no node needs a lower bound than this. */
  readonly goal: number;
}

/** Most exchanges; each takes a bound for every pair of groups that could be exchanged. */
const maxExchanges = 32;

function members(packOf: Int32Array, node: number): number[] {
  const groups: number[] = [];
  for (const [group, at] of packOf.entries()) if (at === node) groups.push(group);
  return groups;
}

/** Exchanges groups of the worst node with others until nothing helps. */
export function improvePacking(packing: NodePacking): void {
  const { packOf, numNodes, goal } = packing;
  const bounds = new Float64Array(numNodes);
  for (let node = 0; node < numNodes; node++) {
    bounds[node] = packing.boundOf(members(packOf, node));
  }
  for (let i = 0; i < maxExchanges; i++) {
    const worst = bounds.indexOf(Math.max(...bounds));
    if ((bounds[worst] as number) <= goal) return;
    if (!exchange(packing, bounds, worst)) return;
  }
}

/** Makes the best exchange of one group of node `worst`; false if none lowers its bound. */
function exchange(packing: NodePacking, bounds: Float64Array, worst: number): boolean {
  const { packOf } = packing;
  const mine = members(packOf, worst);
  let lowest = (bounds[worst] as number) * (1 - 1e-9);
  let best: { a: number; b: number; boundA: number; boundB: number } | undefined;
  for (let b = 0; b < packOf.length; b++) {
    const node = packOf[b] as number;
    if (node === worst) continue;
    const theirs = members(packOf, node);
    for (const a of mine) {
      const boundA = packing.boundOf(mine.map((group) => (group === a ? b : group)));
      if (boundA >= lowest) continue;
      const boundB = packing.boundOf(theirs.map((group) => (group === b ? a : group)));
      if (boundB >= lowest) continue;
      lowest = Math.max(boundA, boundB);
      best = { a, b, boundA, boundB };
    }
  }
  if (best === undefined) return false;
  const node = packOf[best.b] as number;
  packOf[best.a] = node;
  packOf[best.b] = worst;
  bounds[worst] = best.boundA;
  bounds[node] = best.boundB;
  return true;
}
