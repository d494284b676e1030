// What became slower or faster between two analyses of the same work, beyond noise, and a verdict
// that a pipeline can act on. It compares figures, not events, so that either side may be an
// analysis saved as JSON.

import { InputError } from "@open-infra/errors";
import type { TraceAnalysis } from "./analyze-trace.ts";
import { matchKernels } from "./diff-match.ts";
import { roundUs } from "./statistics.ts";
import type { TimeBreakdown } from "./temporal.ts";

/** What counts as a change: more than both. */
export interface DiffThresholds {
  /** Of the value before, %. @default 5 */
  readonly relativePercent?: number;
  /** µs, of a step if steps are compared. @default 50 */
  readonly absoluteUs?: number;
}

/** How to compare. */
export interface DiffOptions {
  readonly thresholds?: DiffThresholds;
  /** Whose regressions fail the gate. @default metrics and classes */
  readonly failOn?: readonly ("metric" | "class" | "kernel")[];
}

/** One compared figure; times are better when smaller. */
export interface DiffEntry {
  readonly kind: "metric" | "class" | "kernel";
  /** Metric, class, or the kernel's full name (the later one's). */
  readonly name: string;
  readonly beforeUs: number;
  readonly afterUs: number;
  readonly deltaUs: number;
  /** Of `beforeUs`; null where that is 0. */
  readonly deltaPercent: number | null;
  /** How often it ran, of classes and kernels. */
  readonly beforeCount?: number;
  readonly afterCount?: number;
  readonly verdict: "regression" | "improvement" | "unchanged";
  /** Whether it is on both sides. */
  readonly presence: "both" | "added" | "removed";
  /** The kernel's name before, where it was matched under another. */
  readonly renamedFrom?: string;
}

/** The comparison. Lists hold the largest change first; equal ones by name. */
export interface TraceDiff {
  readonly schema: 1;
  readonly verdict: "pass" | "fail";
  /** What fails the gate: regressions of the kinds in `failOn`. */
  readonly failures: readonly DiffEntry[];
  readonly regressions: readonly DiffEntry[];
  readonly improvements: readonly DiffEntry[];
  readonly metrics: readonly DiffEntry[];
  readonly classes: readonly DiffEntry[];
  readonly kernels: readonly DiffEntry[];
  /** `overlapPercent` of all communication. */
  readonly overlapPercent: { readonly before: number; readonly after: number };
  /** Steps that each side's times were divided by: 1 unless both have steps, of unequal number. */
  readonly dividedBy: { readonly before: number; readonly after: number };
  readonly thresholds: Required<DiffThresholds>;
  readonly warnings: readonly string[];
}

/** Times of the summary that are compared. */
const metrics = [
  "spanUs",
  "idleUs",
  "computeUs",
  "communicationUs",
  "memoryUs",
  "exposedCommunicationUs",
  "exposedMemoryUs",
] as const satisfies readonly (keyof TimeBreakdown)[];

/**
 * Compares two analyses.
 *
 * @throws InputError if a threshold is negative or not a number.
 */
export function diffTraces(
  before: TraceAnalysis,
  after: TraceAnalysis,
  options: DiffOptions = {},
): TraceDiff {
  const thresholds = checked(options.thresholds ?? {});
  const steps = [stepsOf(before), stepsOf(after)] as const;
  const divide = steps[0] > 0 && steps[1] > 0 && steps[0] !== steps[1];
  const dividedBy = { before: divide ? steps[0] : 1, after: divide ? steps[1] : 1 };
  const entry = (pair: Pair): DiffEntry => compare(pair, dividedBy, thresholds);
  const lists = {
    metrics: metrics.map((name) =>
      entry({
        kind: "metric",
        name,
        before: { sumUs: before.summary[name] },
        after: { sumUs: after.summary[name] },
      }),
    ),
    classes: classPairs(before, after).map(entry).sort(byChange),
    kernels: kernelPairs(before, after).map(entry).sort(byChange),
  };
  const all = [...lists.metrics, ...lists.classes, ...lists.kernels];
  const regressions = all.filter(({ verdict }) => verdict === "regression").sort(byChange);
  const failOn = new Set<string>(options.failOn ?? ["metric", "class"]);
  const failures = regressions.filter(({ kind }) => failOn.has(kind));
  return {
    schema: 1,
    verdict: failures.length > 0 ? "fail" : "pass",
    failures,
    regressions,
    improvements: all.filter(({ verdict }) => verdict === "improvement").sort(byChange),
    ...lists,
    overlapPercent: {
      before: before.summary.overlapPercent,
      after: after.summary.overlapPercent,
    },
    dividedBy,
    thresholds,
    warnings: warningsOf(before, after, divide),
  };
}

function checked({ relativePercent = 5, absoluteUs = 50 }: DiffThresholds) {
  for (const [name, value] of Object.entries({ relativePercent, absoluteUs })) {
    if (!(value >= 0)) throw new InputError(`thresholds.${name}`, String(value), "0 or more");
  }
  return { relativePercent, absoluteUs };
}

