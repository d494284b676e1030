// Local search that counts what it moves: from the placement in use to one whose GPUs are all below
// a target, with few slots that need a copy from another GPU. It knows the same changes as
// search.ts, but ranks them by the load above the target that they remove for each slot they move.
// At the end it takes back moves that turned out not to be needed.

import { movedInGpu } from "../moves.ts";
import type { Region } from "./region.ts";

/** A point on the way: slots moved so far, and the highest load then. */
export interface PathPoint {
  readonly moved: number;
  readonly maxLoad: number;
}

/** How changes that remove excess are ranked against what they cost. */
export interface Taste {
  /** Exponent of the cost: 0 ignores it, 1 asks for most excess a slot. */
  readonly costPower: number;
  /** False allows swaps only. */
  readonly recount: boolean;
}

/** Changes must win more than rounding. */
const least = 1 - 1e-12;

/** Migrates regions of one size. */
export class MigrationSearch {
  readonly #region: Region;
  /** The placement in use, and what each GPU held then. */
  readonly #home: Int32Array;
  readonly #homeHeld: Uint16Array;
  readonly #balance: Int32Array;
  #target = 0;
  #heaviest = 0;
  #room = 0;
  #taste: Taste = { costPower: 1, recount: true };
  #score = 0;
  #worst = 0;
  #slot = -1;
  #other = -1;
  #isSwap = false;
  /** GPUs of each expert: those of expert e from holderStart[e] to holderStart[e + 1]. */
  readonly #holderStart: Int32Array;
  readonly #holders: Int32Array;
  readonly #seen: Int32Array;
  #judgedWorst = 0;
  #judgedRemoved = 0;

  constructor(region: Region) {
    this.#region = region;
    this.#home = new Int32Array(region.numSlots);
    this.#homeHeld = new Uint16Array(region.held.length);
    this.#balance = new Int32Array(region.numExperts);
    this.#holderStart = new Int32Array(region.numExperts + 1);
    this.#holders = new Int32Array(region.numSlots);
    this.#seen = new Int32Array(region.numExperts);
  }

  /** Takes the region's placement as the one in use. Slots of −1 were empty. */
  setHome(slots: Int32Array): void {
    const { numGpus, perGpu } = this.#region;
    this.#home.set(slots);
    this.#homeHeld.fill(0);
    for (let slot = 0; slot < slots.length; slot++) {
      if ((slots[slot] as number) < 0) continue;
      const at = (slots[slot] as number) * numGpus + Math.floor(slot / perGpu);
      this.#homeHeld[at] = (this.#homeHeld[at] as number) + 1;
    }
  }

