// What `dualpipe simulate` prints for a person: timeline, ranks, idle by step, formula, bound,
// path.

import {
  type BubbleFormula,
  type Comparison,
  type Schedule,
  type SimulationResult,
  toTextTimeline,
} from "@open-infra/dualpipe";
import type { Costs } from "./dualpipe-times.ts";
import { formatBytes } from "./progress.ts";
import { counted, formatTable } from "./table.ts";

/** Everything there is to say. */
export interface SimulationReport {
  readonly schedule: Schedule;
  readonly result: SimulationResult;
  readonly costs: Costs;
  readonly formula: BubbleFormula | undefined;
  readonly comparison: Comparison | undefined;
}

/** Ranks in tables: beyond this the middle ones are left out. */
const ranksShown = 32;

/** Six digits at most, without trailing zeros and what rounding left; large numbers whole. */
export function number(value: number): string {
  const whole = Math.abs(value) >= 1e5;
  return String(Number(whole ? value.toFixed(0) : Number(value.toFixed(9)).toPrecision(6)));
}

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;

function describeTimes({ times, communication }: Costs): string {
  const value = (of: unknown): string => {
    if (typeof of === "number") return number(of);
    if (of !== null && typeof of === "object" && "length" in of) {
      const values = Array.from(of as ArrayLike<number>);
      return `${number(Math.min(...values))} to ${number(Math.max(...values))}`;
    }
    return JSON.stringify(of);
  };
  const parts = (["F", "B", "I", "W", "FB"] as const).flatMap((kind) =>
    times[kind] === undefined ? [] : [`${kind} ${value(times[kind])}`],
  );
  const links = Object.entries(communication ?? {}).flatMap(([key, of]) =>
    of === false ? [] : [of === true ? key : `${key} ${value(of)}`],
  );
  return [...parts, ...links].join(", ");
}

/** Indices of the ranks to show, −1 for those left out. */
function shownRanks(numRanks: number): number[] {
  if (numRanks <= ranksShown) return [...Array(numRanks).keys()];
  const half = ranksShown / 2;
  const first = [...Array(half).keys()];
  return [...first, -1, ...first.map((rank) => numRanks - half + rank)];
}

function rankTable({ schedule, result }: SimulationReport): readonly string[] {
  const { idleOf, busy, peak } = result;
  const headers = ["rank", ">busy", ">idle", ">warm-up", ">steady", ">cool-down", ">held"];
  if (peak.activationsUntilW.some((held, rank) => held !== peak.activations[rank])) {
    headers.push(">until W");
  }
  if (peak.bytes !== undefined) headers.push(">memory");
  const rows = shownRanks(schedule.numRanks).map((rank) => {
    const idle = idleOf[rank];
    if (idle === undefined) return headers.map((_, i) => (i === 0 ? "…" : ""));
    const cells = [
      String(rank),
      ...[busy[rank] as number, idle.total, idle.warmUp, idle.steady, idle.coolDown].map(number),
      String(peak.activations[rank]),
    ];
    if (headers.includes(">until W")) cells.push(String(peak.activationsUntilW[rank]));
    if (peak.bytes !== undefined) cells.push(formatBytes(peak.bytes[rank] as number));
    return cells;
  });
  return formatTable(headers, rows);
}

/** Idle time by the step that was waited for; nothing where the builder names none. */
function stepTable({ schedule, result }: SimulationReport): readonly string[] {
  const steps = result.idleOf[0]?.byPhase.length ?? 0;
  if (steps <= 2) return [];
  const names = Array.from({ length: steps - 1 }, (_, i) => `>step ${i + 1}`);
  const rows = shownRanks(schedule.numRanks).map((rank) => {
    const idle = result.idleOf[rank];
    if (idle === undefined) return ["…", ...Array<string>(steps).fill("")];
    return [`rank ${rank}`, ...[...idle.byPhase.slice(1), idle.afterEnd].map(number)];
  });
  return ["", ...formatTable(["idle before", ...names, ">the end"], rows)];
}

function formulaLines({ formula, result }: SimulationReport): string[] {
  if (formula === undefined) return [];
  const { exactWhen, makespan, stepIdle } = formula;
  const exact = formula.exact ? "so here" : "not here";
  const worst = Math.max(...result.idle);
  const least = Math.min(...result.idle);
  const idle = worst - least < 1e-9 ? number(worst) : `${number(least)} to ${number(worst)}`;
  return [
    `formula        ${formula.formula}: idle ${number(stepIdle)}, makespan ${number(makespan)}; ` +
      `simulated idle ${idle}, makespan ${number(result.makespan)}`,
    `               without transfers exact when ${exactWhen}: ${exact}`,
  ];
}

function comparisonLines({ comparison }: SimulationReport): string[] {
  if (comparison === undefined) return [];
  const { measured, measuredMakespan, ratio } = comparison;
  const steps = measured.numSteps === 1 ? "1 step" : `${measured.numSteps} steps, median`;
  return [
    `measured       ${number(measuredMakespan)} µs (${steps}): ` +
      `${ratio.toFixed(3)} of the simulation`,
    "               with the same durations; the rest is transfers and waiting",
  ];
}

/** What was built, in a line. */
export function titleOf(schedule: Schedule): string {
  const { name, numRanks, numStages, numDirections, numMicroBatches } = schedule;
  const ways = numDirections === 1 ? "" : ` in ${numDirections} directions`;
  const size = `${counted(numRanks, "rank")}, ${counted(numStages, "stage")}${ways}`;
  return `${name}: ${size}, ${counted(numMicroBatches, "micro-batch")}`;
}

/** The lines to print. */
export function simulationLines(report: SimulationReport): readonly string[] {
  const { schedule, result, costs } = report;
  const picture = result.timeline === undefined ? [] : toTextTimeline(schedule, result, 120);
  const { lowerBound, criticalPath, makespan } = result;
  const gap = lowerBound.makespan === 0 ? 0 : lowerBound.gap / lowerBound.makespan;
  const { rank, head, body, tail } = lowerBound;
  const of = `rank ${rank}: ${number(head)} before, ${number(body)} of work, ${number(tail)} after`;
  return [
    titleOf(schedule),
    `times          ${describeTimes(costs)}`,
    "",
    ...(picture.length > 0 ? [...picture, ""] : []),
    ...rankTable(report),
    ...stepTable(report),
    "",
    `makespan       ${number(makespan)}, of it idle ${percent(result.bubbleShare)}`,
    ...formulaLines(report),
    `lower bound    ${number(lowerBound.makespan)} (${of}); gap ${percent(gap)}`,
    ...(criticalPath === undefined
      ? []
      : [
          `critical path  ${criticalPath.steps.length} operations, ` +
            `${criticalPath.numHops} changes of rank: ` +
            `${number(criticalPath.computeTime)} of computation, ` +
            `${number(criticalPath.communicationTime)} of transfers`,
        ]),
    ...comparisonLines(report),
  ];
}
