// `replicate_experts` of the original: which experts get the redundant slots. Every extra slot goes
// to the expert whose replicas carry most, which gives the lowest possible maximum load of a
// replica. Where replicas then go is the business of packing.

import { InputError } from "@open-infra/errors";
import { descendingKey, keyIndex, siftDown } from "./order.ts";
import type { LoadRows } from "./placement.ts";
import { loadMatrix, maxSlots, shown } from "./shape.ts";

/**
 * Scratch for giving `numPhysical` slots to `numLogical` experts; made once, used for every row.
 */
export class Replicator {
  readonly numLogical: number;
  readonly numPhysical: number;
  /** Load of each expert, float32; filled by the caller. */
  readonly weights: Float32Array;
  /** Results: expert and replica rank of each slot, and replicas of each expert. */
  readonly phy2log: Int32Array;
  readonly rank: Int32Array;
  readonly logcnt: Int32Array;
  readonly #share: Float32Array;
  readonly #heap: Float64Array;

  constructor(numLogical: number, numPhysical: number) {
    this.numLogical = numLogical;
    this.numPhysical = numPhysical;
    this.weights = new Float32Array(numLogical);
    this.phy2log = new Int32Array(numPhysical);
    this.rank = new Int32Array(numPhysical);
    this.logcnt = new Int32Array(numLogical);
    this.#share = new Float32Array(numLogical);
    this.#heap = new Float64Array(numLogical);
  }

  /** Replicates by `weights` into `phy2log`, `rank` and `logcnt`. */
  replicate(): void {
    const { numLogical, numPhysical } = this;
    for (let e = 0; e < numLogical; e++) this.phy2log[e] = e;
    this.logcnt.fill(1);
    this.#share.set(this.weights);
    const heap = this.#heap;
    for (let e = 0; e < numLogical; e++) heap[e] = descendingKey(this.share(e), e);
    heap.sort(); // A sorted array is a heap, its root the heaviest replica.
    for (let slot = numLogical; slot < numPhysical; slot++) {
      const heaviest = keyIndex(heap[0] as number);
      this.#give(slot, heaviest);
      heap[0] = descendingKey(this.share(heaviest), heaviest);
      siftDown(heap, numLogical);
    }
  }

  /** Load of one replica of an expert, float32. */
  share(expert: number): number {
    return this.#share[expert] as number;
  }

  #give(slot: number, expert: number): void {
    const count = this.logcnt[expert] as number;
    this.phy2log[slot] = expert;
    this.rank[slot] = count;
    this.logcnt[expert] = count + 1;
    this.#share[expert] = (this.weights[expert] as number) / (count + 1); // Rounds to float32.
  }
}

/** What `replicateExperts` returns: a row a layer. */
export interface Replication {
  /** Expert of each slot: first one of each, then the extra ones in the order they were given. */
  readonly phy2log: number[][];
  /** Rank of each slot among the replicas of its expert. */
  readonly rank: number[][];
  /** Replicas of each expert. */
  readonly logcnt: number[][];
}

/**
 * `replicate_experts` of the original: gives `numPhysical` slots to the experts of each row so that
 * the maximum load of a replica is the lowest possible. The first expert wins ties.
 *
 * @throws InputError if there are fewer slots than experts, or for unusable weights.
 */
export function replicateExperts(weight: LoadRows, numPhysical: number): Replication {
  const { numLayers, numLogical, data } = loadMatrix(weight);
  if (!Number.isSafeInteger(numPhysical) || numPhysical < numLogical || numPhysical > maxSlots) {
    const allowed = `an integer from ${numLogical}, the number of experts, to ${maxSlots}`;
    throw new InputError("numPhysical", shown(numPhysical), allowed);
  }
  const replicator = new Replicator(numLogical, numPhysical);
  const rows: Replication = { phy2log: [], rank: [], logcnt: [] };
  for (let layer = 0; layer < numLayers; layer++) {
    const base = layer * numLogical;
    for (let e = 0; e < numLogical; e++) replicator.weights[e] = data[base + e] as number;
    replicator.replicate();
    rows.phy2log.push(Array.from(replicator.phy2log));
    rows.rank.push(Array.from(replicator.rank));
    rows.logcnt.push(Array.from(replicator.logcnt));
  }
  return rows;
}
