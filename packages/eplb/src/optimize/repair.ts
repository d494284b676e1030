// Makes a damaged placement whole: after a GPU was lost, slots can be empty and experts without a
// slot. Heaviest expert first, each gets the empty slot, or the slot of the expert that misses it
// least, on the lightest GPU; empty slots that are left get one more replica of what is heaviest.

import type { Region } from "./region.ts";

/** Fills the region in place, with as few changed slots as there are empty or missing ones. */
export function repair(region: Region): void {
  const missing: number[] = [];
  for (let e = 0; e < region.numExperts; e++) if (region.count[e] === 0) missing.push(e);
  const empty = region.slots.includes(-1);
  if (missing.length === 0 && !empty) return;
  const { load } = region;
  missing.sort((a, b) => (load[b] as number) - (load[a] as number) || a - b);
  for (const expert of missing) region.replace(findSlot(region, expert), expert);
  for (let slot = region.slots.indexOf(-1); slot >= 0; slot = region.slots.indexOf(-1)) {
    region.replace(slot, heaviestFor(region, Math.floor(slot / region.perGpu)));
  }
  region.refresh();
}

/** The slot to give to an expert without any: the highest load that it leaves is the lowest. */
function findSlot(region: Region, expert: number): number {
  const { slots, count, load, gpuLoad, perGpu } = region;
  let best = -1;
  let lowest = Number.POSITIVE_INFINITY;
  for (let slot = 0; slot < slots.length; slot++) {
    const old = slots[slot] as number;
    const gpu = Math.floor(slot / perGpu);
    let cost = gpuLoad[gpu] as number;
    if (old >= 0) {
      const left = (count[old] as number) - 1;
      if (left === 0) continue;
      cost += (load[old] as number) / left; // Its other replicas take over, somewhere.
    } else cost -= load[expert] as number; // An empty slot before any other.
    if (cost >= lowest) continue;
    lowest = cost;
    best = slot;
  }
  return best;
}

function heaviestFor(region: Region, gpu: number): number {
  const { share, numExperts } = region;
  let best = -1;
  for (let e = 0; e < numExperts; e++) {
    if (region.holds(e, gpu)) continue;
    if (best < 0 || (share[e] as number) > (share[best] as number)) best = e;
  }
  return best < 0 ? 0 : best;
}
