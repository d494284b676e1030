// `open-infra dualpipe simulate`: how long a step takes, where ranks stand idle, what bounds it.

import { writeFileSync } from "node:fs";
import {
  type BubbleFormula,
  bubbleFormula,
  type Comparison,
  compareWithTrace,
  isBuiltInName,
  type Schedule,
  type SimulateOptions,
  type SimulationResult,
  type StageTimes,
  simulate,
  type TraceInput,
  TraceMismatchError,
  toChromeTrace,
  toSvg,
  withCommunication,
} from "@open-infra/dualpipe";
import { type CliContext, note, printJson, printLine } from "../context.ts";
import { dualpipeFlags, type ScheduleFlags, scheduleOf } from "../dualpipe-input.ts";
import { simulationLines } from "../dualpipe-report.ts";
import { type Costs, costsOf, type TimeFlags } from "../dualpipe-times.ts";
import { inTermsOf } from "../flag-names.ts";
import { parseJson, readText } from "../json-input.ts";
import { UsageError } from "../parse.ts";

interface Flags extends ScheduleFlags, TimeFlags {
  readonly mode: "dataflow" | "rendezvous";
  readonly fromTrace?: string;
  readonly svg?: string;
  readonly trace?: string;
  readonly usPerUnit: number;
  readonly json: boolean;
}

/** Timelines of more operations than this are kept only for files that were asked for. */
const smallOperations = 20_000;

function numberOf(value: StageTimes["F"] | StageTimes["FB"]): number | undefined {
  return typeof value === "number" ? value : undefined;
}

/** The closed formula, where all stages are alike and the schedule is a known one. */
function formulaOf(schedule: Schedule, { times }: Costs): BubbleFormula | undefined {
  const { name, numRanks, numStages, numMicroBatches } = schedule;
  const F = numberOf(times.F);
  const B = numberOf(times.B);
  if (!isBuiltInName(name) || F === undefined || B === undefined) return undefined;
  if (times.rankSlowdown !== undefined) return undefined;
  const I = numberOf(times.I);
  const W = times.W === undefined ? (I === undefined ? B / 2 : B - I) : numberOf(times.W);
  const FB = times.FB === undefined ? F + B : numberOf(times.FB);
  if (W === undefined || FB === undefined || W > B) return undefined;
  const chunksPerRank = Math.max(1, Math.round(numStages / numRanks));
  return bubbleFormula(name, { numRanks, numMicroBatches, chunksPerRank, F, B, W, FB });
}

async function readTrace(context: CliContext, file: string): Promise<TraceInput> {
  const input = await readText(context, file, "expected a Chrome trace");
  const document = parseJson(input);
  const events = Array.isArray(document)
    ? document
    : (document as { traceEvents?: unknown } | null)?.traceEvents;
  if (!Array.isArray(events)) throw new UsageError(`${input.name} has no traceEvents`);
  return events as TraceInput;
}

/** One run as numbers; times are in the unit given. */
function documentOf(
  schedule: Schedule,
  { times, communication }: Costs,
  mode: Flags["mode"],
  result: SimulationResult,
): Record<string, unknown> {
  const { name, numRanks, numStages, numDirections, numMicroBatches } = schedule;
  const { peak, criticalPath } = result;
  return {
    schedule: name,
    numRanks,
    numStages,
    numDirections,
    numMicroBatches,
    mode,
    times,
    ...(communication && { communication }),
    makespan: result.makespan,
    bubbleShare: result.bubbleShare,
    numOperations: result.numOperations,
    ranks: result.idleOf.map(({ total, ...idle }, rank) => ({
      rank,
      busy: result.busy[rank],
      idle: total,
      ...idle,
      peakActivations: peak.activations[rank],
      peakActivationsUntilW: peak.activationsUntilW[rank],
      ...(peak.bytes && { peakBytes: peak.bytes[rank] }),
      ...(peak.parameterBytes && { parameterBytes: peak.parameterBytes[rank] }),
    })),
    lowerBound: result.lowerBound,
    ...(criticalPath && { criticalPath }),
  };
}

function writeFiles(
  context: CliContext,
  schedule: Schedule,
  result: SimulationResult,
  flags: Flags,
) {
  const { svg, trace, usPerUnit } = flags;
  const write = (file: string, content: string): void => {
    if (file === "-") throw new UsageError("a picture or a trace needs a file: '-' is none");
    try {
      writeFileSync(file, content);
    } catch (error) {
      throw new UsageError(`cannot write ${file}: ${(error as Error).message}`);
    }
    note(context, `wrote ${file}`);
  };
  if (svg !== undefined) write(svg, toSvg(schedule, result));
  if (trace !== undefined) {
    write(trace, JSON.stringify(toChromeTrace(schedule, result, { usPerUnit })));
  }
}

function comparisonOf({ measured, measuredMakespan, simulated, ratio }: Comparison) {
  return {
    numSteps: measured.numSteps,
    measuredMakespan,
    simulatedMakespan: simulated.makespan,
    ratio,
    times: measured.times,
  };
}

/** What a file of `--stage-times` gives. */
function filesOf(file: string) {
  return { files: { times: file, communication: file, memory: file } };
}

/** A trace that does not hold the schedule's run is the user's mistake, not a failure of ours. */
function compared(
  schedule: Schedule,
  trace: TraceInput,
  options: SimulateOptions,
  file: string,
): Comparison {
  try {
    return compareWithTrace(schedule, trace, options);
  } catch (error) {
    if (!(error instanceof TraceMismatchError)) throw error;
    throw new UsageError(`${file}: ${error.message}`);
  }
}

export default async function dualpipeSimulate(this: CliContext, flags: Flags): Promise<void> {
  const { mode } = flags;
  const alone = await scheduleOf(this, flags);
  const schedule = mode === "rendezvous" ? withCommunication(alone) : alone;
  const given = await costsOf(this, flags);
  const { communication, memory } = given;
  const numOperations = schedule.ranks.reduce((sum, { length }) => sum + length, 0);
  const wantsFiles = flags.svg !== undefined || flags.trace !== undefined;
  const options = {
    mode,
    timeline: wantsFiles || numOperations <= smallOperations,
    ...(communication && { communication }),
    ...(memory && { memory }),
  };
  const terms = { flags: dualpipeFlags, ...(given.file !== undefined && filesOf(given.file)) };
  const trace = flags.fromTrace && (await readTrace(this, flags.fromTrace));
  const comparison = trace
    ? inTermsOf(terms, () => compared(schedule, trace, options, flags.fromTrace as string))
    : undefined;
  const costs = comparison === undefined ? given : { ...given, times: comparison.measured.times };
  const result =
    comparison?.simulated ?? inTermsOf(terms, () => simulate(schedule, costs.times, options));
  const formula = comparison === undefined ? formulaOf(schedule, costs) : undefined;
  writeFiles(this, schedule, result, flags);
  if (flags.json) {
    printJson(this, {
      ...documentOf(schedule, costs, mode, result),
      ...(formula && { formula }),
      ...(comparison && { measured: comparisonOf(comparison) }),
    });
    return;
  }
  for (const line of simulationLines({ schedule, result, costs, formula, comparison })) {
    printLine(this, line);
  }
}
