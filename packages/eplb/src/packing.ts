// `balanced_packing` of the original: items to packs of equal size, heaviest first, each to the
// lightest pack that has room. All sums are float32, as in the original, because the order of packs
// depends on their last bit. It balances within what equal sizes allow, it does not optimise.

import { InputError } from "@open-infra/errors";
import { ascendingKey, keyIndex, siftDown, sortDescending } from "./order.ts";
import type { LoadRows } from "./placement.ts";
import { loadMatrix, shown } from "./shape.ts";

/** Scratch for packing `numItems` into `numPacks`; made once, used for every row. */
export class Packer {
  readonly numItems: number;
  readonly numPacks: number;
  readonly capacity: number;
  /** Weight of each item, float32; filled by the caller. */
  readonly weights: Float32Array;
  /** Results: the pack of each item, and its place there in order of arrival. */
  readonly packOf: Int32Array;
  readonly rankOf: Int32Array;
  readonly #keys: Float64Array;
  readonly #order: Int32Array;
  readonly #loads: Float32Array;
  readonly #counts: Int32Array;
  readonly #heap: Float64Array;

  /** `numItems` is a multiple of `numPacks`. */
  constructor(numItems: number, numPacks: number) {
    this.numItems = numItems;
    this.numPacks = numPacks;
    this.capacity = numItems / numPacks;
    this.weights = new Float32Array(numItems);
    this.packOf = new Int32Array(numItems);
    this.rankOf = new Int32Array(numItems);
    this.#keys = new Float64Array(numItems);
    this.#order = new Int32Array(numItems);
    this.#loads = new Float32Array(numPacks);
    this.#counts = new Int32Array(numPacks);
    this.#heap = new Float64Array(numPacks);
  }

  /** Packs `weights` into `packOf` and `rankOf`. */
  pack(): void {
    if (this.capacity === 1) {
      // The original does not sort here: item i is pack i.
      for (let i = 0; i < this.numItems; i++) this.packOf[i] = i;
      return; // Every rank stays 0.
    }
    sortDescending(this.weights, this.#keys, this.#order);
    this.#loads.fill(0);
    this.#counts.fill(0);
    this.#fillPacks();
  }

  /** A heap has the lightest pack with room on top; full packs leave it. */
  #fillPacks(): void {
    const { weights, packOf, rankOf, capacity } = this;
    const loads = this.#loads;
    const counts = this.#counts;
    const heap = this.#heap;
    let size = this.numPacks;
    for (let pack = 0; pack < size; pack++) heap[pack] = pack; // The keys of load 0, a heap.
    for (const item of this.#order) {
      const best = keyIndex(heap[0] as number);
      const rank = counts[best] as number;
      packOf[item] = best;
      rankOf[item] = rank;
      counts[best] = rank + 1;
      loads[best] = (loads[best] as number) + (weights[item] as number); // Rounds to float32.
      if (rank + 1 === capacity) heap[0] = heap[--size] as number;
      else heap[0] = ascendingKey(loads[best] as number, best);
      siftDown(heap, size);
    }
  }
}

/** What `balancedPacking` returns: a row a layer, an entry an item. */
export interface Packing {
  /** Pack of each item. */
  readonly packIndex: number[][];
  /** Place of each item in its pack, in order of arrival. */
  readonly rankInPack: number[][];
}

/**
 * `balanced_packing` of the original: packs n weighted items of each row into `numPacks` packs of
 * n ÷ numPacks items so that their sums are close. Heaviest item first, each to the lightest pack
 * with room, the first on ties; with one item a pack, item i is pack i.
 *
 * @throws InputError if `numPacks` does not divide the items, or for unusable weights.
 */
export function balancedPacking(weight: LoadRows, numPacks: number): Packing {
  const { numLayers, numLogical, data } = loadMatrix(weight);
  if (!Number.isSafeInteger(numPacks) || numPacks < 1 || numLogical % numPacks !== 0) {
    throw new InputError("numPacks", shown(numPacks), `a divisor of the ${numLogical} items`);
  }
  const packer = new Packer(numLogical, numPacks);
  const packIndex: number[][] = [];
  const rankInPack: number[][] = [];
  for (let layer = 0; layer < numLayers; layer++) {
    const base = layer * numLogical;
    for (let i = 0; i < numLogical; i++) packer.weights[i] = data[base + i] as number;
    packer.pack();
    packIndex.push(Array.from(packer.packOf));
    rankInPack.push(Array.from(packer.rankOf));
  }
  return { packIndex, rankInPack };
}
