// `open-infra eplb …`: names, flags and help of its commands, which load only when they run.

import { buildCommand, buildRouteMap, type RouteMap } from "@stricli/core";
import type { CliContext } from "../context.ts";
import { bytesFlag, jsonFlag } from "../flags.ts";
import { integer, nonNegativeNumber, positiveNumber, text } from "../parse.ts";

/** The same names as in `@open-infra/eplb`, which `--help` must not load. */
const policyNames = [
  "deepseek",
  "deepseek-hierarchical",
  "deepseek-global",
  "optimized",
  "optimized-global",
  "minimal-migration",
  "minimal-migration-global",
] as const;
const scenarios = ["stationary", "drift", "burst", "shift", "diurnal"] as const;
const popularities = ["uniform", "zipf", "lognormal"] as const;

const most = 2 ** 31;

function optionalCount(brief: string, low = 1) {
  return {
    kind: "parsed",
    parse: integer(low, most),
    brief,
    placeholder: "N",
    optional: true,
  } as const;
}

function optionalNumber(brief: string, parse: (text: string) => number = nonNegativeNumber) {
  return { kind: "parsed", parse, brief, placeholder: "X", optional: true } as const;
}

const targetFlag = optionalNumber("Migration stops at this max/mean load (default: 1.01)");
const maxMovedSlotsFlag = optionalCount("Most slots a migration may move (default: no limit)", 0);

const rebalance = buildCommand({
  loader: async () => import("../commands/eplb-rebalance.ts"),
  parameters: {
    flags: {
      file: {
        kind: "parsed",
        parse: text,
        brief: "Loads: rows of numbers, one a layer, as JSON; - or nothing: standard input",
        placeholder: "W.json",
        optional: true,
      },
      numReplicas: {
        kind: "parsed",
        parse: integer(1, most),
        brief: "Physical slots a layer, over all GPUs",
        placeholder: "N",
      },
      numGroups: optionalCount("Expert groups of group-limited routing (default: 1)"),
      numNodes: optionalCount("Nodes (default: 1)"),
      numGpus: {
        kind: "parsed",
        parse: integer(1, most),
        brief: "GPUs over all nodes",
        placeholder: "N",
      },
      policy: {
        kind: "enum",
        values: policyNames,
        brief: "Default: deepseek, the original; with --from: minimal-migration",
        optional: true,
      },
      from: {
        kind: "parsed",
        parse: text,
        brief: "The placement in use: what --json printed before; moved slots count from it",
        placeholder: "OLD.json",
        optional: true,
      },
      target: targetFlag,
      maxMovedSlots: maxMovedSlotsFlag,
      maxMovedBytes: bytesFlag("The same in bytes, e.g. 2GiB; needs --bytes-per-expert"),
      bytesPerExpert: bytesFlag("One expert's weights in one layer, e.g. 42MiB"),
      json: jsonFlag,
    },
  },
  docs: {
    brief: "Replicate and place experts for given loads",
    fullDescription:
      "Reads the load of every expert of every layer and prints how many replicas each gets and\n" +
      "where they go, and how balanced that is: per layer the load of the fullest GPU, the\n" +
      "mean, a proven lower bound and the gap to it, experts twice on a GPU, slots moved.\n" +
      "--json prints phy2log, log2phy and logcnt as nested arrays, which --from reads again.",
  },
});

const generatorFlags = {
  scenario: {
    kind: "enum",
    values: scenarios,
    brief: "How the load changes, where no --file is given (default: drift)",
    optional: true,
  },
  popularity: {
    kind: "enum",
    values: popularities,
    brief: "How unequal experts are (default: lognormal)",
    optional: true,
  },
  skew: optionalNumber("Exponent of zipf, or sigma of lognormal (default: 1)"),
  numLayers: optionalCount("Layers (default: 4)"),
  numLogical: optionalCount("Experts a layer (default: 256)"),
  numSteps: optionalCount("Steps (default: 2000)"),
  tokens: optionalNumber("Tokens times top-k, a step and layer (default: 32768)", positiveNumber),
  noise: optionalNumber("Noise of counts; 1 is that of drawing tokens (default: 1)"),
  period: optionalCount("Steps of a drift, burst or day (default: an eighth; diurnal: all)"),
  change: optionalNumber("Drift: largest change as a share (0.05); burst: the factor (8)"),
  hotExperts: optionalCount("Experts of a layer in a burst (default: 4)"),
  duration: optionalCount("Steps of a burst (default: half the period)"),
  at: optionalCount("Step of a domain shift (default: the middle)", 0),
  seed: optionalCount("The same seed makes the same load (default: 0)", 0),
} as const;

