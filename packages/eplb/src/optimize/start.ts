// Where the search starts: the counts of least maximum replica load, and the heaviest replica first
// to the lightest GPU that has room and not this expert yet. If that paints itself into a corner,
// replicas are dealt round the GPUs, which never puts an expert twice on one while there are no
// more replicas of it than GPUs.

import type { Region } from "./region.ts";

/** Fills regions of one size. */
export class Starter {
  readonly #region: Region;
  readonly #order: Int32Array;
  readonly #room: Int32Array;

  constructor(region: Region) {
    this.#region = region;
    this.#order = new Int32Array(region.numExperts);
    this.#room = new Int32Array(region.numGpus);
  }

  /** Places the region's experts from nothing, without duplicates if that is possible. */
  place(): void {
    const region = this.#region;
    this.#count();
    for (let e = 0; e < region.numExperts; e++) this.#order[e] = e;
    const share = region.share;
    this.#order.sort((a, b) => (share[b] as number) - (share[a] as number) || a - b);
    if (!this.#lightestFirst()) this.#dealRound();
    region.refresh();
  }

  /** Extra slots to the heaviest replica; no expert gets more than GPUs while that is possible. */
  #count(): void {
    const { load, count, share, numExperts, numGpus, numSlots, canAvoidDuplicates } = this.#region;
    count.fill(1);
    share.set(load);
    const most = canAvoidDuplicates ? numGpus : numSlots;
    for (let extra = numSlots - numExperts; extra > 0; extra--) {
      let best = -1;
      for (let e = 0; e < numExperts; e++) {
        if ((count[e] as number) >= most) continue;
        if (best < 0 || (share[e] as number) > (share[best] as number)) best = e;
      }
      count[best] = (count[best] as number) + 1;
      share[best] = (load[best] as number) / (count[best] as number);
    }
  }

  #lightestFirst(): boolean {
    const { slots, count, share, gpuLoad, held, numGpus, perGpu } = this.#region;
    const room = this.#room;
    gpuLoad.fill(0);
    room.fill(perGpu);
    held.fill(0);
    for (const expert of this.#order) {
      for (let replica = count[expert] as number; replica > 0; replica--) {
        let best = -1;
        for (let gpu = 0; gpu < numGpus; gpu++) {
          if (room[gpu] === 0 || held[expert * numGpus + gpu] !== 0) continue;
          if (best < 0 || (gpuLoad[gpu] as number) < (gpuLoad[best] as number)) best = gpu;
        }
        if (best < 0) return false;
        const left = (room[best] as number) - 1;
        slots[best * perGpu + left] = expert;
        room[best] = left;
        held[expert * numGpus + best] = 1;
        gpuLoad[best] = (gpuLoad[best] as number) + (share[expert] as number);
      }
    }
    return true;
  }

  #dealRound(): void {
    const { slots, count, numGpus, perGpu } = this.#region;
    let dealt = 0;
    for (const expert of this.#order) {
      for (let replica = count[expert] as number; replica > 0; replica--) {
        slots[(dealt % numGpus) * perGpu + Math.floor(dealt / numGpus)] = expert;
        dealt++;
      }
    }
  }
}
