// Replica counts of regions with two slots a GPU. As the best pairs follow from the counts (see
// pairs.ts), a change of the counts can be judged by the heaviest pair it leaves, which moves all
// pairs at once; search.ts, which changes a slot or two, cannot see that far.

import { heaviestPair, isTinyPairs, pairOptimum } from "../pairs.ts";
import type { Region } from "./region.ts";

/** Chooses counts for regions of one size. */
export class PairSearch {
  readonly #region: Region;
  readonly #shares: Float64Array;
  readonly #order: Int32Array;
  readonly #tryAll: boolean;

  /** `effort` is how many choices of counts may be tried to find the best of all. */
  constructor(region: Region, effort: number) {
    this.#region = region;
    this.#tryAll = isTinyPairs(region.numExperts, region.numSlots, effort);
    this.#shares = new Float64Array(region.numSlots);
    this.#order = new Int32Array(region.numSlots);
  }

  /** Improves the region's counts, and pairs its slots anew if that lowers the maximum. */
  run(target: number): void {
    const start = this.#region.maxLoad();
    const lowest = this.#tryAll
      ? this.#best()
      : this.#climb(Math.min(start, this.#heaviest()), target);
    if (lowest < start * (1 - 1e-12)) this.#pair();
    else this.#region.refresh();
  }

  /** The best counts of all. */
  #best(): number {
    const { count, load, numExperts, numSlots } = this.#region;
    const order = Array.from({ length: numExperts }, (_, e) => e);
    order.sort((a, b) => (load[a] as number) - (load[b] as number) || a - b);
    const counts = new Int32Array(numExperts);
    const ascending = Float64Array.from(order, (e) => load[e] as number);
    const lowest = pairOptimum(ascending, numSlots, counts);
    for (const [i, expert] of order.entries()) count[expert] = counts[i] as number;
    return lowest;
  }

  /** Moves one replica at a time, always to an expert of the heaviest pair. */
  #climb(start: number, target: number): number {
    const { count, numExperts, numGpus } = this.#region;
    let lowest = start;
    for (let improved = true; improved && lowest > target; ) {
      improved = false;
      let best: [number, number] | undefined;
      for (const more of this.#criticalExperts()) {
        if ((count[more] as number) >= numGpus) continue;
        for (let less = 0; less < numExperts; less++) {
          if (less === more || (count[less] as number) < 2) continue;
          this.#shift(less, more);
          const heaviest = this.#heaviest();
          this.#shift(more, less);
          if (heaviest >= lowest * (1 - 1e-12)) continue;
          lowest = heaviest;
          best = [less, more];
        }
      }
      if (best === undefined) break;
      this.#shift(...best);
      improved = true;
    }
    return lowest;
  }

  /** One replica of `less` becomes one of `more`. */
  #shift(less: number, more: number): void {
    const { count } = this.#region;
    count[less] = (count[less] as number) - 1;
    count[more] = (count[more] as number) + 1;
  }

  #share(expert: number): number {
    return (this.#region.load[expert] as number) / (this.#region.count[expert] as number);
  }

  #heaviest(): number {
    const { count, numExperts } = this.#region;
    let slot = 0;
    for (let e = 0; e < numExperts; e++) {
      const share = this.#share(e);
      for (let r = count[e] as number; r > 0; r--) this.#shares[slot++] = share;
    }
    return heaviestPair(this.#shares.sort());
  }

  /** Experts of all replicas, ascending by share. */
  #sortReplicas(): Int32Array {
    const { count, numExperts } = this.#region;
    let slot = 0;
    for (let e = 0; e < numExperts; e++) {
      for (let r = count[e] as number; r > 0; r--) this.#order[slot++] = e;
    }
    return this.#order.sort((a, b) => this.#share(a) - this.#share(b) || a - b);
  }

  /** The two experts of the heaviest pair. */
  #criticalExperts(): number[] {
    const order = this.#sortReplicas();
    let critical: [number, number] = [0, 0];
    let heaviest = -1;
    for (let i = 0, j = order.length - 1; i < j; i++, j--) {
      const [light, heavy] = [order[i] as number, order[j] as number];
      const sum = this.#share(light) + this.#share(heavy);
      if (sum <= heaviest) continue;
      heaviest = sum;
      critical = [heavy, light];
    }
    return critical[0] === critical[1] ? [critical[0]] : critical;
  }

  #pair(): void {
    const { slots } = this.#region;
    const order = this.#sortReplicas();
    for (let i = 0, j = order.length - 1; i < j; i++, j--) {
      slots[2 * i] = order[j] as number;
      slots[2 * i + 1] = order[i] as number;
    }
    this.#region.refresh();
  }
}