  /** Slots of the region that need a copy from another GPU. */
  moved(): number {
    const { slots, perGpu } = this.#region;
    let moved = 0;
    for (let at = 0; at < slots.length; at += perGpu) {
      const before = this.#home.subarray(at, at + perGpu);
      moved += movedInGpu(before, slots.subarray(at, at + perGpu), this.#balance);
    }
    return moved;
  }

  /**
   * Changes the region until no GPU is above `target`, no change helps, or the next one would move
   * more than `cap` slots. Returns the way, its start first.
   */
  run(target: number, cap: number, taste: Taste): PathPoint[] {
    const region = this.#region;
    this.#target = target;
    this.#taste = taste;
    let moved = this.moved();
    const path: PathPoint[] = [{ moved, maxLoad: region.maxLoad() }];
    for (;;) {
      this.#heaviest = region.heaviestGpu();
      if ((region.gpuLoad[this.#heaviest] as number) <= target) break;
      this.#room = cap - moved;
      if (!this.#findChange()) break;
      const cost = this.#isSwap
        ? this.#swapCost(this.#slot, this.#other)
        : this.#replaceCost(this.#slot, this.#other);
      if (this.#isSwap) region.swap(this.#slot, this.#other);
      else region.replace(this.#slot, this.#other);
      moved += cost;
      path.push({ moved, maxLoad: region.maxLoad() });
    }
    region.sumLoads();
    return path;
  }

  /** Takes back moves while every GPU stays at most at `limit`. */
  goHome(limit: number): void {
    const { slots, gpuLoad, numSlots, numGpus, perGpu, held, share } = this.#region;
    for (let again = true; again; ) {
      again = false;
      for (let slot = 0; slot < numSlots; slot++) {
        const gpu = Math.floor(slot / perGpu);
        const a = slots[slot] as number;
        const at = a * numGpus + gpu;
        if ((held[at] as number) <= (this.#homeHeld[at] as number)) continue;
        for (let other = 0; other < numSlots; other++) {
          const b = slots[other] as number;
          const gpuB = Math.floor(other / perGpu);
          if (gpuB === gpu || a === b || this.#swapCost(slot, other) >= 0) continue;
          if (this.#region.holds(a, gpuB) || this.#region.holds(b, gpu)) continue;
          const change = (share[a] as number) - (share[b] as number);
          const loadA = (gpuLoad[gpu] as number) - change;
          if (Math.max(loadA, (gpuLoad[gpuB] as number) + change) > limit) continue;
          this.#region.swap(slot, other);
          again = true;
          break;
        }
      }
      if (this.#dropReplacements(limit)) again = true;
    }
    this.#region.sumLoads();
  }

  /** Puts the expert a GPU has lost back into a slot that was moved, if all stays below `limit`. */
  #dropReplacements(limit: number): boolean {
    const region = this.#region;
    const { slots, perGpu, count } = region;
    let dropped = false;
    this.#listHolders();
    for (let slot = 0; slot < slots.length; slot++) {
      const now = slots[slot] as number;
      if ((count[now] as number) < 2) continue;
      const first = Math.floor(slot / perGpu) * perGpu;
      for (let i = first; i < first + perGpu; i++) {
        const lost = this.#home[i] as number;
        if (lost < 0 || lost === now || this.#replaceCost(slot, lost) >= 0) continue;
        if (!this.#judge(slot, lost, limit)) continue;
        region.replace(slot, lost);
        this.#listHolders();
        dropped = true;
        break;
      }
    }
    return dropped;
  }

  /** Lists who holds what, for `judge`; a change makes it stale. */
  #listHolders(): void {
    const { slots, perGpu, numGpus } = this.#region;
    const start = this.#holderStart.fill(0);
    const seen = this.#seen.fill(-1);
    for (let slot = 0; slot < slots.length; slot++) {
      const expert = slots[slot] as number;
      const gpu = Math.floor(slot / perGpu);
      if (seen[expert] === gpu) continue; // Held twice, listed once.
      seen[expert] = gpu;
      start[expert + 1] = (start[expert + 1] as number) + 1;
    }
    for (let e = 1; e < start.length; e++) {
      start[e] = (start[e] as number) + (start[e - 1] as number);
    }
    // From the last slot to the first, each list is filled from its end.
    seen.set(start.subarray(1));
    for (let gpu = numGpus - 1; gpu >= 0; gpu--) {
      for (let slot = (gpu + 1) * perGpu - 1; slot >= gpu * perGpu; slot--) {
        const expert = slots[slot] as number;
        const latest = seen[expert] as number;
        const isListed = latest < (start[expert + 1] as number) && this.#holders[latest] === gpu;
        if (isListed) continue;
        const at = latest - 1;
        this.#holders[at] = gpu;
        seen[expert] = at;
      }
    }
  }

  #findChange(): boolean {
    this.#score = 0;
    this.#worst = Number.POSITIVE_INFINITY;
    this.#slot = -1;
    this.#findSwap();
    if (this.#taste.recount) this.#findReplacements();
    return this.#slot >= 0;
  }

  #excess(load: number): number {
    return load > this.#target ? load - this.#target : 0;
  }

  /** One slot more or less that is not where it was. */
  #arrivalCost(expert: number, gpu: number): number {
    const at = expert * this.#region.numGpus + gpu;
    return (this.#region.held[at] as number) >= (this.#homeHeld[at] as number) ? 1 : 0;
  }

  #departureGain(expert: number, gpu: number): number {
    const at = expert * this.#region.numGpus + gpu;
    return (this.#region.held[at] as number) > (this.#homeHeld[at] as number) ? 1 : 0;
  }

  #swapCost(slotA: number, slotB: number): number {
    const { slots, perGpu } = this.#region;
    const [a, b] = [slots[slotA] as number, slots[slotB] as number];
    const [gpuA, gpuB] = [Math.floor(slotA / perGpu), Math.floor(slotB / perGpu)];
    const arrivals = this.#arrivalCost(a, gpuB) + this.#arrivalCost(b, gpuA);
    return arrivals - this.#departureGain(a, gpuA) - this.#departureGain(b, gpuB);
  }

  #replaceCost(slot: number, expert: number): number {
    const gpu = Math.floor(slot / this.#region.perGpu);
    const old = this.#region.slots[slot] as number;
    return this.#arrivalCost(expert, gpu) - this.#departureGain(old, gpu);
  }

  #offer(isSwap: boolean, slot: number, other: number, removed: number, worst: number): void {
    if (removed <= 0) return;
    const cost = isSwap ? this.#swapCost(slot, other) : this.#replaceCost(slot, other);
    if (cost > this.#room) return;
    const score = cost > 0 ? removed / cost ** this.#taste.costPower : removed * 4;
    const equal = score >= this.#score * least;
    if (!equal || (score <= this.#score / least && worst >= this.#worst)) return;
    this.#score = score;
    this.#worst = worst;
    this.#isSwap = isSwap;
    this.#slot = slot;
    this.#other = other;
  }

  #findSwap(): void {
    const { gpuLoad, slots, share, held, numGpus, perGpu } = this.#region;
    const heaviest = this.#heaviest;
    const loadH = gpuLoad[heaviest] as number;
    const limit = loadH * least;
    for (let gpu = 0; gpu < numGpus; gpu++) {
      const load = gpuLoad[gpu] as number;
      if (gpu === heaviest || load >= limit) continue;
      const before = this.#excess(loadH) + this.#excess(load);
      for (let slot = heaviest * perGpu; slot < (heaviest + 1) * perGpu; slot++) {
        const a = slots[slot] as number;
        if ((held[a * numGpus + gpu] as number) > 0) continue;
        for (let other = gpu * perGpu; other < (gpu + 1) * perGpu; other++) {
          const b = slots[other] as number;
          const change = (share[a] as number) - (share[b] as number);
          const worst = Math.max(loadH - change, load + change);
          if (change <= 0 || worst >= limit) continue;
          if ((held[b * numGpus + heaviest] as number) > 0) continue;
          const after = this.#excess(loadH - change) + this.#excess(load + change);
          this.#offer(true, slot, other, before - after, worst);
        }
      }
    }
  }

  /** A replica less of one expert and more of another, of which the heaviest GPU holds one. */
  #findReplacements(): void {
    const { slots, count, perGpu, numGpus, numExperts, gpuLoad } = this.#region;
    const heaviest = this.#heaviest;
    const limit = (gpuLoad[heaviest] as number) * least;
    const first = heaviest * perGpu;
    this.#listHolders();
    for (let slot = 0; slot < slots.length; slot++) {
      if ((count[slots[slot] as number] as number) < 2) continue;
      const gpu = Math.floor(slot / perGpu);
      const candidates = gpu === heaviest ? numExperts : perGpu;
      for (let i = 0; i < candidates; i++) {
        const expert = gpu === heaviest ? i : (slots[first + i] as number);
        if ((count[expert] as number) >= numGpus || expert === slots[slot]) continue;
        if (this.#region.holds(expert, gpu)) continue;
        if (!this.#judge(slot, expert, limit)) continue;
        this.#offer(false, slot, expert, this.#judgedRemoved, this.#judgedWorst);
      }
    }
  }

  /**
   * Judges giving `slot` to `expert`: the highest load of a GPU it touches, and the excess it
   * removes. Stops with false at the first GPU above `limit`.
   */
  #judge(slot: number, expert: number, limit: number): boolean {
    const { gpuLoad, slots, share, load, count, held, numGpus, perGpu } = this.#region;
    const old = slots[slot] as number;
    const own = Math.floor(slot / perGpu);
    const oldShare = (load[old] as number) / ((count[old] as number) - 1);
    const newShare = (load[expert] as number) / ((count[expert] as number) + 1);
    const rise = oldShare - (share[old] as number);
    const fall = newShare - (share[expert] as number);
    let worst = 0;
    let removed = 0;
    for (
      let i = this.#holderStart[old] as number;
      i < (this.#holderStart[old + 1] as number);
      i++
    ) {
      const gpu = this.#holders[i] as number;
      const before = gpuLoad[gpu] as number;
      const oldCopies = held[old * numGpus + gpu] as number;
      const newCopies = held[expert * numGpus + gpu] as number;
      let after = before + oldCopies * rise + newCopies * fall;
      if (gpu === own) after += newShare - oldShare;
      if (after > limit) return false;
      if (after > worst) worst = after;
      removed += this.#excess(before) - this.#excess(after);
    }
    const end = this.#holderStart[expert + 1] as number;
    for (let i = this.#holderStart[expert] as number; i < end; i++) {
      const gpu = this.#holders[i] as number;
      if ((held[old * numGpus + gpu] as number) > 0) continue; // Counted above.
      const before = gpuLoad[gpu] as number;
      const after = before + (held[expert * numGpus + gpu] as number) * fall;
      if (after > limit) return false;
      if (after > worst) worst = after;
      removed += this.#excess(before) - this.#excess(after);
    }
    this.#judgedWorst = worst;
    this.#judgedRemoved = removed;
    return true;
  }
}
