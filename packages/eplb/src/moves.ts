// What it takes to get from one placement to another, as data: which slot needs which expert, and
// where a copy can come from. It plans no order and no time; the online controller cuts the moves
// into steps. Slots inside a GPU are interchangeable, so `alignSlots` first makes kept experts
// stay.

import { InputError } from "@open-infra/errors";
import { completePlacement } from "./convert.ts";
import type { EplbShape, Placement } from "./placement.ts";
import { nodeOfGpu } from "./shape.ts";

/** Where the nearest copy is: in the same GPU, on the same node, on another one, or nowhere. */
export type SourcePlace = "gpu" | "node" | "remote" | "none";

/** A slot that must get other weights. */
export interface SlotMove {
  readonly layer: number;
  /** Slot of the layer that changes, and the GPU and node it is on. */
  readonly slot: number;
  readonly gpu: number;
  readonly node: number;
  /** What the slot will hold, and what it holds before (−1: empty). */
  readonly expert: number;
  readonly previous: number;
  /** All slots that hold the expert before the move. Empty if it was lost with its GPU. */
  readonly sourceSlots: readonly number[];
  /** GPUs of `sourceSlots`, without repetition, ascending. */
  readonly sourceGpus: readonly number[];
  /** The nearest of them: `gpu` costs no transfer, `node` none between nodes. */
  readonly nearest: SourcePlace;
}

function checkPair(from: Placement, to: Placement, shape: Pick<EplbShape, "numGpus">): void {
  for (const name of ["numLayers", "numLogical", "numReplicas"] as const) {
    if (from[name] === to[name]) continue;
    const allowed = `${to[name]}, as in the placement it is compared with`;
    throw new InputError(`from.${name}`, String(from[name]), allowed);
  }
  if (to.numReplicas % shape.numGpus === 0) return;
  const allowed = `a divisor of the ${to.numReplicas} slots`;
  throw new InputError("numGpus", String(shape.numGpus), allowed);
}

/**
 * Reorders the slots inside every GPU of `to` such that experts the GPU holds in `from` stay in
 * their slots. Loads do not change; what remains different needs a copy from another GPU.
 *
 * @throws InputError if the two differ in layers, experts or slots.
 */
export function alignSlots(
  from: Placement,
  to: Placement,
  shape: Pick<EplbShape, "numGpus">,
): Placement {
  checkPair(from, to, shape);
  const { numLayers, numLogical, numReplicas } = to;
  const perGpu = numReplicas / shape.numGpus;
  const phy2log = Int32Array.from(to.phy2log);
  for (let start = 0; start < phy2log.length; start += perGpu) {
    alignGpu(from.phy2log.subarray(start, start + perGpu), phy2log.subarray(start, start + perGpu));
  }
  return completePlacement(numLayers, numLogical, phy2log);
}

/** Moves each expert of `after` to the slot that holds it in `before`, where there is one. */
export function alignGpu(before: Int32Array, after: Int32Array): void {
  for (let slot = 0; slot < before.length; slot++) {
    const kept = before[slot] as number;
    if (after[slot] === kept) continue;
    // A slot that is right already must not lose its expert to an equal one.
    for (let other = 0; other < after.length; other++) {
      if (after[other] !== kept || before[other] === kept) continue;
      after[other] = after[slot] as number;
      after[slot] = kept;
      break;
    }
  }
}

/**
 * Slots of one GPU that need a copy from elsewhere: experts of `after` beyond those of `before`.
 */
export function movedInGpu(before: Int32Array, after: Int32Array, balance: Int32Array): number {
  for (const expert of before) if (expert >= 0) balance[expert] = (balance[expert] as number) + 1;
  let moved = 0;
  for (const expert of after) {
    const left = balance[expert] as number;
    if (left > 0) balance[expert] = left - 1;
    else moved++;
  }
  for (const expert of before) if (expert >= 0) balance[expert] = 0;
  return moved;
}

/**
 * Every slot of `to` that holds another expert than in `from`, layer by layer, slot by slot. Give
 * it an aligned `to` (as all policies return when they are given `from`), or moves inside a GPU
 * appear as moves whose nearest source is `gpu`.
 *
 * @throws InputError if the two differ in layers, experts or slots.
 */
export function diffPlacements(
  from: Placement,
  to: Placement,
  shape: Pick<EplbShape, "numGpus" | "numNodes">,
): SlotMove[] {
  checkPair(from, to, shape);
  const { numLayers, numLogical, numReplicas } = to;
  const perGpu = numReplicas / shape.numGpus;
  const moves: SlotMove[] = [];
  for (let layer = 0; layer < numLayers; layer++) {
    for (let slot = 0; slot < numReplicas; slot++) {
      const expert = to.phy2log[layer * numReplicas + slot] as number;
      const previous = from.phy2log[layer * numReplicas + slot] as number;
      if (expert === previous || expert < 0) continue;
      const gpu = Math.floor(slot / perGpu);
      const node = nodeOfGpu(gpu, shape);
      const first = (layer * numLogical + expert) * from.maxReplicas;
      const sourceSlots = Array.from(from.log2phy.subarray(first, first + from.maxReplicas))
        .filter((source) => source >= 0)
        .sort((a, b) => a - b);
      const gpus = sourceSlots.map((source) => Math.floor(source / perGpu));
      const sourceGpus = gpus.filter((value, i) => i === 0 || value !== gpus[i - 1]);
      const nearest = nearestOf(sourceGpus, gpu, shape);
      moves.push({ layer, slot, gpu, node, expert, previous, sourceSlots, sourceGpus, nearest });
    }
  }
  return moves;
}

function nearestOf(
  sources: readonly number[],
  gpu: number,
  shape: Pick<EplbShape, "numGpus" | "numNodes">,
): SourcePlace {
  if (sources.length === 0) return "none";
  if (sources.includes(gpu)) return "gpu";
  const node = nodeOfGpu(gpu, shape);
  return sources.some((other) => nodeOfGpu(other, shape) === node) ? "node" : "remote";
}