function stepsOf({ phases }: TraceAnalysis): number {
  return phases.steps;
}

/** One side of a pair. */
export interface DiffSide {
  readonly sumUs: number;
  readonly count?: number;
}

interface Pair {
  readonly kind: DiffEntry["kind"];
  readonly name: string;
  readonly before: DiffSide | undefined;
  readonly after: DiffSide | undefined;
  readonly renamedFrom?: string;
}

function compare(
  { kind, name, before, after, renamedFrom }: Pair,
  dividedBy: TraceDiff["dividedBy"],
  thresholds: Required<DiffThresholds>,
): DiffEntry {
  const beforeUs = (before?.sumUs ?? 0) / dividedBy.before;
  const afterUs = (after?.sumUs ?? 0) / dividedBy.after;
  const deltaUs = afterUs - beforeUs;
  const isChange =
    Math.abs(deltaUs) > thresholds.absoluteUs &&
    Math.abs(deltaUs) > (beforeUs * thresholds.relativePercent) / 100;
  return {
    kind,
    name,
    beforeUs: roundUs(beforeUs),
    afterUs: roundUs(afterUs),
    deltaUs: roundUs(deltaUs),
    deltaPercent: beforeUs > 0 ? Math.round((deltaUs / beforeUs) * 10_000) / 100 : null,
    ...(before?.count !== undefined && { beforeCount: before.count }),
    ...(after?.count !== undefined && { afterCount: after.count }),
    verdict: isChange ? (deltaUs > 0 ? "regression" : "improvement") : "unchanged",
    presence: before === undefined ? "added" : after === undefined ? "removed" : "both",
    ...(renamedFrom !== undefined && { renamedFrom }),
  };
}

/** Metrics before classes before kernels where changes are equal. */
function byChange(a: DiffEntry, b: DiffEntry): number {
  const kinds = ["metric", "class", "kernel"];
  return (
    Math.abs(b.deltaUs) - Math.abs(a.deltaUs) ||
    kinds.indexOf(a.kind) - kinds.indexOf(b.kind) ||
    (a.name < b.name ? -1 : a.name > b.name ? 1 : 0)
  );
}

function classPairs(before: TraceAnalysis, after: TraceAnalysis): Pair[] {
  const pairs = new Map<string, { before?: DiffSide; after?: DiffSide }>();
  const gather = (side: "before" | "after", analysis: TraceAnalysis): void => {
    for (const { class: name, sumUs, count } of analysis.kernels.classes) {
      const pair = pairs.get(name) ?? {};
      const { sumUs: sum = 0, count: counted = 0 } = pair[side] ?? {};
      pairs.set(name, { ...pair, [side]: { sumUs: sum + sumUs, count: counted + count } });
    }
  };
  gather("before", before);
  gather("after", after);
  return [...pairs].map(([name, pair]) => ({
    kind: "class",
    name,
    before: pair.before,
    after: pair.after,
  }));
}

function kernelPairs(before: TraceAnalysis, after: TraceAnalysis): Pair[] {
  // A list cut by topK lacks kernels that the other side may well have: not additions.
  const cut = isCut(before) || isCut(after);
  return matchKernels(before.kernels.kernels, after.kernels.kernels).flatMap((match): Pair[] => {
    const { before: a, after: b } = match;
    if (cut && (a === undefined || b === undefined)) return [];
    const name = (b ?? a)!.name;
    const renamed = a !== undefined && b !== undefined && a.name !== b.name;
    return [{ kind: "kernel", name, before: a, after: b, ...(renamed && { renamedFrom: a.name }) }];
  });
}

function isCut({ kernels }: TraceAnalysis): boolean {
  return kernels.kernels.length < kernels.kernelNames;
}

function warningsOf(before: TraceAnalysis, after: TraceAnalysis, divide: boolean): string[] {
  const out: string[] = [];
  if (divide) {
    const [a, b] = [stepsOf(before), stepsOf(after)];
    out.push(`the traces hold ${a} and ${b} steps: times are compared per step`);
  }
  if (before.source !== after.source) {
    out.push(`one trace was analysed by ${before.source}, the other by ${after.source}`);
  }
  if (before.devices.length !== after.devices.length) {
    out.push(
      `the traces hold ${before.devices.length} and ${after.devices.length} devices, ` +
        "whose times are summed",
    );
  }
  for (const [side, analysis] of Object.entries({ before, after })) {
    if (isCut(analysis)) {
      const { kernels } = analysis;
      out.push(
        `${side} lists only ${kernels.kernels.length} of ${kernels.kernelNames} kernels: ` +
          "kernels on one side only are left out",
      );
    }
    if (analysis.events === 0) out.push(`${side} has no events`);
  }
  return out;
}
