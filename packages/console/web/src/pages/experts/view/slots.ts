// What the slots of a GPU hold, for readouts, bars and tables.

import type { PlaceResult } from "../compute.ts";

export interface SlotInfo {
  readonly slot: number;
  readonly expert: number;
  /** Replicas of the expert in its layer. */
  readonly replicas: number;
  /** The expert's load ÷ replicas. */
  readonly load: number;
  /** Its weights must be copied from another GPU. */
  readonly moved: boolean;
}

/** The filled slots of a GPU, in order. */
export function slotsOfGpu(
  result: PlaceResult,
  name: "before" | "after",
  layer: number,
  gpu: number,
): readonly SlotInfo[] {
  const { numLogical, shape, weight, moved } = result;
  const { numReplicas, phy2log, logcnt } = result[name];
  const perGpu = numReplicas / shape.numGpus;
  const first = layer * numReplicas + gpu * perGpu;
  const slots: SlotInfo[] = [];
  for (let at = first; at < first + perGpu; at++) {
    const expert = phy2log[at] as number;
    if (expert < 0) continue;
    const replicas = logcnt[layer * numLogical + expert] as number;
    const load = (weight[layer * numLogical + expert] as number) / replicas;
    const isMoved = name === "after" && moved?.[at] === 1;
    slots.push({ slot: at - layer * numReplicas, expert, replicas, load, moved: isMoved });
  }
  return slots;
}
