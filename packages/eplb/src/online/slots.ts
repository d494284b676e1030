// What every slot holds while weights are on the move, and the routing table that follows from it.
// A slot that holds nothing (its rank failed, or it is being overwritten) is −1 and is never
// routed to. All functions are pure and take flat arrays, [numLayers × numReplicas].

import { InputError } from "@open-infra/errors";
import { completePlacement } from "../convert.ts";
import { alignGpu } from "../moves.ts";
import type { Placement } from "../placement.ts";

/** Sizes of the arrays of this file. */
export interface SlotShape {
  readonly numLayers: number;
  /** Logical experts a layer. */
  readonly numLogical: number;
  /** Physical slots a layer. */
  readonly numReplicas: number;
  readonly numGpus: number;
}

/** What a slot holds when it holds nothing. */
export const emptySlot = -1;

/**
 * The routing table over what slots hold: a placement whose empty slots are −1 in `phy2log` and
 * absent from `log2phy`. An expert that no slot holds has a `logcnt` of 0 and must not be routed.
 */
export function routeSlots(held: Int32Array, shape: SlotShape): Placement {
  return completePlacement(shape.numLayers, shape.numLogical, held.slice());
}

/** An expert of a layer. */
export interface ExpertRef {
  readonly layer: number;
  readonly expert: number;
}

/** Experts that no slot holds, by layer. */
export function lostExperts(held: Int32Array, shape: SlotShape): ExpertRef[] {
  const { numLayers, numLogical, numReplicas } = shape;
  const lost: ExpertRef[] = [];
  for (let layer = 0; layer < numLayers; layer++) {
    const seen = new Uint8Array(numLogical);
    for (let slot = 0; slot < numReplicas; slot++) {
      const expert = held[layer * numReplicas + slot] as number;
      if (expert >= 0) seen[expert] = 1;
    }
    for (let expert = 0; expert < numLogical; expert++) {
      if (seen[expert] === 0) lost.push({ layer, expert });
    }
  }
  return lost;
}

/** How evenly loads fall on GPUs, when an expert's tokens are spread evenly over its replicas. */
export interface SlotBalance {
  /** By layer: load of the fullest GPU. */
  readonly maxLoads: Float64Array;
  /** By layer: load of all GPUs ÷ live GPUs. */
  readonly meanLoads: Float64Array;
  /** Σ max ÷ Σ mean over layers, at least 1; 1 when there is no load. */
  readonly maxOverMean: number;
  /** Σ mean ÷ Σ max over layers, as vLLM logs it. */
  readonly balancedness: number;
}

/**
 * Measures what slots hold under `loads`, [numLayers × numLogical]. Only GPUs outside `failed`
 * count towards the mean; load of experts that nobody holds is nobody's and counts nowhere.
 */
export function balanceOfSlots(
  held: Int32Array,
  loads: ArrayLike<number>,
  shape: SlotShape,
  failed: ReadonlySet<number> = new Set(),
): SlotBalance {
  const { numLayers, numLogical, numReplicas, numGpus } = shape;
  const slotsPerGpu = numReplicas / numGpus;
  const liveGpus = numGpus - failed.size;
  const maxLoads = new Float64Array(numLayers);
  const meanLoads = new Float64Array(numLayers);
  const count = new Int32Array(numLogical);
  let sumMax = 0;
  let sumMean = 0;
  for (let layer = 0; layer < numLayers; layer++) {
    const base = layer * numReplicas;
    countHeld(held, base, numReplicas, count);
    let max = 0;
    let total = 0;
    for (let gpu = 0; gpu < numGpus; gpu++) {
      let load = 0;
      const end = base + (gpu + 1) * slotsPerGpu;
      for (let at = base + gpu * slotsPerGpu; at < end; at++) {
        const expert = held[at] as number;
        if (expert < 0) continue;
        load += (loads[layer * numLogical + expert] as number) / (count[expert] as number);
      }
      total += load;
      if (load > max) max = load;
    }
    const mean = liveGpus === 0 ? 0 : total / liveGpus;
    maxLoads[layer] = max;
    meanLoads[layer] = mean;
    sumMax += max;
    sumMean += mean;
  }
  // Sums of the same loads in another order may differ in the last bit; the ratio is at least 1.
  const maxOverMean = sumMax > sumMean && sumMean > 0 ? sumMax / sumMean : 1;
  return { maxLoads, meanLoads, maxOverMean, balancedness: 1 / maxOverMean };
}

/** Replicas of each expert in the row that starts at `base`, into `count`. */
export function countHeld(
  held: Int32Array,
  base: number,
  numReplicas: number,
  count: Int32Array,
): void {
  count.fill(0);
  for (let at = base; at < base + numReplicas; at++) {
    const expert = held[at] as number;
    if (expert >= 0) count[expert] = (count[expert] as number) + 1;
  }
}

/**
 * The placement that vLLM starts with: experts in order, then again from the first, so that the
 * redundant slots hold the first experts.
 */
export function linearSlots(shape: SlotShape): Int32Array {
  const { numLayers, numLogical, numReplicas } = shape;
  return Int32Array.from(
    { length: numLayers * numReplicas },
    (_, at) => (at % numReplicas) % numLogical,
  );
}

/**
 * Reorders a target inside each GPU, so that what stays on a GPU stays in its slot. Which slot of
 * a GPU holds an expert changes no load, but every change would cost a copy.
 */
export function alignWithinGpus(
  held: Int32Array,
  target: Int32Array,
  slotsPerGpu: number,
): Int32Array {
  const aligned = target.slice();
  for (let begin = 0; begin < target.length; begin += slotsPerGpu) {
    const end = begin + slotsPerGpu;
    alignGpu(held.subarray(begin, end), aligned.subarray(begin, end));
  }
  return aligned;
}

/** @throws InputError unless all entries are experts or −1, as many as slots. */
export function checkSlots(parameter: string, slots: Int32Array, shape: SlotShape): void {
  const { numLayers, numLogical, numReplicas } = shape;
  if (slots.length !== numLayers * numReplicas) {
    const expected = `${numLayers} layers × ${numReplicas} slots = ${numLayers * numReplicas}`;
    throw new InputError(parameter, `an array of ${slots.length}`, expected);
  }
  slots.forEach((expert, at) => {
    if (expert >= emptySlot && expert < numLogical) return;
    const where = `${parameter}[${Math.floor(at / numReplicas)}][${at % numReplicas}]`;
    throw new InputError(where, String(expert), `an expert from 0 to ${numLogical - 1}, or −1`);
  });
}
