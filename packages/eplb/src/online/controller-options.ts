// The controller's options with their defaults, checked once, so that what decides later can trust
// them. Every error names the option, what came and what is allowed.

import { InputError } from "@open-infra/errors";
import { type PolicyName, rebalanceExperts } from "../rebalance.ts";
import { checkShape } from "../shape.ts";
import type { EplbControllerOptions } from "./controller-types.ts";
import { migrationLimits } from "./migration.ts";
import type { SlotShape } from "./slots.ts";
import { checkNumbers, checkWhole, LoadWindow } from "./statistics.ts";

type Defaulted =
  | "policy"
  | "statistics"
  | "intervalSteps"
  | "startAbove"
  | "stopBelow"
  | "cooldownSteps"
  | "minGain"
  | "minLayerGain"
  | "moveDeadlineSteps"
  | "moveDeadlineUs"
  | "maxRetries"
  | "logSteps"
  | "bytesPerExpert"
  | "maxBytesPerStep"
  | "staging";

/** Options with nothing left open. */
export type ResolvedOptions = EplbControllerOptions &
  Required<Pick<EplbControllerOptions, Defaulted>>;

function checkRatio(parameter: string, value: number): void {
  if (!(value >= 1 && value < Number.POSITIVE_INFINITY)) {
    throw new InputError(parameter, String(value), "a max ÷ mean load of at least 1");
  }
}

function checkShare(parameter: string, value: number): void {
  if (!(value >= 0 && value < 1)) {
    throw new InputError(parameter, String(value), "a share from 0 to below 1");
  }
}

function checkPositive(parameter: string, value: number): void {
  if (!(value > 0)) throw new InputError(parameter, String(value), "a positive number");
}

function checkDecisions(options: ResolvedOptions): void {
  checkWhole("intervalSteps", options.intervalSteps, 1);
  checkRatio("startAbove", options.startAbove);
  checkRatio("stopBelow", options.stopBelow);
  if (options.stopBelow > options.startAbove) {
    const allowed = `at most startAbove (${options.startAbove})`;
    throw new InputError("stopBelow", String(options.stopBelow), allowed);
  }
  checkWhole("cooldownSteps", options.cooldownSteps, 0);
  checkShare("minGain", options.minGain);
  checkShare("minLayerGain", options.minLayerGain);
  if (options.payback !== undefined) {
    checkPositive("payback.usPerToken", options.payback.usPerToken);
    checkPositive("payback.usPerByte", options.payback.usPerByte);
    checkPositive("payback.withinSteps", options.payback.withinSteps);
  }
  checkWhole("moveDeadlineSteps", options.moveDeadlineSteps, 1);
  checkPositive("moveDeadlineUs", options.moveDeadlineUs);
  checkWhole("maxRetries", options.maxRetries, 0);
  checkWhole("logSteps", options.logSteps, 1);
}

/**
 * Fills in defaults and checks.
 *
 * @throws InputError for the first option that cannot be used.
 */
export function resolveOptions(options: EplbControllerOptions): ResolvedOptions {
  const { numLayers, numLogical, numReplicas, numGpus } = options;
  checkWhole("numLayers", numLayers, 1);
  checkWhole("numLogical", numLogical, 1);
  checkShape(options, numLogical);
  checkNumbers("numLayers", { layers: numLayers, slots: numReplicas });
  const resolved: ResolvedOptions = {
    ...options,
    policy: options.policy ?? "minimal-migration",
    statistics:
      options.statistics ??
      new LoadWindow({ numLayers, numLogical, windowSteps: 1000, bucketSteps: 10 }),
    intervalSteps: options.intervalSteps ?? 3000,
    startAbove: options.startAbove ?? 1.05,
    stopBelow: options.stopBelow ?? Math.min(1.02, options.startAbove ?? 1.02),
    cooldownSteps: options.cooldownSteps ?? 0,
    minGain: options.minGain ?? 0.01,
    minLayerGain: options.minLayerGain ?? 0.005,
    moveDeadlineSteps: options.moveDeadlineSteps ?? 100,
    moveDeadlineUs: options.moveDeadlineUs ?? Number.POSITIVE_INFINITY,
    maxRetries: options.maxRetries ?? 2,
    logSteps: options.logSteps ?? 1000,
    bytesPerExpert: options.bytesPerExpert ?? 1,
    maxBytesPerStep: options.maxBytesPerStep ?? Number.POSITIVE_INFINITY,
    staging: options.staging ?? "in-place",
  };
  checkDecisions(resolved);
  migrationLimits(resolved, numReplicas / numGpus);
  if (resolved.staging === "in-place" && numReplicas === numLogical) {
    const allowed = `more than the ${numLogical} experts, or staging "double-buffer": without a \
redundant slot nothing can be overwritten in place`;
    throw new InputError("numReplicas", String(numReplicas), allowed);
  }
  return resolved;
}

/** The original's policy that keeps the same limits as `policy`. */
function originalOf(policy: PolicyName): PolicyName {
  if (policy.startsWith("deepseek")) return policy;
  return policy.endsWith("-global") ? "deepseek-global" : "deepseek";
}

/**
 * What slots hold at the start: `initial`, or the original's placement for experts that are all
 * alike.
 *
 * @throws InputError if `initial` does not fit the shape, or the shape not the policy.
 */
export function initialSlots(options: ResolvedOptions, shape: SlotShape): Int32Array {
  const { initial, numReplicas, numGroups, numNodes, numGpus } = options;
  const policy = originalOf(options.policy);
  const alike = [new Float64Array(shape.numLogical).fill(1)];
  const cluster = { numReplicas, numGroups, numNodes, numGpus, policy };
  const { phy2log } = rebalanceExperts(alike, cluster);
  if (initial === undefined) {
    const slots = new Int32Array(shape.numLayers * numReplicas);
    for (let layer = 0; layer < shape.numLayers; layer++) slots.set(phy2log, layer * numReplicas);
    return slots;
  }
  for (const name of ["numLayers", "numLogical", "numReplicas"] as const) {
    if (initial[name] === shape[name]) continue;
    throw new InputError(`initial.${name}`, String(initial[name]), String(shape[name]));
  }
  return initial.phy2log.slice();
}
