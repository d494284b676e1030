// `open-infra eplb simulate`: a load trace through the online controller, beside two baselines.

import {
  type ArmTotals,
  type EplbReport,
  generateLoads,
  LoadEma,
  type LoadTrace,
  LoadWindow,
  type PolicyName,
  type Popularity,
  type Scenario,
  type SimulateOptions,
  type SimulationEvent,
  type SimulationResult,
  type Staging,
  simulateEplb,
  toNested,
} from "@open-infra/eplb";
import { type CliContext, printLine } from "../context.ts";
import { eplbFlags, traceOf } from "../eplb-input.ts";
import { flagOf, inTermsOf } from "../flag-names.ts";
import { readText } from "../json-input.ts";
import { UsageError } from "../parse.ts";
import { formatBytes } from "../progress.ts";
import { counted, formatNumber, formatTable } from "../table.ts";

interface GeneratorFlags {
  readonly scenario?: Scenario;
  readonly popularity?: Popularity;
  readonly skew?: number;
  readonly numLayers?: number;
  readonly numLogical?: number;
  readonly numSteps?: number;
  readonly tokens?: number;
  readonly noise?: number;
  readonly period?: number;
  readonly change?: number;
  readonly hotExperts?: number;
  readonly duration?: number;
  readonly at?: number;
  readonly seed?: number;
}

interface Flags extends GeneratorFlags {
  readonly file?: string;
  readonly numReplicas?: number;
  readonly numGroups?: number;
  readonly numNodes?: number;
  readonly numGpus?: number;
  readonly policy: PolicyName;
  readonly target?: number;
  readonly maxMovedSlots?: number;
  readonly interval?: number;
  readonly window?: number;
  readonly ema?: number;
  readonly startAbove?: number;
  readonly stopBelow?: number;
  readonly cooldown?: number;
  readonly minGain?: number;
  readonly bytesPerExpert?: number;
  readonly maxBytesPerStep?: number;
  readonly layersPerStep?: number;
  readonly staging: Staging;
  readonly moveSteps?: number;
  readonly fail?: readonly string[];
  readonly recover?: readonly string[];
  readonly stall?: readonly string[];
  readonly reportSteps?: number;
  readonly json: boolean;
}

const generatorNames = [
  "scenario",
  "popularity",
  "skew",
  "numLayers",
  "numLogical",
  "numSteps",
  "tokens",
  "noise",
  "period",
  "change",
  "hotExperts",
  "duration",
  "at",
  "seed",
] as const;

/** Which scenarios look at a flag; to others it would do nothing. */
const usedBy: ReadonlyMap<keyof GeneratorFlags, readonly Scenario[]> = new Map([
  ["period", ["drift", "burst", "diurnal"]],
  ["change", ["drift", "burst"]],
  ["hotExperts", ["burst"]],
  ["duration", ["burst"]],
  ["at", ["shift"]],
]);

/** Leaves out what was not given, as exact optional properties want it. */
function given<T extends object>(values: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  const kept = Object.entries(values).filter(([, value]) => value !== undefined);
  return Object.fromEntries(kept) as { [K in keyof T]?: Exclude<T[K], undefined> };
}

async function traceFor(context: CliContext, flags: Flags): Promise<LoadTrace> {
  if (flags.file !== undefined) {
    const made = generatorNames.find((name) => flags[name] !== undefined);
    if (made !== undefined) {
      throw new UsageError(`--file brings the load; ${flagOf(made)} is for a load that is made up`);
    }
    return traceOf(await readText(context, flags.file, "give a trace as --file TRACE.json"));
  }
  const { numLayers = 4, numLogical = 256, numSteps = 2000, seed = 0, scenario = "drift" } = flags;
  for (const [name, uses] of usedBy) {
    if (flags[name] === undefined || uses.includes(scenario)) continue;
    const flag = flagOf(name);
    throw new UsageError(`${flag} is for --scenario ${uses.join(" or ")}, not ${scenario}`);
  }
  if (flags.skew !== undefined && flags.popularity === "uniform") {
    throw new UsageError("--skew is for --popularity zipf or lognormal, not uniform");
  }
  const { popularity, skew, tokens: tokensPerStep, noise, period, change } = flags;
  const { hotExperts, duration, at } = flags;
  const shape = { popularity, skew, tokensPerStep, noise, period, change };
  const options = given({ ...shape, hotExperts, duration, at });
  return inTermsOf({ flags: eplbFlags }, () =>
    generateLoads({ numLayers, numLogical, numSteps, seed, scenario, ...options }),
  );
}

type Cluster = Pick<SimulateOptions, "numReplicas" | "numGroups" | "numNodes" | "numGpus">;

