// `open-infra dualpipe schedule`: each rank's operations, the eight steps, peaks, formula, verdict.

import {
  type BubbleFormula,
  bubbleFormula,
  formatRank,
  isBuiltInName,
  type Schedule,
  scheduleJsonText,
  stepCounts,
  stepUnits,
  type ValidationReport,
  validateSchedule,
  withCommunication,
} from "@open-infra/dualpipe";
import { type CliContext, printLine } from "../context.ts";
import { type ScheduleFlags, scheduleOf } from "../dualpipe-input.ts";
import { titleOf } from "../dualpipe-report.ts";
import { counted, formatTable } from "../table.ts";

interface Flags extends ScheduleFlags {
  readonly communication: boolean;
  readonly placement?: "original" | "arrival";
  readonly memoryLimit?: number;
  readonly json: boolean;
}

/** Times for which the formula is shown: a backward takes twice a forward, half of it W. */
const times = { F: 1, B: 2, W: 1, FB: 3 } as const;

/** Everything the command says. */
interface Report {
  readonly schedule: Schedule;
  readonly steps: readonly (readonly number[])[] | undefined;
  readonly validation: ValidationReport;
  readonly formula: BubbleFormula | undefined;
}

/** The table of the eight steps; none for other schedules, or where micro-batches are left out. */
function stepsOf({ name, numRanks, numMicroBatches }: Schedule): Report["steps"] {
  if (name !== "dualpipe" && name !== "dualpipev") return undefined;
  const odd = name === "dualpipe" && numMicroBatches % 2 !== 0;
  if (odd || numMicroBatches < 2 * numRanks) return undefined;
  return stepCounts(name, { numRanks, numMicroBatches });
}

function formulaOf({ name, numRanks, numStages, numMicroBatches }: Schedule): Report["formula"] {
  if (!isBuiltInName(name)) return undefined;
  const chunksPerRank = Math.max(1, Math.round(numStages / numRanks));
  return bubbleFormula(name, { numRanks, numMicroBatches, chunksPerRank, ...times });
}

/** Adds transfers, if the operations can run at all; if not, validation says why. */
function placed(schedule: Schedule, placement: Flags["placement"]): Schedule {
  if (schedule.hasCommunication || !validateSchedule(schedule).ok) return schedule;
  return withCommunication(schedule, placement ? { placement } : {});
}

function reportOf(alone: Schedule, flags: Flags): Report {
  const communicating = placed(alone, flags.placement);
  const { memoryLimit } = flags;
  return {
    schedule: flags.communication ? communicating : alone,
    steps: flags.file === undefined ? stepsOf(alone) : undefined,
    validation: validateSchedule(communicating, memoryLimit === undefined ? {} : { memoryLimit }),
    formula: flags.file === undefined ? formulaOf(alone) : undefined,
  };
}

/** Equal numbers once, others as a list. */
function each(values: readonly number[]): string {
  const [first] = values;
  if (values.every((value) => value === first)) return `${first} on every rank`;
  return values.join(", ");
}

function formulaLines({ formula, schedule }: Report): string[] {
  if (formula === undefined) return [];
  const { bubble, bubbleRate, parametersPerDevice, parameterShare, devices } = formula;
  const numbers = `F ${times.F}, B ${times.B}, W ${times.W}, FB ${times.FB}`;
  const rate = `${(100 * bubbleRate).toFixed(1)} %`;
  const share = `${(100 * parameterShare).toFixed(1)} % of ${schedule.numStages} stages`;
  return [
    `bubble       ${formula.formula} = ${bubble} (${rate}) with ${numbers}`,
    `             exact when ${formula.exactWhen}: ${formula.exact ? "so here" : "not here"}`,
    `parameters   ${parametersPerDevice} on each of ${devices} devices (${share})`,
  ];
}

function verdictLines({ validation }: Report): string[] {
  const { ok, violations, omitted, readings } = validation;
  if (ok) return [`valid        complete, free of deadlock in ${readings.join(" and ")} order`];
  const lines = violations.map(({ code, message }) => `  ${code}: ${message}`);
  const more = omitted > 0 ? [`  and ${omitted} more`] : [];
  return [`INVALID      ${counted(violations.length + omitted, "violation")}`, ...lines, ...more];
}

function lines(report: Report): string[] {
  const { schedule, steps, validation } = report;
  const { numRanks } = schedule;
  const { untilBackward, untilWeight } = validation.peakActivations;
  const ranks = Array.from({ length: numRanks }, (_, rank) => `rank ${rank}`);
  const width = ranks.at(-1)?.length ?? 0;
  return [
    titleOf(schedule),
    "",
    ...ranks.map((rank, r) => `${rank.padEnd(width)}  ${formatRank(schedule, r)}`),
    "",
    ...(steps === undefined
      ? []
      : formatTable(
          ["steps", ...stepUnits],
          steps.map((counts, r) => [ranks[r] as string, ...counts.map(String)]),
        ).concat("")),
    `held         ${each(untilBackward)} at most, until the backward`,
    `             ${each(untilWeight)} at most, until the weights' gradients`,
    ...formulaLines(report),
    ...verdictLines(report),
  ];
}

export default async function dualpipeSchedule(this: CliContext, flags: Flags): Promise<void> {
  const report = reportOf(await scheduleOf(this, flags), flags);
  const { schedule, steps, validation, formula } = report;
  if (!validation.ok) this.process.exitCode = 1;
  if (!flags.json) {
    for (const line of lines(report)) printLine(this, line);
    return;
  }
  const extra = {
    numMicroBatches: schedule.numMicroBatches,
    ...(steps !== undefined && { stepCounts: steps }),
    validation,
    ...(formula !== undefined && { formula: { ...formula, times } }),
  };
  // On one line: a row an operation would be a hundred thousand lines for a middling schedule.
  for (const piece of scheduleJsonText(schedule, extra)) this.process.stdout.write(piece);
  printLine(this);
}
