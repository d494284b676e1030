// The one entrance: loads and a cluster in, a placement and its report out, by a named policy.

import { InputError } from "@open-infra/errors";
import { completePlacement } from "./convert.ts";
import { deepseekSlots } from "./deepseek.ts";
import { checkFits, measure } from "./measure.ts";
import { relabelLayer } from "./optimize/assignment.ts";
import { type MigrationGoal, migratedSlots } from "./optimize/migrate.ts";
import { LayerOptimizer } from "./optimize/optimizer.ts";
import type { BalanceReport, EplbShape, LoadRows, Placement } from "./placement.ts";
import {
  checkNodeLimit,
  checkPositiveInteger,
  checkShape,
  isHierarchical,
  type LoadMatrix,
  loadMatrix,
  shown,
} from "./shape.ts";

/** Names of the policies, in the order of `PolicyName`. */
export const policyNames = [
  "deepseek",
  "deepseek-hierarchical",
  "deepseek-global",
  "optimized",
  "optimized-global",
  "minimal-migration",
  "minimal-migration-global",
] as const;

/**
 * - `deepseek`: the original, exactly: hierarchical if the nodes divide the groups, else global.
 * - `deepseek-hierarchical`, `deepseek-global`: one of its two policies, whatever the shape.
 * - `optimized`: lowest maximum load we can find; keeps groups on one node where `deepseek` would.
 * - `optimized-global`: the same without the node limit.
 * - `minimal-migration`: from a placement, reach a target balance by moving few slots; keeps the
 *   node limit where `deepseek` would. `minimal-migration-global` is without it.
 */
export type PolicyName = (typeof policyNames)[number];

/** The searches keep a count for every expert on every GPU, in 16 bits: at most 512 MiB. */
const maxPairs = 2 ** 28;
const maxSlotsPerGpu = 2 ** 16 - 1;

/** The cluster, and how to place on it. */
export interface RebalanceOptions extends EplbShape {
  /** Default `deepseek`. */
  readonly policy?: PolicyName;
  /**
   * The placement in use. Migration starts from it; the optimized policies relabel GPUs and keep
   * slots to move less; the original's ignore it, but for the count of moved slots in the report.
   */
  readonly from?: Placement;
  /**
   * When an expert may be put twice on a GPU although that could be avoided: `if-lighter` (default)
   * only if the maximum load would otherwise be above the original's, which happens on tiny
   * clusters; `never` accepts the higher maximum. Migration keeps those that `from` has, unless
   * balance moves them. The original's policies do as the original does.
   */
  readonly duplicates?: "if-lighter" | "never";
  /** Migration stops once max ÷ mean load of a layer is at most this. Default 1.01. */
  readonly targetMaxOverMean?: number;
  /** Most slots migration may move, over all layers. Default no limit. */
  readonly maxMovedSlots?: number;
  /** The same in bytes; needs `bytesPerExpert`. */
  readonly maxMovedBytes?: number;
  /** Weights of one expert of one layer, bytes. */
  readonly bytesPerExpert?: number;
}

/** A placement, the policy that made it, and its balance. */
export interface Rebalanced extends Placement {
  readonly policy: PolicyName;
  /** Balance under the given loads; computed when first read. */
  readonly report: BalanceReport;
}

/**
 * `rebalance_experts` of the original, with other policies beside its own: chooses how many
 * replicas each expert gets and in which slots they are.
 *
 * @throws InputError for loads, a shape or options that cannot be used, with the numbers.
 */
export function rebalanceExperts(weight: LoadRows, options: RebalanceOptions): Rebalanced {
  const { policy = "deepseek", from } = options;
  if (!policyNames.includes(policy)) {
    throw new InputError("policy", shown(policy), policyNames.join(", "));
  }
  const matrix = loadMatrix(weight);
  checkShape(options, matrix.numLogical);
  if (from !== undefined) checkFits(from, matrix, options, "from");
  const wantsLimit = policy === "deepseek-hierarchical" || isHierarchical(options);
  const nodeLimit = wantsLimit && !policy.endsWith("-global");
  if (nodeLimit) checkNodeLimit(options, matrix.numLogical);
  const placement = place(matrix, options, nodeLimit);
  let report: BalanceReport | undefined;
  return {
    ...placement,
    policy,
    get report(): BalanceReport {
      report ??= measure(matrix, placement, options, from);
      return report;
    },
  };
}

