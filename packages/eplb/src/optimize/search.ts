// Local search: while some GPU is too heavy, make the best change that leaves every GPU it touches
// lighter than the heaviest one was. Changes are a swap of two slots, or one replica of an expert
// less and one of another more in its place. Every change makes the sorted list of loads smaller,
// so the search ends. Where it ends too high, it is kicked (a few random changes) and tried again,
// a fixed number of times from a fixed seed: the result depends on the input alone.

import type { Region } from "./region.ts";

/** A change, and the highest load it leaves on a GPU that it touches. */
export interface Change {
  /** `swap`: slot and other are slots. `replace`: slot gets expert `other`. */
  kind: "none" | "swap" | "replace";
  slot: number;
  other: number;
  worst: number;
}

/** What the search may do. */
export interface SearchLimits {
  /** The search ends once no GPU is heavier. */
  readonly target: number;
  /** How often it is kicked. */
  readonly kicks: number;
}

/** Changes must win more than rounding. */
const least = 1 - 1e-12;

/** Searches regions of one size. */
export class Search {
  readonly #region: Region;
  readonly #best: Change = { kind: "none", slot: -1, other: -1, worst: 0 };
  readonly #bestSlots: Int32Array;
  /** No change may put an expert twice on a GPU; false where there are too few experts for that. */
  readonly #tidy: boolean;
  #random = 0;

  constructor(region: Region) {
    this.#region = region;
    this.#tidy = region.canAvoidDuplicates;
    this.#bestSlots = new Int32Array(region.numSlots);
  }

  /** Lowers the region's maximum load as far as it can; never raises it. */
  run({ target, kicks }: SearchLimits): void {
    const region = this.#region;
    this.#random = 0x9e3779b9;
    this.descend(target);
    let lowest = region.maxLoad();
    if (lowest <= target) return;
    this.#bestSlots.set(region.slots);
    for (let kick = 0; kick < kicks && lowest > target; kick++) {
      this.#kick(1 + (kick % 3));
      this.descend(target);
      const reached = region.maxLoad();
      if (reached < lowest * least) {
        lowest = reached;
        this.#bestSlots.set(region.slots);
      } else if (reached > lowest * 1.02 || kick % 4 === 3) {
        region.assign(this.#bestSlots);
      }
    }
    region.assign(this.#bestSlots);
  }

  /** Best changes one after another, until the target is met or none is left. */
  descend(target: number): void {
    const region = this.#region;
    for (let step = 1; ; step++) {
      const heaviest = region.heaviestGpu();
      if ((region.gpuLoad[heaviest] as number) <= target) return;
      const change = this.bestChange(heaviest, target);
      if (change.kind === "none") return;
      this.apply(change);
      if (step % 64 === 0) region.sumLoads();
    }
  }

  apply(change: Change): void {
    if (change.kind === "swap") this.#region.swap(change.slot, change.other);
    else this.#region.replace(change.slot, change.other);
  }

  /** The change that leaves the least on what it touches; kind `none` if all leave too much. */
  bestChange(heaviest: number, target: number): Change {
    const best = this.#best;
    best.kind = "none";
    best.worst = (this.#region.gpuLoad[heaviest] as number) * least;
    this.#findSwap(heaviest);
    if (best.kind === "none" || best.worst > Math.max(target, this.#secondLoad(heaviest))) {
      this.#findRelief(heaviest);
      this.#findReplacement(heaviest);
    }
    return best;
  }

  #secondLoad(heaviest: number): number {
    const { gpuLoad } = this.#region;
    let second = 0;
    for (let gpu = 0; gpu < gpuLoad.length; gpu++) {
      if (gpu !== heaviest && (gpuLoad[gpu] as number) > second) second = gpuLoad[gpu] as number;
    }
    return second;
  }

  #take(kind: Change["kind"], slot: number, other: number, worst: number): void {
    const best = this.#best;
    best.kind = kind;
    best.slot = slot;
    best.other = other;
    best.worst = worst;
  }

  #findSwap(heaviest: number): void {
    const { gpuLoad, slots, share, held, numGpus, perGpu } = this.#region;
    const best = this.#best;
    const tidy = this.#tidy;
    const loadH = gpuLoad[heaviest] as number;
    const first = heaviest * perGpu;
    for (let gpu = 0; gpu < numGpus; gpu++) {
      const load = gpuLoad[gpu] as number;
      if (gpu === heaviest || (load + loadH) / 2 >= best.worst) continue;
      for (let slot = first; slot < first + perGpu; slot++) {
        const a = slots[slot] as number;
        const shareA = share[a] as number;
        if (tidy && (held[a * numGpus + gpu] as number) > 0) continue;
        for (let other = gpu * perGpu; other < (gpu + 1) * perGpu; other++) {
          const b = slots[other] as number;
          const difference = shareA - (share[b] as number);
          const worst = Math.max(loadH - difference, load + difference);
          if (worst >= best.worst) continue;
          if (tidy && (held[b * numGpus + heaviest] as number) > 0) continue;
          this.#take("swap", slot, other, worst);
        }
      }
    }
  }

  /**
   * One replica more of an expert of the heaviest GPU, in the place of another's on another GPU.
   */
  #findRelief(heaviest: number): void {
    const { slots, count, perGpu, numGpus } = this.#region;
    for (let slot = 0; slot < slots.length; slot++) {
      if ((count[slots[slot] as number] as number) < 2) continue;
      const gpu = Math.floor(slot / perGpu);
      if (gpu === heaviest) continue;
      for (let i = heaviest * perGpu; i < (heaviest + 1) * perGpu; i++) {
        const expert = slots[i] as number;
        if (this.#tidy && (count[expert] as number) >= numGpus) continue;
        this.#tryReplace(slot, expert, heaviest);
      }
    }
  }

  /** A replica of the heaviest GPU gives its place to one of any other expert. */
  #findReplacement(heaviest: number): void {
    const { slots, count, perGpu, numExperts } = this.#region;
    for (let slot = heaviest * perGpu; slot < (heaviest + 1) * perGpu; slot++) {
      if ((count[slots[slot] as number] as number) < 2) continue;
      for (let expert = 0; expert < numExperts; expert++) {
        this.#tryReplace(slot, expert, heaviest);
      }
    }
  }

