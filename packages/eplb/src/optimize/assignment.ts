// The assignment problem, and what it is for here: GPUs of a new placement are alike, so they are
// named after the old GPUs they share most experts with. That changes no load and moves less.

import { alignGpu } from "../moves.ts";

/**
 * Minimum-cost perfect matching of rows to columns: the Hungarian method with potentials, O(n³).
 * `cost` is [n, n]; the result gives each row its column.
 */
export function assignRows(cost: Float64Array, n: number): Int32Array {
  const rowPotential = new Float64Array(n + 1);
  const columnPotential = new Float64Array(n + 1);
  const rowOf = new Int32Array(n + 1); // Column → row, both counted from 1; 0 is "none".
  const cameFrom = new Int32Array(n + 1);
  for (let row = 1; row <= n; row++) {
    const slack = new Float64Array(n + 1).fill(Number.POSITIVE_INFINITY);
    const done = new Uint8Array(n + 1);
    let column = 0;
    rowOf[0] = row;
    do {
      done[column] = 1;
      const current = rowOf[column] as number;
      let step = Number.POSITIVE_INFINITY;
      let next = 0;
      for (let c = 1; c <= n; c++) {
        if (done[c] === 1) continue;
        const reduced =
          (cost[(current - 1) * n + c - 1] as number) -
          (rowPotential[current] as number) -
          (columnPotential[c] as number);
        if (reduced < (slack[c] as number)) {
          slack[c] = reduced;
          cameFrom[c] = column;
        }
        if ((slack[c] as number) < step) {
          step = slack[c] as number;
          next = c;
        }
      }
      for (let c = 0; c <= n; c++) {
        if (done[c] === 1) {
          const tight = rowOf[c] as number;
          rowPotential[tight] = (rowPotential[tight] as number) + step;
          columnPotential[c] = (columnPotential[c] as number) - step;
        } else slack[c] = (slack[c] as number) - step;
      }
      column = next;
    } while (rowOf[column] !== 0);
    while (column !== 0) {
      const previous = cameFrom[column] as number;
      rowOf[column] = rowOf[previous] as number;
      column = previous;
    }
  }
  const columnOf = new Int32Array(n);
  for (let c = 1; c <= n; c++) columnOf[(rowOf[c] as number) - 1] = c - 1;
  return columnOf;
}

/**
 * Reorders `count` equal blocks of slots of `after`, in place, to share as many experts as possible
 * with the blocks of `before` at the same places. Blocks are GPUs, or whole nodes.
 */
function relabelBlocks(
  before: Int32Array,
  after: Int32Array,
  count: number,
  numLogical: number,
): void {
  const size = after.length / count;
  const cost = new Float64Array(count * count);
  const copies = new Int32Array(numLogical);
  for (let old = 0; old < count; old++) {
    for (let fresh = 0; fresh < count; fresh++) {
      for (let i = old * size; i < (old + 1) * size; i++) {
        const expert = before[i] as number;
        if (expert >= 0) copies[expert] = (copies[expert] as number) + 1;
      }
      let shared = 0;
      for (let i = fresh * size; i < (fresh + 1) * size; i++) {
        const left = copies[after[i] as number] as number;
        if (left === 0) continue;
        copies[after[i] as number] = left - 1;
        shared++;
      }
      cost[old * count + fresh] = -shared;
      for (let i = old * size; i < (old + 1) * size; i++) {
        if ((before[i] as number) >= 0) copies[before[i] as number] = 0;
      }
    }
  }
  const freshOf = assignRows(cost, count);
  const copy = Int32Array.from(after);
  for (let old = 0; old < count; old++) {
    const fresh = freshOf[old] as number;
    after.set(copy.subarray(fresh * size, (fresh + 1) * size), old * size);
  }
}

/** What relabelling must respect. */
export interface RelabelShape {
  readonly numLogical: number;
  readonly numGpus: number;
  /** Nodes that keep their groups together; 1 lets any GPU take any other's name. */
  readonly numNodes: number;
}

/** Renames nodes, GPUs and slots of one layer, in place, to move the least from `before`. */
export function relabelLayer(before: Int32Array, after: Int32Array, shape: RelabelShape): void {
  const { numLogical, numGpus, numNodes } = shape;
  if (numNodes > 1) relabelBlocks(before, after, numNodes, numLogical);
  const perNode = after.length / numNodes;
  for (let at = 0; at < after.length; at += perNode) {
    const old = before.subarray(at, at + perNode);
    relabelBlocks(old, after.subarray(at, at + perNode), numGpus / numNodes, numLogical);
  }
  const perGpu = after.length / numGpus;
  for (let at = 0; at < after.length; at += perGpu) {
    alignGpu(before.subarray(at, at + perGpu), after.subarray(at, at + perGpu));
  }
}
