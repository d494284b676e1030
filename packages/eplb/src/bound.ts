// Lower bounds on the maximum load of a GPU: numbers that no placement can beat, so that a gap of 0
// says "optimal" and a small one says "leave it". Proven, not estimated; a test compares them with
// brute force. They hold for every placement, those with two replicas of an expert on a GPU too.
//
// A region is a set of experts with R slots on g GPUs of S = R ÷ g slots each. A maximum of T is
// possible only if all of these hold:
// 1. Mean: T ≥ total load ÷ g.
// 2. Heavy replicas: whoever holds a replica of expert e also holds S − 1 others, which weigh at
//    least `fill` together. So every replica of e weighs at most T − fill, which takes at least
//    need(e) = ⌈load(e) ÷ (T − fill)⌉ of them. Σ need ≤ R; slots beyond that (`spare`) are all
//    there is to make light replicas lighter, which in turn bounds `fill` from below.
// 3. Crowding: a GPU has room for at most k − 1 replicas heavier than T ÷ k. Making an expert's
//    replicas lighter than that costs spare slots; the best use of them is bounded by the
//    fractional knapsack.
// A T that fails proves that every lower T fails too; bisection looks for the largest. Tiny regions
// of two slots a GPU are solved instead.
//
// With the node limit a placement is a partition of the groups into nodes, each node a region; the
// bound is the best partition's worst region, if the partitions are few enough to list. Otherwise
// the bound of the whole cluster as one region holds as well.

import { isTinyPairs, pairOptimum } from "./pairs.ts";
import { groupPartitions, type Partitions } from "./partitions.ts";
import type { EplbShape } from "./placement.ts";

/** Bisection steps: the interval shrinks by 2^40. */
const bisections = 40;
/** Rounding in the conditions must never make a possible T fail. */
const safety = 1 - 1e-12;
/** Choices of counts that may be tried for the optimum of a layer of tiny regions. */
const pairChoices = 8000;
/** Crowding is worth its time only when GPUs have few slots. */
const maxCrowdSlots = 6;

/** Bounds regions of one size: experts, slots and GPUs. */
export class RegionBound {
  readonly #numExperts: number;
  readonly #numGpus: number;
  readonly #perGpu: number;
  readonly #spare: number;
  /** Loads of the region, ascending. */
  readonly #sorted: Float64Array;
  readonly #needs: Int32Array;
  /** Crowding: replicas an expert's spare slots lighten, and how many slots that takes. */
  readonly #gain: Float64Array;
  readonly #cost: Float64Array;
  readonly #ratio: Float64Array;

  readonly #tryAllPairs: boolean;

  /** `effort` is how many choices of counts may be tried, where trying all gives the optimum. */
  constructor(numExperts: number, numSlots: number, numGpus: number, effort = 0) {
    const isPairs = numSlots === 2 * numGpus;
    this.#tryAllPairs = isPairs && isTinyPairs(numExperts, numSlots, effort);
    this.#numExperts = numExperts;
    this.#numGpus = numGpus;
    this.#perGpu = numSlots / numGpus;
    this.#spare = numSlots - numExperts;
    this.#sorted = new Float64Array(numExperts);
    this.#needs = new Int32Array(numExperts);
    this.#gain = new Float64Array(numExperts);
    this.#cost = new Float64Array(numExperts);
    this.#ratio = new Float64Array(numExperts);
  }