  /** Takes the replacement if it leaves less than the best so far. */
  #tryReplace(slot: number, expert: number, heaviest: number): void {
    const { gpuLoad, slots, share, load, count, held, numGpus, perGpu } = this.#region;
    const limit = this.#best.worst;
    const old = slots[slot] as number;
    const gpu = Math.floor(slot / perGpu);
    const newCopies = held[expert * numGpus + gpu] as number;
    if (expert === old || (this.#tidy && newCopies > 0)) return;
    const oldShare = share[old] as number;
    const rise = (load[old] as number) / ((count[old] as number) - 1) - oldShare;
    const newShare = (load[expert] as number) / ((count[expert] as number) + 1);
    const fall = (share[expert] as number) - newShare;
    let worst = (gpuLoad[gpu] as number) - oldShare + newShare - newCopies * fall;
    const oldCopies = held[old * numGpus + gpu] as number;
    if (oldCopies > 1) worst += (oldCopies - 1) * rise;
    if (worst >= limit) return;
    const fallH = fall * (held[expert * numGpus + heaviest] as number);
    if (heaviest !== gpu) worst = Math.max(worst, (gpuLoad[heaviest] as number) - fallH);
    for (let other = 0; other < numGpus && worst < limit; other++) {
      const copies = held[old * numGpus + other] as number;
      if (copies === 0 || other === gpu) continue;
      const lighter = fall * (held[expert * numGpus + other] as number);
      worst = Math.max(worst, (gpuLoad[other] as number) + copies * rise - lighter);
    }
    if (worst < limit) this.#take("replace", slot, expert, worst);
  }

  /** A number in [0, range), from a fixed sequence (xorshift32). */
  #draw(range: number): number {
    let x = this.#random;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#random = x;
    return (x >>> 0) % range;
  }

  /** Random legal changes, of which the first touches the heaviest GPU. */
  #kick(changes: number): void {
    const region = this.#region;
    const { slots, perGpu, numSlots, numExperts, count } = region;
    for (let i = 0, tries = 0; i < changes && tries < 40; tries++) {
      const gpu = i === 0 ? region.heaviestGpu() : this.#draw(region.numGpus);
      const slot = gpu * perGpu + this.#draw(perGpu);
      const expert = slots[slot] as number;
      if (this.#draw(2) === 0 && (count[expert] as number) > 1) {
        const next = this.#draw(numExperts);
        if (next === expert || (this.#tidy && region.holds(next, gpu))) continue;
        region.replace(slot, next);
      } else {
        const other = this.#draw(numSlots);
        const otherGpu = Math.floor(other / perGpu);
        const otherExpert = slots[other] as number;
        if (otherGpu === gpu || otherExpert === expert) continue;
        const doubles = region.holds(expert, otherGpu) || region.holds(otherExpert, gpu);
        if (this.#tidy && doubles) continue;
        region.swap(slot, other);
      }
      i++;
    }
  }
}