function place(matrix: LoadMatrix, options: RebalanceOptions, nodeLimit: boolean): Placement {
  const { policy = "deepseek" } = options;
  const { numLayers, numLogical } = matrix;
  if (policy.startsWith("deepseek")) {
    const slots = deepseekSlots(matrix, options, nodeLimit);
    return completePlacement(numLayers, numLogical, slots.phy2log, slots.rank);
  }
  if (numLogical * options.numGpus > maxPairs) {
    const allowed = `at most ${maxPairs} for policy ${policy}; "deepseek" has no such limit`;
    throw new InputError("experts × numGpus", String(numLogical * options.numGpus), allowed);
  }
  const slotsPerGpu = options.numReplicas / options.numGpus;
  if (slotsPerGpu > maxSlotsPerGpu) {
    const allowed = `at most ${maxSlotsPerGpu} for policy ${policy}`;
    throw new InputError("numReplicas ÷ numGpus", String(slotsPerGpu), allowed);
  }
  const phy2log = policy.startsWith("optimized")
    ? optimizedSlots(matrix, options, nodeLimit)
    : migratedSlots(matrix, options, migrationStart(options), migrationGoal(options, nodeLimit));
  return completePlacement(numLayers, numLogical, phy2log);
}

function migrationStart(options: RebalanceOptions): Placement {
  if (options.from !== undefined) return options.from;
  const allowed = `the placement in use, which policy ${shown(options.policy)} starts from`;
  throw new InputError("from", "undefined", allowed);
}

function checkAtLeast(name: string, value: unknown, least: number): number {
  if (typeof value === "number" && value >= least) return value;
  throw new InputError(name, shown(value), `a number of at least ${least}`);
}

function migrationGoal(options: RebalanceOptions, nodeLimit: boolean): MigrationGoal {
  const { targetMaxOverMean = 1.01, maxMovedBytes, bytesPerExpert } = options;
  let maxMovedSlots = options.maxMovedSlots ?? Number.POSITIVE_INFINITY;
  checkAtLeast("targetMaxOverMean", targetMaxOverMean, 1);
  checkAtLeast("maxMovedSlots", maxMovedSlots, 0);
  if (maxMovedBytes !== undefined) {
    checkAtLeast("maxMovedBytes", maxMovedBytes, 0);
    checkPositiveInteger("bytesPerExpert", bytesPerExpert);
    const affordable = Math.floor(maxMovedBytes / (bytesPerExpert as number));
    maxMovedSlots = Math.min(maxMovedSlots, affordable);
  }
  return { nodeLimit, targetMaxOverMean, maxMovedSlots, duplicates: duplicatesOf(options) };
}

function duplicatesOf({ duplicates = "if-lighter" }: RebalanceOptions): "if-lighter" | "never" {
  if (duplicates === "if-lighter" || duplicates === "never") return duplicates;
  throw new InputError("duplicates", shown(duplicates), '"if-lighter" or "never"');
}

function optimizedSlots(
  matrix: LoadMatrix,
  options: RebalanceOptions,
  nodeLimit: boolean,
): Int32Array {
  const { numLayers, numLogical, data } = matrix;
  const { numReplicas, numGpus, from } = options;
  const duplicates = duplicatesOf(options);
  const numNodes = nodeLimit ? options.numNodes : 1;
  const optimizer = new LayerOptimizer(numLogical, options, nodeLimit, duplicates);
  const phy2log = new Int32Array(numLayers * numReplicas);
  for (let layer = 0; layer < numLayers; layer++) {
    const loads = data.subarray(layer * numLogical, (layer + 1) * numLogical);
    const slots = phy2log.subarray(layer * numReplicas, (layer + 1) * numReplicas);
    optimizer.place(loads, slots);
    if (from === undefined) continue;
    const before = from.phy2log.subarray(layer * numReplicas, (layer + 1) * numReplicas);
    relabelLayer(before, slots, { numLogical, numGpus, numNodes });
  }
  return phy2log;
}
