// What the form of the experts page holds, its presets and choices, and what is asked of the worker
// and of the command line for it. Numbers are not checked here: the package checks them, and its
// sentence is shown beside the field.

import {
  type EplbShape,
  type PolicyName,
  type Popularity,
  policyNames,
  type Scenario,
} from "@open-infra/eplb";
import { choiceOf, type FormValues, numberOf, optionalNumber } from "../../ui/form-values.ts";

export const defaults = {
  popularity: "lognormal",
  skew: "1",
  seed: "1",
  layers: "58",
  experts: "256",
  replicas: "288",
  groups: "8",
  nodes: "4",
  gpus: "32",
  policy: "deepseek",
  before: "in-order",
  drift: "5",
  target: "",
  budget: "",
  scenario: "drift",
  steps: "2000",
  interval: "200",
  onlineLayers: "4",
  onlinePolicy: "minimal-migration",
  stepBudget: "64",
} as const;

export type FieldName = keyof typeof defaults;
export type ExpertsValues = FormValues<FieldName>;

/** What stands left of the result: a placement to start from, and to compare with. */
export type Baseline = "in-order" | "none" | "deepseek" | "drifted" | "file";

export const baselines: readonly [Baseline, ...Baseline[]] = [
  "in-order",
  "none",
  "deepseek",
  "drifted",
  "file",
];

export const baselineNames: Readonly<Record<Baseline, string>> = {
  "in-order": "experts in order",
  none: "no redundancy",
  deepseek: "the original's policy",
  drifted: "the original's, before the loads drifted",
  file: "a placement from a file",
};

export const baselineTexts: Readonly<Record<Baseline, string>> = {
  "in-order": "Experts in order, redundant slots begin again at 0: what engines start with.",
  none: "One slot an expert, in order; redundant slots are empty.",
  deepseek: "What the original's policy gives for these loads.",
  drifted: "What the original gave for loads that have since changed by up to this share.",
  file: "The placement in use, from a file of eplb rebalance --json.",
};

export const policyTexts: Readonly<Record<PolicyName, string>> = {
  deepseek: "The original, exactly: hierarchical if the nodes divide the groups, else global.",
  "deepseek-hierarchical": "Groups to nodes, replicas inside a node, replicas to its GPUs.",
  "deepseek-global": "The original with the cluster as one node.",
  optimized:
    "Lowest maximum load found; groups stay on one node where the original keeps them there.",
  "optimized-global": "Lowest maximum load found, without the node limit.",
  "minimal-migration": "From the placement before: reach the target by moving few slots.",
  "minimal-migration-global": "The same without the node limit.",
};

export const scenarioTexts: Readonly<Record<Scenario, string>> = {
  stationary: "The load does not change.",
  drift: "Every eighth of the time each expert's load changes by up to 5 %.",
  burst: "Now and then four experts of each layer are eight times as popular.",
  shift: "In the middle the domain changes, and with it all loads.",
  diurnal: "Loads swing to another mix and back.",
};

/** Clusters to begin with. */
export const presets: readonly {
  readonly name: string;
  readonly values: Partial<ExpertsValues>;
}[] = [
  {
    name: "DeepSeek-V3, 32 GPUs: 256 experts in 288 slots",
    values: { layers: "58", experts: "256", replicas: "288", groups: "8", nodes: "4", gpus: "32" },
  },
  {
    name: "DeepSeek-V3, decode on 144 GPUs",
    values: {
      layers: "58",
      experts: "256",
      replicas: "288",
      groups: "1",
      nodes: "18",
      gpus: "144",
    },
  },
  {
    name: "DeepSeek-V3, 64 GPUs: 320 slots",
    values: { layers: "58", experts: "256", replicas: "320", groups: "8", nodes: "8", gpus: "64" },
  },
  {
    name: "Small model: 64 experts in 80 slots",
    values: { layers: "26", experts: "64", replicas: "80", groups: "8", nodes: "2", gpus: "16" },
  },
  {
    name: "The README's example: 12 experts in 16 slots",
    values: { layers: "2", experts: "12", replicas: "16", groups: "4", nodes: "2", gpus: "8" },
  },
];

