// Tables of the pipeline page: idle time by rank and phase, all schedules beside each other, and
// the planner's list.

import type { InfeasiblePlan, Plan } from "@open-infra/dualpipe";
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { formatCount, formatPercent } from "../../../ui/format.ts";
import { CommandLine } from "../../../ui/workbench.tsx";
import type { ComparedRow, CompareResult, PipelineResult } from "../compute.ts";
import { planCommand, scheduleOf } from "../inputs.ts";
import type { PipelineSession } from "../session.ts";
import { formatTime } from "../timeline/cells.ts";
import { BoundField } from "./form.tsx";

/** Idle time of every rank: where the bubbles are, in numbers. */
export function IdleTable({ result }: { readonly result: PipelineResult }): VNode {
  const [open, setOpen] = useState(false);
  return (
    <details
      class="bench-card"
      onToggle={({ currentTarget }) => setOpen((currentTarget as HTMLDetailsElement).open)}
    >
      <summary>Ranks as a table: idle time by place and phase, memory</summary>
      {open && <IdleRows result={result} />}
    </details>
  );
}

function IdleRows({ result }: { readonly result: PipelineResult }): VNode {
  const { idleOf, busy, makespan, peakActivations, peakUntilWeight } = result;
  const phases = Math.max(...idleOf.map(({ byPhase }) => byPhase.length));
  const named = Array.from({ length: Math.max(0, phases - 1) }, (_, i) => i + 1);
  return (
    <div class="bench-table-scroll ranks-scroll">
      <table class="bench-table">
        <thead>
          <tr>
            <th scope="col">Rank</th>
            <th scope="col">Work</th>
            <th scope="col">Idle</th>
            <th scope="col">of the time</th>
            <th scope="col">Warm-up</th>
            <th scope="col">Steady</th>
            <th scope="col">Cool-down</th>
            {named.map((phase) => (
              <th key={phase} scope="col" title={`Waiting for an operation of step ${phase}`}>
                Step {phase}
              </th>
            ))}
            <th scope="col">After the end</th>
            <th scope="col">Held</th>
            <th scope="col">until W</th>
          </tr>
        </thead>
        <tbody>
          {idleOf.map((idle, rank) => (
            <tr key={rank}>
              <th scope="row">{rank}</th>
              <td data-number>{formatTime(busy[rank] as number)}</td>
              <td data-number>{formatTime(idle.total)}</td>
              <td data-number>{formatPercent(idle.total / makespan)}</td>
              <td data-number>{formatTime(idle.warmUp)}</td>
              <td data-number>{formatTime(idle.steady)}</td>
              <td data-number>{formatTime(idle.coolDown)}</td>
              {named.map((phase) => (
                <td key={phase} data-number>
                  {formatTime(idle.byPhase[phase] ?? 0)}
                </td>
              ))}
              <td data-number>{formatTime(idle.afterEnd)}</td>
              <td data-number>{peakActivations[rank]}</td>
              <td data-number>{peakUntilWeight[rank]}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function Comparison({ session }: { readonly session: PipelineSession }): VNode {
  const { result, problem } = session.compared.value;
  const chosen = scheduleOf(session.values.value);
  const rows = result?.rows ?? [];
  return (
    <section class="bench-card own-state" aria-label="All schedules">
      <header>
        <h2>All schedules for the same model and times</h2>
        <p>Held counts a micro-batch of one rank's share of the model as one.</p>
      </header>
      {problem !== null && <p class="field-problem">{problem.message}</p>}
      <div class="bench-table-scroll">
        <table class="bench-table" aria-label="Schedules compared">
          <thead>
            <tr>
              <th scope="col">Schedule</th>
              <th scope="col" data-number>
                Makespan
              </th>
              <th scope="col" data-number>
                Idle
              </th>
              <th scope="col" data-number>
                Parameters
              </th>
              <th scope="col" data-number>
                Held at most
              </th>
              <th scope="col" data-number>
                Devices
              </th>
              <th scope="col">Bubble by the papers</th>
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <tr key={row.schedule} aria-current={row.schedule === chosen}>
                <th scope="row">
                  <button type="button" onClick={() => session.set({ schedule: row.schedule })}>
                    {row.schedule}
                  </button>
                </th>
                <ComparedCells row={row} best={bestOf(rows)} />
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function bestOf(rows: readonly ComparedRow[]): number {
  return Math.min(
    ...rows.map((row) => (row.reason === undefined ? row.makespan : Number.POSITIVE_INFINITY)),
  );
}

function ComparedCells({ row, best }: { readonly row: ComparedRow; readonly best: number }): VNode {
  if (row.reason !== undefined) {
    return (
      <td class="why" colSpan={6}>
        {row.reason}
      </td>
    );
  }
  return (
    <>
      <td data-number data-best={row.makespan <= best}>
        {formatTime(row.makespan)}
      </td>
      <td data-number>{formatPercent(row.bubbleShare)}</td>
      <td data-number>{row.parameterCopies}×</td>
      <td data-number data-over={row.overLimit}>
        {formatTime(row.peakActivations)}
        {row.overLimit && <span class="visually-hidden"> above the limit</span>}
      </td>
      <td data-number>{row.devices}</td>
      <td>{row.formula ?? "uneven times: none"}</td>
    </>
  );
}

function choiceText({ schedule, chunksPerRank }: Plan | InfeasiblePlan): string {
  return chunksPerRank > 1 ? `${schedule} × ${chunksPerRank}` : schedule;
}

export function Planner({ session }: { readonly session: PipelineSession }): VNode {
  const { result } = session.compared.value;
  const request = session.comparison;
  const command = planCommand(request);
  return (
    <section class="bench-card own-state" aria-label="Planner">
      <header>
        <h2>Planner: the fastest first, for each micro-batch</h2>
        <p>
          {request.activationLimit === undefined
            ? "No memory limit is set."
            : `At most ${request.activationLimit} held.`}
        </p>
      </header>
      <div class="planner-form">
        <BoundField
          session={session}
          name="counts"
          label="Counts of micro-batches to try"
          placeholder={request.counts.join(" ")}
        />
      </div>
      {result?.planProblem !== undefined && <p class="field-problem">{result.planProblem}</p>}
      {result !== null && <PlansTable result={result} session={session} />}
      {command !== undefined && <CommandLine command={command} />}
    </section>
  );
}

function PlansTable({
  result,
  session,
}: {
  readonly result: CompareResult;
  readonly session: PipelineSession;
}): VNode {
  return (
    <div class="bench-table-scroll plans-scroll">
      <table class="bench-table" aria-label="Plans">
        <thead>
          <tr>
            <th scope="col">Schedule</th>
            <th scope="col" data-number>
              Micro-batches
            </th>
            <th scope="col" data-number>
              Makespan
            </th>
            <th scope="col" data-number>
              Each
            </th>
            <th scope="col" data-number>
              Idle
            </th>
            <th scope="col" data-number>
              Held at most
            </th>
            <th scope="col" data-number>
              Parameters
            </th>
          </tr>
        </thead>
        <tbody>
          {result.plans.map((plan) => (
            <PlanRow
              key={`${choiceText(plan)} ${plan.numMicroBatches}`}
              plan={plan}
              session={session}
            />
          ))}
          {result.infeasible.map((plan) => (
            <tr key={`${choiceText(plan)} ${plan.numMicroBatches} not`}>
              <th scope="row">{choiceText(plan)}</th>
              <td data-number>{formatCount(plan.numMicroBatches)}</td>
              <td class="why" colSpan={5}>
                {plan.reason}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function PlanRow({
  plan,
  session,
}: {
  readonly plan: Plan;
  readonly session: PipelineSession;
}): VNode {
  const { schedule, chunksPerRank, numMicroBatches } = plan;
  const choose = (): void =>
    session.set({
      schedule,
      microBatches: String(numMicroBatches),
      ...(chunksPerRank > 1 && { chunks: String(chunksPerRank) }),
    });
  return (
    <tr>
      <th scope="row">
        <button type="button" onClick={choose}>
          {choiceText(plan)}
        </button>
      </th>
      <td data-number>{formatCount(numMicroBatches)}</td>
      <td data-number>{formatTime(plan.makespan)}</td>
      <td data-number>{formatTime(plan.timePerMicroBatch)}</td>
      <td data-number>{formatPercent(plan.bubbleShare)}</td>
      <td data-number>{formatTime(plan.peakActivations)}</td>
      <td data-number>{plan.parameterCopies}×</td>
    </tr>
  );
}