function clusterOf(flags: Flags): Cluster {
  const { numReplicas, numGroups, numNodes, numGpus } = flags;
  if (flags.file === undefined) {
    return {
      numReplicas: numReplicas ?? 288,
      numGroups: numGroups ?? 8,
      numNodes: numNodes ?? 4,
      numGpus: numGpus ?? 32,
    };
  }
  if (numReplicas === undefined || numGpus === undefined) {
    throw new UsageError("with --file the cluster is needed: --num-replicas N --num-gpus N");
  }
  return { numReplicas, numGpus, numGroups: numGroups ?? 1, numNodes: numNodes ?? 1 };
}

/** Values of a flag such as `--fail 500:3`: a step of the trace, and a number below `end`. */
function pairs(
  flag: string,
  texts: readonly string[] | undefined,
  numSteps: number,
  end: number,
): (readonly [number, number])[] {
  return (texts ?? []).map((text) => {
    const found = /^(\d+):(\d+)$/.exec(text);
    if (found === null) throw new UsageError(`--${flag} '${text}' is not two numbers, as 500:3`);
    const [step, value] = [Number(found[1]), Number(found[2])];
    if (step >= numSteps) {
      const allowed = `a step from 0 to ${numSteps - 1}`;
      throw new UsageError(`--${flag} ${text} is for step ${step}; expected ${allowed}`);
    }
    if (value >= end) {
      const allowed = `a GPU from 0 to ${end - 1}`;
      throw new UsageError(`--${flag} ${text} is for GPU ${value}; expected ${allowed}`);
    }
    return [step, value] as const;
  });
}

function eventsOf(flags: Flags, numSteps: number, numGpus: number): SimulationEvent[] {
  const { fail, recover, stall } = flags;
  return [
    ...pairs("fail", fail, numSteps, numGpus).map(([step, gpu]) => ({
      step,
      gpu,
      event: "rank-failed" as const,
    })),
    ...pairs("recover", recover, numSteps, numGpus).map(([step, gpu]) => ({
      step,
      gpu,
      event: "rank-recovered" as const,
    })),
    ...pairs("stall", stall, numSteps, Number.POSITIVE_INFINITY).map(([step, steps]) => ({
      step,
      steps,
      event: "stall" as const,
    })),
  ];
}

function optionsFor(flags: Flags, trace: LoadTrace): SimulateOptions {
  const { numLayers, numLogical, numSteps } = trace;
  if (flags.ema !== undefined && flags.window !== undefined) {
    throw new UsageError("--ema and --window are two ways to average loads: give one");
  }
  const intervalSteps = flags.interval ?? Math.max(1, Math.floor(numSteps / 10));
  const windowSteps = flags.window ?? intervalSteps;
  const size = { numLayers, numLogical };
  const cluster = clusterOf(flags);
  return {
    ...cluster,
    policy: flags.policy,
    intervalSteps,
    staging: flags.staging,
    windowSteps: flags.reportSteps ?? Math.max(1, Math.ceil(numSteps / 20)),
    statistics: () =>
      flags.ema === undefined
        ? new LoadWindow({ ...size, windowSteps })
        : new LoadEma({ ...size, timeConstantSteps: flags.ema }),
    events: eventsOf(flags, numSteps, cluster.numGpus),
    ...given({
      targetMaxOverMean: flags.target,
      maxMovedSlots: flags.maxMovedSlots,
      startAbove: flags.startAbove,
      stopBelow: flags.stopBelow,
      cooldownSteps: flags.cooldown,
      minGain: flags.minGain,
      moveSteps: flags.moveSteps,
      bytesPerExpert: flags.bytesPerExpert,
      maxBytesPerStep: flags.maxBytesPerStep,
      layersPerStep: flags.layersPerStep,
    }),
  };
}

const ratio = (value: number): string => value.toFixed(3);
const percent = (value: number): string => `${(100 * value).toFixed(1)} %`;
/** For shares that are small and still matter. */
const smallPercent = (value: number): string =>
  value === 0 ? "0 %" : `${Number((100 * value).toPrecision(2))} %`;

/** One character a value, from the lowest to the highest of the scale. */
function sparkline(values: readonly number[], low: number, high: number): string {
  const bars = "▁▂▃▄▅▆▇█";
  const scale = high > low ? (bars.length - 1) / (high - low) : 0;
  return values.map((value) => bars[Math.round((value - low) * scale)] ?? " ").join("");
}

const arms = [
  ["controller", "controller"],
  ["fixed", "never moved"],
  ["fresh", "fresh each interval"],
] as const;

