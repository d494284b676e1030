// Split points: which partition a record belongs to, by whole records found from a sample. Whole
// records, not keys, so that a key that is more than a partition's worth is cut, too; the original
// takes the key's top bits and so needs uniform keys.

import { compareRecords, gatherRecords, recordOrder } from "./order.ts";
import { recordBytes } from "./records.ts";

/** Partitions − 1 records of a sample, equally far from each other in its order. */
export function choosePoints(sample: Uint8Array, partitions: number): Uint8Array {
  const count = sample.length / recordBytes;
  const order = recordOrder(sample);
  const chosen = new Uint32Array(partitions - 1);
  for (let i = 1; i < partitions; i++) {
    chosen[i - 1] = order[Math.min(count - 1, Math.floor((i * count) / partitions))] as number;
  }
  const points = new Uint8Array(chosen.length * recordBytes);
  if (count > 0) gatherRecords(sample, chosen, 0, points);
  return count > 0 ? points : new Uint8Array(0);
}

/** Says where records go. */
export class SplitPoints {
  readonly #points: Uint8Array;
  readonly #count: number;
  /** By a record's first two bytes: how many points are surely before it, */
  readonly #before: Uint32Array = new Uint32Array(65_536);
  /** and how many may be. */
  readonly #upTo: Uint32Array = new Uint32Array(65_536);

  /** @param points Records in order. */
  constructor(points: Uint8Array) {
    this.#points = points;
    this.#count = points.length / recordBytes;
    let [less, notMore] = [0, 0];
    for (let prefix = 0; prefix < 65_536; prefix++) {
      while (less < this.#count && this.#prefix(less) < prefix) less++;
      while (notMore < this.#count && this.#prefix(notMore) <= prefix) notMore++;
      this.#before[prefix] = less;
      this.#upTo[prefix] = notMore;
    }
  }

  #prefix(i: number): number {
    const at = i * recordBytes;
    return ((this.#points[at] as number) << 8) | (this.#points[at + 1] as number);
  }

  /** How many points are not after a record. */
  partitionOf(records: Uint8Array, at: number): number {
    const prefix = ((records[at] as number) << 8) | (records[at + 1] as number);
    let low = this.#before[prefix] as number;
    let high = this.#upTo[prefix] as number;
    while (low < high) {
      const middle = (low + high) >> 1;
      const order = compareRecords(this.#points, middle * recordBytes, records, at, 2);
      if (order <= 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
