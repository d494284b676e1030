// Whether a better placement is worth its moves: the policy's placement over the live GPUs, what it
// gains layer by layer under the predicted loads, and the plan that would get there. Pure.

import { completePlacement } from "../convert.ts";
import { rebalanceExperts } from "../rebalance.ts";
import type { ResolvedOptions } from "./controller-options.ts";
import type { MigrationPlan } from "./migration.ts";
import { planMigration } from "./migration.ts";
import type { SlotShape } from "./slots.ts";
import { balanceOfSlots, emptySlot } from "./slots.ts";
import { loadRows } from "./statistics.ts";
import { gatherLive, liveGpus, scatterLive, survivingShape } from "./survivors.ts";

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
  /** Move every layer the policy changes, however little that layer gains. */
  readonly allLayers: boolean;
}

/** Rows without any load are placed as if all experts were alike. */
function withoutIdleRows(loads: Float64Array, numLogical: number): Float64Array {
  const filled = loads.slice();
  for (const row of loadRows(filled, numLogical)) {
    if (row.every((load) => load === 0)) row.fill(1);
  }
  return filled;
}

/** The policy's placement over the live GPUs; slots of failed ones are empty. */
function policySlots(input: ProposalInput, loads: Float64Array): Int32Array {
  const { held, shape, failed, options } = input;
  const live = liveGpus(shape.numGpus, failed);
  const from = completePlacement(shape.numLayers, shape.numLogical, gatherLive(held, shape, live));
  const rebalance = options.rebalance ?? rebalanceExperts;
  const { targetMaxOverMean, maxMovedSlots } = options;
  const { phy2log } = rebalance(loadRows(loads, shape.numLogical), {
    ...survivingShape(options, live),
    policy: options.policy,
    from,
    ...(targetMaxOverMean !== undefined && { targetMaxOverMean }),
    ...(maxMovedSlots !== undefined && { maxMovedSlots }),
  });
  return scatterLive(phy2log, shape, live);
}

function hasEmptySlot(row: Int32Array, target: Int32Array): boolean {
  return row.some((expert, slot) => expert === emptySlot && target[slot] !== emptySlot);
}

/** Makes the proposal that the policy leads to; it may be an empty one. */
export function propose(input: ProposalInput): Proposal {
  const { held, shape, failed, options, allLayers } = input;
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
    if (!worth && !allLayers && !hasEmptySlot(row, rowTarget)) rowTarget.set(row);
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
