// Whether a better placement is worth its moves: the policy's placement over the live GPUs, what it
// gains layer by layer under the predicted loads, and the plan that would get there. Pure.

import { completePlacement } from "../convert.ts";
import type { EplbShape } from "../placement.ts";
import { type PolicyName, rebalanceExperts } from "../rebalance.ts";
import type { ResolvedOptions } from "./controller-options.ts";
import type { MigrationPlan } from "./migration.ts";
import { planMigration } from "./migration.ts";
import type { SlotShape } from "./slots.ts";
import { balanceOfSlots, emptySlot } from "./slots.ts";
import { loadRows } from "./statistics.ts";
import { fitsNodes, gatherLive, liveGpus, scatterLive, survivingShape } from "./survivors.ts";

/** A migration and what it is good for. */
export interface Proposal {
  readonly plan: MigrationPlan;
  /** Σ max ÷ Σ mean load before and after. */
  readonly before: number;
  readonly after: number;
  /** Fall of Σ max load, as a share of what it was; negative if it would rise. */
  readonly gain: number;
  /** Fall of Σ max load in tokens a step. */
  readonly tokensSaved: number;
}

/** What a proposal is made from. */
export interface ProposalInput {
  readonly held: Int32Array;
  /** [numLayers × numLogical] */
  readonly loads: Float64Array;
  readonly shape: SlotShape;
  readonly failed: ReadonlySet<number>;
  readonly options: ResolvedOptions;
}

/** Rows without any load are placed as if all experts were alike. */
function withoutIdleRows(loads: Float64Array, numLogical: number): Float64Array {
  const filled = loads.slice();
  for (const row of loadRows(filled, numLogical)) {
    if (row.every((load) => load === 0)) row.fill(1);
  }
  return filled;
}

/** A policy's placement of some layers over the live GPUs. */
function placeLayers(
  layers: readonly number[],
  from: Int32Array,
  loads: Float64Array,
  policy: PolicyName,
  cluster: EplbShape,
  options: ResolvedOptions,
  numLogical: number,
): Int32Array {
  const rows = loadRows(loads, numLogical);
  const { numReplicas } = cluster;
  const held = new Int32Array(layers.length * numReplicas);
  layers.forEach((layer, i) => {
    held.set(from.subarray(layer * numReplicas, (layer + 1) * numReplicas), i * numReplicas);
  });
  const { targetMaxOverMean, maxMovedSlots } = options;
  const rebalance = options.rebalance ?? rebalanceExperts;
  const { phy2log } = rebalance(
    layers.map((layer) => rows[layer] as Float64Array),
    {
      ...cluster,
      policy,
      from: completePlacement(layers.length, numLogical, held),
      ...(targetMaxOverMean !== undefined && { targetMaxOverMean }),
      ...(maxMovedSlots !== undefined && !held.includes(emptySlot) && { maxMovedSlots }),
    },
  );
  return phy2log;
}

/**
 * The policy's placement over the live GPUs; slots of failed ones are empty. Minimal migration
 * cannot start from a layer that breaks the node limit; `optimized` leads such layers back to it.
 */
function policySlots(input: ProposalInput, loads: Float64Array): Int32Array {
  const { held, shape, failed, options } = input;
  const { numLayers, numLogical } = shape;
  const live = liveGpus(shape.numGpus, failed);
  const cluster = survivingShape(options, live);
  const { numReplicas } = cluster;
  const from = gatherLive(held, shape, live);
  const limited = options.policy === "minimal-migration" && options.rebalance === undefined;
  const all = Array.from({ length: numLayers }, (_, layer) => layer);
  const { legal = [], broken = [] } = Object.groupBy(all, (layer) => {
    const row = from.subarray(layer * numReplicas, (layer + 1) * numReplicas);
    return !limited || fitsNodes(row, cluster, numLogical) ? "legal" : "broken";
  });
  const placed = new Int32Array(from.length);
  for (const [layers, policy] of [
    [legal, options.policy],
    [broken, "optimized"],
  ] as const) {
    if (layers.length === 0) continue;
    const slots = placeLayers(layers, from, loads, policy, cluster, options, numLogical);
    layers.forEach((layer, i) => {
      const row = slots.subarray(i * numReplicas, (i + 1) * numReplicas);
      placed.set(row, layer * numReplicas);
    });
  }
  return scatterLive(placed, shape, live);
}

function hasEmptySlot(row: Int32Array, target: Int32Array): boolean {
  return row.some((expert, slot) => expert === emptySlot && target[slot] !== emptySlot);
}

/** Makes the proposal that the policy leads to; it may be an empty one. */
export function propose(input: ProposalInput): Proposal {
  const { held, shape, failed, options } = input;
  const loads = withoutIdleRows(input.loads, shape.numLogical);
  const target = policySlots(input, loads);
  const before = balanceOfSlots(held, loads, shape, failed);
  const full = balanceOfSlots(target, loads, shape, failed);
  const gains = before.maxLoads.map((max, layer) => max - (full.maxLoads[layer] as number));
  for (let layer = 0; layer < shape.numLayers; layer++) {
    const begin = layer * shape.numReplicas;
    const row = held.subarray(begin, begin + shape.numReplicas);
    const rowTarget = target.subarray(begin, begin + shape.numReplicas);
    const least = options.minLayerGain * (before.maxLoads[layer] as number);
    const worth = (gains[layer] as number) > least;
    if (!worth && !hasEmptySlot(row, rowTarget)) rowTarget.set(row);
  }
  // The layers that gain most go first: a plan that is cut short has then done most good.
  const layerOrder = Array.from(gains.keys()).sort(
    (a, b) => (gains[b] as number) - (gains[a] as number),
  );
  const plan = planMigration(held, target, shape, { ...options, layerOrder });
  const after = balanceOfSlots(plan.final, loads, shape, failed);
  const sum = (values: Float64Array): number => values.reduce((total, value) => total + value, 0);
  const tokensSaved = sum(before.maxLoads) - sum(after.maxLoads);
  const gain = tokensSaved / sum(before.maxLoads);
  return { plan, before: before.maxOverMean, after: after.maxOverMean, gain, tokensSaved };
}
