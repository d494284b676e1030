// The figures of one pipeline: time, idle, formula, bound, memory, and whether the schedule is
// valid.

import type { VNode } from "preact";
import { formatCount, formatMs, formatPercent } from "../../../ui/format.ts";
import { type FigureEntry, Figures } from "../../../ui/workbench.tsx";
import type { PipelineResult } from "../compute.ts";
import { formatTime } from "../timeline/cells.ts";

const most = (values: readonly number[]): number => values.reduce((a, b) => Math.max(a, b), 0);

/** Equal numbers once, others from least to most. */
function spread(values: readonly number[]): string {
  const high = most(values);
  const low = values.reduce((a, b) => Math.min(a, b), high);
  const [from, to] = [formatTime(low), formatTime(high)];
  return from === to ? from : `${from} to ${to}`;
}

function formulaEntry({ formula, makespan }: PipelineResult): FigureEntry[] {
  if (formula === undefined) return [];
  const differs = Math.abs(formula.makespan - makespan) > 1e-9 * makespan;
  return [
    {
      name: "By the formula",
      value: formatTime(formula.makespan),
      beside: formula.exact ? (differs ? "without transfers" : "exact here") : "not exact here",
      title:
        `Bubble ${formula.formula} = ${formatTime(formula.bubble)}; ` +
        `exact when ${formula.exactWhen}`,
    },
  ];
}

export function PipelineFigures({ result }: { readonly result: PipelineResult }): VNode {
  const { makespan, lowerBound, bubbleShare, peakActivations, limit } = result;
  const peak = most(peakActivations);
  const idle = Array.from(result.idle);
  const gap = lowerBound.gap / makespan;
  return (
    <Figures
      label="Figures of the pipeline"
      entries={[
        { name: "Makespan", value: formatTime(makespan), color: "accent" },
        {
          name: "Idle",
          value: formatPercent(bubbleShare),
          beside: `${spread(idle)} a rank`,
          color: "second",
        },
        ...formulaEntry(result),
        {
          name: "Lower bound",
          value: formatTime(lowerBound.makespan),
          beside: lowerBound.gap < 1e-9 * makespan ? "met" : `gap ${formatPercent(gap)}`,
          title: `No order of these operations is faster; rank ${lowerBound.rank} bounds it`,
        },
        {
          name: "Peak held",
          value: formatCount(peak),
          beside: `${spread(peakActivations)} a rank`,
          color: limit !== undefined && peak > limit ? "alert" : undefined,
          title: "Micro-batches between forward and backward, each counted once a stage",
        },
        {
          name: "Operations",
          value: formatCount(result.numOperations),
          beside: formatMs(result.elapsedMs),
        },
      ]}
    />
  );
}

/** Violations told in full; one by one they say much the same. */
const LISTED = 3;

export function Validation({ result }: { readonly result: PipelineResult }): VNode {
  const { ok, violations, omitted, readings } = result.verdict;
  if (ok) {
    return (
      <p class="verdict" role="status" data-ok="true">
        <strong>Valid:</strong> complete, free of deadlock in {readings.join(" and ")} order
        {result.limit === undefined ? "" : ", within the memory limit"}.
      </p>
    );
  }
  return (
    <div class="verdict" role="status" data-ok="false">
      <strong>
        Not valid: {violations.length + omitted} violation
        {violations.length + omitted === 1 ? "" : "s"}
      </strong>
      <ul>
        {violations.slice(0, LISTED).map(({ code, message }) => (
          <li key={message}>
            <code>{code}</code> {message}
          </li>
        ))}
      </ul>
      {violations.length + omitted > LISTED && (
        <p>and {violations.length + omitted - LISTED} more</p>
      )}
    </div>
  );
}