/** The loads of the package README's example. */
export const exampleLoads: readonly (readonly number[])[] = [
  [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
  [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
];

/** Loads: from a seed, or rows of a file. */
export type LoadSource =
  | {
      readonly kind: "generate";
      readonly popularity: Popularity;
      readonly skew: number;
      readonly seed: number;
      readonly numLayers: number;
      readonly numLogical: number;
    }
  | { readonly kind: "rows"; readonly weight: readonly (readonly number[])[] };

/** One question to the worker about a placement. */
export interface PlaceRequest {
  readonly kind: "place";
  readonly loads: LoadSource;
  readonly shape: EplbShape;
  readonly policy: PolicyName;
  readonly baseline: Baseline;
  /** For the baseline `drifted`: largest change of a load since, as a share. */
  readonly drift: number | undefined;
  readonly driftSeed: number;
  /** Rows of slots of the placement in use, for the baseline `file`. */
  readonly old: readonly (readonly number[])[] | undefined;
  readonly targetMaxOverMean: number | undefined;
  readonly maxMovedSlots: number | undefined;
}

/** One question about the controller. */
export interface OnlineRequest {
  readonly kind: "online";
  readonly shape: EplbShape;
  readonly numLayers: number;
  readonly numLogical: number;
  readonly popularity: Popularity;
  readonly skew: number;
  readonly seed: number;
  readonly scenario: Scenario;
  readonly numSteps: number;
  readonly intervalSteps: number;
  readonly policy: PolicyName;
  readonly maxBytesPerStep: number | undefined;
}

const popularityNames: readonly [Popularity, ...Popularity[]] = ["lognormal", "zipf", "uniform"];
const scenarioNames: readonly [Scenario, ...Scenario[]] = [
  "drift",
  "stationary",
  "burst",
  "shift",
  "diurnal",
];

/** Choices of the form, the default first. */
export const choices: {
  readonly popularity: readonly [Popularity, ...Popularity[]];
  readonly scenario: readonly [Scenario, ...Scenario[]];
} = { popularity: popularityNames, scenario: scenarioNames };

export function policyOf(text: string): PolicyName {
  return choiceOf(text, policyNames);
}

function shapeOf(values: ExpertsValues): EplbShape {
  return {
    numReplicas: numberOf(values.replicas),
    numGroups: numberOf(values.groups),
    numNodes: numberOf(values.nodes),
    numGpus: numberOf(values.gpus),
  };
}

/** Rows that a file brought. */
export interface LoadedFile {
  readonly name: string;
  readonly rows: readonly (readonly number[])[];
}

/** What to ask the worker for these inputs. */
export function placeRequest(
  values: ExpertsValues,
  loads: LoadedFile | null,
  old: LoadedFile | null,
): PlaceRequest {
  const policy = policyOf(values.policy);
  const migrates = policy.startsWith("minimal-migration");
  return {
    kind: "place",
    loads:
      loads === null
        ? {
            kind: "generate",
            popularity: choiceOf(values.popularity, popularityNames),
            skew: numberOf(values.skew),
            seed: numberOf(values.seed),
            numLayers: numberOf(values.layers),
            numLogical: numberOf(values.experts),
          }
        : { kind: "rows", weight: loads.rows },
    shape: shapeOf(values),
    policy,
    baseline: choiceOf(values.before, baselines),
    drift: values.before === "drifted" ? numberOf(values.drift) / 100 : undefined,
    driftSeed: numberOf(values.seed),
    old: old?.rows,
    targetMaxOverMean: migrates ? optionalNumber(values.target) : undefined,
    maxMovedSlots: migrates ? optionalNumber(values.budget) : undefined,
  };
}

export function onlineRequest(values: ExpertsValues): OnlineRequest {
  return {
    kind: "online",
    shape: shapeOf(values),
    numLayers: numberOf(values.onlineLayers),
    numLogical: numberOf(values.experts),
    popularity: choiceOf(values.popularity, popularityNames),
    skew: numberOf(values.skew),
    seed: numberOf(values.seed),
    scenario: choiceOf(values.scenario, scenarioNames),
    numSteps: numberOf(values.steps),
    intervalSteps: numberOf(values.interval),
    policy: policyOf(values.onlinePolicy),
    maxBytesPerStep: optionalNumber(values.stepBudget),
  };
}

/** Fields whose value the package calls otherwise; the longest name that fits wins. */
const fieldOfParameter: Readonly<Record<string, FieldName>> = {
  numReplicas: "replicas",
  numGroups: "groups",
  numNodes: "nodes",
  numGpus: "gpus",
  numLayers: "layers",
  numLogical: "experts",
  "the number of experts": "experts",
  skew: "skew",
  seed: "seed",
  drift: "drift",
  targetMaxOverMean: "target",
  maxMovedSlots: "budget",
  numSteps: "steps",
  intervalSteps: "interval",
  windowSteps: "interval",
  maxBytesPerStep: "stepBudget",
  policy: "policy",
  from: "before",
  phy2log: "before",
};

/** The field that an error's parameter belongs to; undefined for what is inside a file. */
export function fieldOf(parameter: string): FieldName | undefined {
  const whole = fieldOfParameter[parameter];
  if (whole !== undefined) return whole;
  return fieldOfParameter[/^\w+/.exec(parameter)?.[0] ?? ""];
}

/** A file name as a shell takes it. */
function quoted(name: string): string {
  return /^[\w./-]+$/.test(name) && !name.startsWith("-")
    ? name
    : `'${name.replaceAll("'", "'\\''")}'`;
}

/** Names of the files that stand in the command: those of the user, or those the page saves. */
export interface CommandFiles {
  readonly loads: string;
  readonly old: string;
}

/**
 * Whether the placement before is also given to the policy, as `from`. An incomplete one is only
 * taken by migration.
 */
export function startsFromBaseline({ baseline, policy }: PlaceRequest): boolean {
  return baseline !== "none" || policy.startsWith("minimal-migration");
}

/** The command that gives the same result. */
export function rebalanceCommand(request: PlaceRequest, files: CommandFiles): string {
  const { shape, policy, targetMaxOverMean, maxMovedSlots } = request;
  return [
    `open-infra eplb rebalance --file ${quoted(files.loads)}`,
    `--num-replicas ${shape.numReplicas} --num-groups ${shape.numGroups}`,
    `--num-nodes ${shape.numNodes} --num-gpus ${shape.numGpus} --policy ${policy}`,
    ...(startsFromBaseline(request) ? [`--from ${quoted(files.old)}`] : []),
    ...(targetMaxOverMean === undefined ? [] : [`--target ${targetMaxOverMean}`]),
    ...(maxMovedSlots === undefined ? [] : [`--max-moved-slots ${maxMovedSlots}`]),
    "--json",
  ].join(" ");
}

/** The command that replays the same. */
export function simulateCommand(request: OnlineRequest): string {
  const { shape } = request;
  return [
    `open-infra eplb simulate --scenario ${request.scenario} --popularity ${request.popularity}`,
    `--skew ${request.skew} --seed ${request.seed} --num-layers ${request.numLayers}`,
    `--num-logical ${request.numLogical} --num-steps ${request.numSteps}`,
    `--num-replicas ${shape.numReplicas} --num-groups ${shape.numGroups}`,
    `--num-nodes ${shape.numNodes} --num-gpus ${shape.numGpus} --policy ${request.policy}`,
    `--interval ${request.intervalSteps}`,
    ...(request.maxBytesPerStep === undefined
      ? []
      : [`--max-bytes-per-step ${request.maxBytesPerStep}`]),
  ].join(" ");
}
