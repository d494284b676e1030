// Takes second copies of an expert off a GPU: each is exchanged with a slot of another GPU, or
// gives its place to another expert, whichever leaves the lowest maximum. A copy that cannot go
// without raising a GPU above a limit stays: load comes before tidiness.

import type { Region } from "./region.ts";

/** Removes what duplicates it can while every GPU stays at most at `limit`. */
export function removeDuplicates(region: Region, limit: number): void {
  const { slots, held, numGpus, perGpu } = region;
  for (let slot = 0; slot < slots.length; slot++) {
    const gpu = Math.floor(slot / perGpu);
    if ((held[(slots[slot] as number) * numGpus + gpu] as number) < 2) continue;
    if (!exchange(region, slot, gpu, limit)) giveUp(region, slot, gpu, limit);
  }
  region.sumLoads();
}

function exchange(region: Region, slot: number, gpu: number, limit: number): boolean {
  const { slots, share, gpuLoad, perGpu } = region;
  const a = slots[slot] as number;
  let best = -1;
  let lowest = limit;
  for (let other = 0; other < slots.length; other++) {
    const b = slots[other] as number;
    const gpuB = Math.floor(other / perGpu);
    if (gpuB === gpu || region.holds(a, gpuB) || region.holds(b, gpu)) continue;
    const change = (share[a] as number) - (share[b] as number);
    const worst = Math.max((gpuLoad[gpu] as number) - change, (gpuLoad[gpuB] as number) + change);
    if (worst > lowest || (worst === lowest && best >= 0)) continue;
    lowest = worst;
    best = other;
  }
  if (best < 0) return false;
  region.swap(slot, best);
  return true;
}

/** Tries every expert in the slot; a trial is made and, if it is not the best, taken back. */
function giveUp(region: Region, slot: number, gpu: number, limit: number): void {
  const own = region.slots[slot] as number;
  let best = -1;
  let lowest = limit;
  for (let expert = 0; expert < region.numExperts; expert++) {
    if (region.holds(expert, gpu)) continue;
    region.replace(slot, expert);
    const worst = region.maxLoad();
    region.replace(slot, own);
    if (worst > lowest || (worst === lowest && best >= 0)) continue;
    lowest = worst;
    best = expert;
  }
  if (best >= 0) region.replace(slot, best);
}