  /** No placement of experts of these loads in the region has a lower maximum. */
  of(loads: Float64Array): number {
    const sorted = this.#sorted;
    sorted.set(loads);
    sorted.sort();
    let total = 0;
    for (const load of sorted) total += load;
    const mean = total / this.#numGpus;
    if (total === 0) return 0;
    if (this.#tryAllPairs) return pairOptimum(sorted, this.#perGpu * this.#numGpus);
    if (this.#possible(mean)) return mean;
    // One replica of the heaviest beside the S − 1 heaviest others is surely possible for each GPU.
    let fails = mean;
    let passes = (sorted[sorted.length - 1] as number) * this.#perGpu;
    for (let step = 0; step < bisections && passes > fails; step++) {
      const middle = (fails + passes) / 2;
      if (this.#possible(middle)) passes = middle;
      else fails = middle;
    }
    return fails * safety;
  }

  /** False only if no placement has a maximum of `limit`. */
  #possible(limit: number): boolean {
    let fill = this.#fill(this.#spare, 0);
    for (;;) {
      const spare = this.#takeNeeds(limit, fill);
      if (spare < 0) return false;
      const better = this.#fill(spare, this.#numNeedy);
      if (better <= fill) return this.#roomForHeavy(limit, spare);
      fill = better;
    }
  }

  /** Experts whose need is above 1: the last ones of the ascending order. */
  #numNeedy = 0;

  /** Computes all needs; returns the slots to spare, or −1 if there are too few. */
  #takeNeeds(limit: number, fill: number): number {
    const heaviest = limit - fill;
    const sorted = this.#sorted;
    this.#needs.fill(1);
    this.#numNeedy = 0;
    let spare = this.#spare;
    for (let i = this.#numExperts - 1; i >= 0; i--) {
      const load = sorted[i] as number;
      if (load * safety <= heaviest) break;
      if (heaviest <= 0) return -1;
      const need = Math.max(1, Math.ceil((load / heaviest) * safety - 1e-9));
      this.#needs[i] = need;
      if (need > 1) this.#numNeedy++;
      spare -= need - 1;
      if (spare < 0) return -1;
    }
    return spare;
  }

  /**
   * At least what any S − 1 replicas weigh together, if `spare` slots can go to any expert and the
   * `needy` heaviest experts have their needs. Take k of the S − 1 from experts made lighter by
   * spare slots: there are at most 2·spare such replicas, none below lightest ÷ (1 + spare). The
   * others are of different experts at full load.
   */
  #fill(spare: number, needy: number): number {
    const others = this.#perGpu - 1;
    if (others === 0) return 0;
    const sorted = this.#sorted;
    const light = this.#numExperts - needy;
    let lightestNeedy = Number.POSITIVE_INFINITY;
    for (let i = light; i < this.#numExperts; i++) {
      const share = (sorted[i] as number) / ((this.#needs[i] as number) + spare);
      lightestNeedy = Math.min(lightestNeedy, share);
    }
    const diluted = light > 0 ? (sorted[0] as number) / (1 + spare) : lightestNeedy;
    // Needy experts' replicas matter only if they are lighter than the S − 1 lightest experts.
    if (light < others || lightestNeedy < (sorted[others - 1] as number)) {
      return others * Math.min(diluted, lightestNeedy);
    }
    const fromDiluted = Math.min(others, 2 * spare);
    let sum = fromDiluted * diluted;
    for (let i = 0; i < others - fromDiluted; i++) sum += sorted[i] as number;
    return sum; // More diluted ones are never heavier, so the most is the least.
  }

  #roomForHeavy(limit: number, spare: number): boolean {
    if (this.#perGpu > maxCrowdSlots) return true;
    for (let k = 2; k <= this.#perGpu; k++) {
      if (this.#heavyReplicas(limit / safety / k, spare) > (k - 1) * this.#numGpus + 1e-6) {
        return false;
      }
    }
    return true;
  }

  /** At least how many replicas are heavier than `weight`, whatever the spare slots do. */
  #heavyReplicas(weight: number, spare: number): number {
    let heavy = 0;
    let candidates = 0;
    for (let i = this.#numExperts - 1; i >= 0; i--) {
      const load = this.#sorted[i] as number;
      if (load <= weight) break;
      const need = this.#needs[i] as number;
      if (load / need <= weight) continue;
      heavy += need;
      this.#gain[candidates] = need;
      this.#cost[candidates] = Math.max(1, Math.ceil(load / weight - 1e-9) - need);
      candidates++;
    }
    return heavy - this.#lightened(candidates, spare);
  }

  /** The fractional knapsack: most replicas that `spare` slots can lighten. */
  #lightened(candidates: number, spare: number): number {
    const ratio = this.#ratio.subarray(0, candidates);
    for (let i = 0; i < candidates; i++) {
      ratio[i] = (this.#gain[i] as number) / (this.#cost[i] as number);
    }
    let gained = 0;
    let left = spare;
    while (left > 0) {
      let best = -1;
      for (let i = 0; i < candidates; i++) {
        if ((ratio[i] as number) > (best < 0 ? 0 : (ratio[best] as number))) best = i;
      }
      if (best < 0) break;
      const taken = Math.min(left, this.#cost[best] as number);
      gained += taken * (ratio[best] as number);
      left -= taken;
      ratio[best] = 0;
    }
    return gained;
  }
}

/** Lower bounds of layers of one shape. */
export class LayerBounds {
  /** Choices of counts that may be tried for each region. */
  readonly pairEffort: number;
  readonly #whole: RegionBound;
  readonly #node: RegionBound | undefined;
  readonly #partitions: Partitions | undefined;
  readonly #groupSize: number;
  readonly #nodeLoads: Float64Array;
  readonly #bySubset: Float64Array;

  /** With `nodeLimit`, bounds speak of placements that keep every group on one node. */
  constructor(numLogical: number, shape: EplbShape, nodeLimit: boolean) {
    const { numReplicas, numGroups, numNodes, numGpus } = shape;
    const limited = nodeLimit && numNodes > 1;
    this.#partitions = limited ? groupPartitions(numGroups, numNodes) : undefined;
    const subsets = this.#partitions?.subsets.length ?? 1;
    this.pairEffort = Math.floor(pairChoices / subsets);
    const effort = limited ? 0 : this.pairEffort; // The nodes' bounds are the better ones.
    this.#whole = new RegionBound(numLogical, numReplicas, numGpus, effort);
    this.#node = limited
      ? new RegionBound(
          numLogical / numNodes,
          numReplicas / numNodes,
          numGpus / numNodes,
          this.pairEffort,
        )
      : undefined;
    this.#groupSize = numLogical / numGroups;
    this.#nodeLoads = new Float64Array(limited ? numLogical / numNodes : 0);
    this.#bySubset = new Float64Array(this.#partitions?.subsets.length ?? 0);
  }

  /** The bound of a layer of these loads. */
  lowerBound(loads: Float64Array): number {
    const whole = this.#whole.of(loads);
    const partitions = this.#partitions;
    if (partitions === undefined) return whole;
    const bySubset = this.subsetBounds(loads);
    let best = Number.POSITIVE_INFINITY;
    for (const partition of partitions.partitions) {
      let worst = 0;
      for (const subset of partition) worst = Math.max(worst, bySubset[subset] as number);
      best = Math.min(best, worst);
    }
    return Math.max(whole, best);
  }

  /** The bound of a node for every subset of groups it can hold, in the order of the partitions. */
  subsetBounds(loads: Float64Array): Float64Array {
    const size = this.#groupSize;
    for (const [i, subset] of (this.#partitions?.subsets ?? []).entries()) {
      for (const [k, group] of subset.entries()) {
        this.#nodeLoads.set(loads.subarray(group * size, (group + 1) * size), k * size);
      }
      this.#bySubset[i] = (this.#node as RegionBound).of(this.#nodeLoads);
    }
    return this.#bySubset;
  }
}