const controllerFlags = {
  policy: {
    kind: "enum",
    values: policyNames,
    brief: "Policy of the controller",
    default: "minimal-migration",
  },
  target: targetFlag,
  maxMovedSlots: maxMovedSlotsFlag,
  interval: optionalCount("Steps between looks at the balance (default: a tenth of all)"),
  window: optionalCount("Steps of the sliding window of loads (default: the interval)"),
  ema: optionalCount("Time constant in steps of an exponential average, instead of a window"),
  startAbove: optionalNumber("Max/mean load from which to rebalance (default: 1.05)"),
  stopBelow: optionalNumber("Max/mean load at which to stop (default: 1.02)"),
  cooldown: optionalCount("Steps to wait after a migration (default: 0)", 0),
  minGain: optionalNumber("Least fall of the maximum load, as a share (default: 0.01)"),
  bytesPerExpert: bytesFlag("One expert's weights, e.g. 42MiB (default: 1, so that slots count)"),
  maxBytesPerStep: bytesFlag("What a step may copy, e.g. 256MiB (default: no limit)"),
  layersPerStep: optionalCount("Layers a step may touch (default: all)"),
  staging: {
    kind: "enum",
    values: ["in-place", "double-buffer"],
    brief: "Overwrite slots, or copy into buffers and swap",
    default: "in-place",
  },
  moveSteps: optionalCount("Steps a move takes to arrive (default: 1)"),
} as const;

function happening(brief: string, placeholder: string) {
  return {
    kind: "parsed",
    parse: text,
    brief,
    placeholder,
    optional: true,
    variadic: true,
  } as const;
}

const simulate = buildCommand({
  loader: async () => import("../commands/eplb-simulate.ts"),
  parameters: {
    flags: {
      file: {
        kind: "parsed",
        parse: text,
        brief: "A recorded load trace, JSON or JSON lines; - is standard input",
        placeholder: "TRACE.json",
        optional: true,
      },
      ...generatorFlags,
      numReplicas: optionalCount("Slots a layer (default: 288, without --file)"),
      numGroups: optionalCount("Expert groups (default: 8, without --file)"),
      numNodes: optionalCount("Nodes (default: 4, without --file)"),
      numGpus: optionalCount("GPUs over all nodes (default: 32, without --file)"),
      ...controllerFlags,
      fail: happening("A rank fails before that step; repeat for more", "STEP:GPU"),
      recover: happening("A rank comes back before that step", "STEP:GPU"),
      stall: happening("From that step on moves do not arrive, for so many steps", "STEP:STEPS"),
      reportSteps: optionalCount("Steps a row of the table spans (default: a 20th of all)"),
      json: jsonFlag,
    },
  },
  docs: {
    brief: "Replay a load trace through the online controller",
    fullDescription:
      "Replays a recorded load, or one made up from a seed, through the controller, and beside\n" +
      "it through a placement that never changes and through the original run afresh at every\n" +
      "interval. Prints the max/mean load of the three over time, and what was moved.\n" +
      'A trace is {"steps": [step][layer][expert]} of token counts, or a step a line.',
  },
});

/** The commands under `open-infra eplb`. */
export const eplb: RouteMap<CliContext> = buildRouteMap({
  routes: { rebalance, simulate },
  docs: { brief: "Expert-parallel load balancing: place experts, migrate little, replay loads" },
});
