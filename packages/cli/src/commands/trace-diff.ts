// `open-infra trace diff`: what became slower between two traces, as a gate for pipelines.

import {
  analyzeTrace,
  type DiffEntry,
  diffTraces,
  shortName,
  type TraceAnalysis,
  type TraceDiff,
} from "@open-infra/profile/analyze";
import { type CliContext, printJson, printLine } from "../context.ts";
import { UsageError } from "../parse.ts";
import { ellipsis, formatTable, formatNumber as n } from "../table.ts";
import { classifierOf, nameOf, openTraceOrAnalysis } from "../trace-file.ts";

interface Flags {
  readonly failAbove: number;
  readonly noiseUs: number;
  readonly failOn?: readonly DiffEntry["kind"][];
  readonly rules?: string;
  readonly top: number;
  readonly tolerant: boolean;
  readonly json: boolean;
}

/** Exit status where a regression fails the gate; 1 and 2 say that there was no comparison. */
const REGRESSION = 3;

export default async function traceDiff(
  this: CliContext,
  flags: Flags,
  before: string,
  after: string,
): Promise<void> {
  if (before === "-" && after === "-") throw new UsageError("only one side can be standard input");
  const analysisOf = async (file: string): Promise<TraceAnalysis> => {
    const read = await openTraceOrAnalysis(this, file, { tolerant: flags.tolerant });
    if ("analysis" in read) return read.analysis;
    return analyzeTrace(read.table, { classifier: await classifierOf(this, flags.rules) });
  };
  const sides = [await analysisOf(before), await analysisOf(after)] as const;
  for (const [i, { events }] of sides.entries()) {
    if (events === 0)
      throw new UsageError(`${nameOf([before, after][i] as string)} has nothing to compare`);
  }
  const diff = diffTraces(sides[0], sides[1], {
    thresholds: { relativePercent: flags.failAbove, absoluteUs: flags.noiseUs },
    ...(flags.failOn && { failOn: flags.failOn }),
  });
  if (flags.json) printJson(this, diff);
  else for (const line of diffReport(diff, flags.top)) printLine(this, line);
  if (diff.verdict === "fail") this.process.exitCode = REGRESSION;
}

function signed(us: number): string {
  return us > 0 ? `+${n(us)}` : n(us);
}

function changeOf({ deltaPercent, presence }: DiffEntry): string {
  if (presence !== "both") return presence;
  if (deltaPercent === null) return "";
  return `${deltaPercent > 0 ? "+" : ""}${deltaPercent.toFixed(1)} %`;
}

function sentence(diff: TraceDiff): string {
  const { relativePercent, absoluteUs } = diff.thresholds;
  const limits = `${relativePercent} % and ${n(absoluteUs)} µs`;
  const span = diff.metrics.find(({ name }) => name === "spanUs") as DiffEntry;
  const whole = `span ${n(span.beforeUs)} → ${n(span.afterUs)} µs (${changeOf(span) || "same"})`;
  const first = diff.failures[0];
  if (first === undefined) return `PASS: nothing slower by more than ${limits}; ${whole}`;
  const others = diff.failures.length - 1;
  const more = others > 0 ? ` and ${others} more` : "";
  return `FAIL: ${first.name} ${signed(first.deltaUs)} µs${more} beyond ${limits}; ${whole}`;
}

function section(title: string, entries: readonly DiffEntry[]): readonly string[] {
  if (entries.length === 0) return [];
  const marks = { regression: "slower", improvement: "faster", unchanged: "" };
  const rows = entries.map((entry) => [
    ellipsis(entry.kind === "kernel" ? shortName(entry.name) : entry.name, 58),
    n(entry.beforeUs),
    n(entry.afterUs),
    signed(entry.deltaUs),
    changeOf(entry),
    entry.beforeCount === entry.afterCount
      ? ""
      : `${n(entry.beforeCount ?? 0)} → ${n(entry.afterCount ?? 0)}`,
    marks[entry.verdict],
    entry.renamedFrom === undefined ? "" : `was ${ellipsis(shortName(entry.renamedFrom), 40)}`,
  ]);
  const headers = [title, ">before µs", ">after µs", ">change µs", ">change", ">count", "", ""];
  return formatTable(headers, rows);
}

function diffReport(diff: TraceDiff, top: number): readonly string[] {
  const changed = (entries: readonly DiffEntry[]): readonly DiffEntry[] =>
    entries.filter(({ verdict, presence }) => verdict !== "unchanged" || presence !== "both");
  const { before, after } = diff.overlapPercent;
  return [
    [
      sentence(diff),
      `communication hidden: ${before.toFixed(1)} % → ${after.toFixed(1)} %`,
      ...diff.warnings.map((warning) => `note: ${warning}`),
    ],
    section("metric", diff.metrics),
    section("class", changed(diff.classes)),
    section("kernel", changed(diff.kernels).slice(0, top)),
  ]
    .filter((lines) => lines.length > 0)
    .flatMap((lines) => [...lines, ""]);
}