function windowLines(result: SimulationResult, bytesShown: boolean): string[] {
  const { windows } = result;
  const unserved = result.unserved > 0;
  const headers = [">step", ">never moved", ">fresh", ">controller", ">moved", ">fresh moved"];
  const rows = windows.map(({ step, controller, fixed, fresh, state, unserved: share }) => [
    String(step),
    ratio(fixed.maxOverMean),
    ratio(fresh.maxOverMean),
    ratio(controller.maxOverMean),
    String(controller.movedSlots),
    String(fresh.movedSlots),
    ...(bytesShown ? [formatBytes(controller.bytes)] : []),
    ...(unserved ? [smallPercent(share)] : []),
    state,
  ]);
  if (bytesShown) headers.push(">bytes");
  if (unserved) headers.push(">unserved");
  const ratios = windows.flatMap((window) => arms.map(([arm]) => window[arm].maxOverMean));
  const [low, high] = [Math.min(...ratios), Math.max(...ratios)];
  const lines = arms.map(([arm, title]) => {
    const values = windows.map((window) => window[arm].maxOverMean);
    return `${title.padEnd(20)} ${sparkline(values, low, high)}`;
  });
  const scale = `${" ".repeat(21)}max/mean load, ${ratio(low)} to ${ratio(high)}`;
  return [...formatTable([...headers, "state"], rows), "", ...lines, scale];
}

function totalsRow(title: string, arm: ArmTotals, bytesShown: boolean): string[] {
  const { maxOverMean, balancedness, movedSlots, bytes } = arm;
  const cells = [title, ratio(maxOverMean), percent(balancedness), formatNumber(movedSlots)];
  return bytesShown ? [...cells, formatBytes(bytes)] : cells;
}

/** What went wrong, in a line; undefined for what is only work. */
function troubleOf(report: EplbReport): string | undefined {
  const at = `step ${report.step}:`;
  switch (report.event) {
    case "aborted":
      return `${at} plan aborted, ${report.cause}`;
    case "policy-failed":
      return `${at} no placement, ${report.cause}`;
    case "capacity":
      return `${at} ${report.liveSlots} live slots for ${report.numLogical} experts`;
    case "rank-failed":
      return `${at} GPU ${report.gpu} failed, ${report.lost.length} experts had no other replica`;
    default:
      return undefined;
  }
}

/** Most lines of trouble that are printed; `--json` has them all. */
const troublesMax = 20;

function reportLines(result: SimulationResult, bytesShown: boolean): string[] {
  const { metrics, reports, peakStepBytes, unserved } = result;
  const { plansStarted, plansCompleted, plansAborted, declined, retries } = metrics;
  const peak = bytesShown ? formatBytes(peakStepBytes) : `${peakStepBytes} slots`;
  const troubles = reports.map(troubleOf).filter((line) => line !== undefined);
  const more = troubles.length - troublesMax;
  return [
    `plans     ${plansStarted} started, ${plansCompleted} completed, ${plansAborted} aborted, ` +
      `${declined} declined; retries of moves: ${retries}`,
    `copied    ${peak} at most a step`,
    ...(unserved > 0 ? [`unserved  ${smallPercent(unserved)} of the tokens`] : []),
    ...troubles.slice(0, troublesMax),
    ...(more > 0 ? [`and ${more} more`] : []),
  ];
}

function linesOf(result: SimulationResult, trace: LoadTrace, options: SimulateOptions): string[] {
  const { numReplicas, numGpus, numNodes, policy, bytesPerExpert } = options;
  const bytesShown = bytesPerExpert !== undefined && bytesPerExpert !== 1;
  const headers = ["", ">max/mean", ">balancedness", ">moved slots"];
  return [
    `${policy}: ${counted(trace.numSteps, "step")}, ${counted(trace.numLayers, "layer")}, ` +
      `${counted(trace.numLogical, "expert")} in ${counted(numReplicas, "slot")}, ` +
      `${counted(numGpus, "GPU")}, ${counted(numNodes, "node")}`,
    "",
    ...windowLines(result, bytesShown),
    "",
    ...formatTable(
      bytesShown ? [...headers, ">bytes"] : headers,
      arms.map(([arm, title]) => totalsRow(title, result[arm], bytesShown)),
    ),
    "",
    ...reportLines(result, bytesShown),
  ];
}

function jsonOf(result: SimulationResult, trace: LoadTrace, options: SimulateOptions): unknown {
  const { finalRouting, ...rest } = result;
  const { numLayers, numLogical, numSteps } = trace;
  const { statistics: _, events, ...settings } = options;
  return {
    trace: { numLayers, numLogical, numSteps },
    options: { ...settings, events },
    ...rest,
    phy2log: toNested(finalRouting).phy2log,
  };
}

export default async function eplbSimulate(this: CliContext, flags: Flags): Promise<void> {
  const trace = await traceFor(this, flags);
  const options = optionsFor(flags, trace);
  const result = inTermsOf({ flags: eplbFlags }, () => simulateEplb(trace, options));
  if (flags.json) printLine(this, JSON.stringify(jsonOf(result, trace, options)));
  else for (const line of linesOf(result, trace, options)) printLine(this, line);
}
