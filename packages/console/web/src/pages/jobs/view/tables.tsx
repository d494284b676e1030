// Tables of the jobs page: steps with their figures, executors, what is slow, what failed.

import { quantile, type StepView } from "@open-infra/smallpond/live";
import type { VNode } from "preact";
import { formatBytes, formatCount, formatMs, NOT_KNOWN } from "../../../ui/format.ts";
import type { Shown } from "../session.ts";

/** A running task is slow after this and so many times its step's median. */
const slowMs = 1_000;
const slowTimes = 3;
const rowsMax = 50;

const stepColumns = [
  ...["Done", "Reused", "Retries", "p50", "p95", "p99", "Rows", "Written", "Peak memory"],
  "Processor",
];
const executorColumns = ["Cores", "Memory", "Runs", "Done", "Last news"];

interface ShownProps {
  readonly shown: Shown;
}

/** Figures of each step's tasks. */
export function StepTable({ shown }: ShownProps): VNode {
  return (
    <section class="bench-card" aria-label="Steps">
      <header>
        <h2>Steps</h2>
      </header>
      <div class="bench-table-scroll">
        <table class="bench-table">
          <thead>
            <tr>
              <th scope="col">Step</th>
              {stepColumns.map((name) => (
                <th key={name} scope="col" data-number>
                  {name}
                </th>
              ))}
              <th scope="col">What</th>
            </tr>
          </thead>
          <tbody>
            {[...shown.view.steps.values()].map((step) => (
              <StepRow key={step.node} step={step} />
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function StepRow({ step }: { readonly step: StepView }): VNode {
  const times = step.elapsedMs.toSorted((a, b) => a - b);
  const all = Math.max(step.tasks, step.done);
  const figures = [
    `${formatCount(step.done)}/${formatCount(all)}`,
    ...[formatCount(step.reused), formatCount(step.retries)],
    ...[0.5, 0.95, 0.99].map((part) => formatMs(quantile(times, part))),
    ...[formatCount(step.rows), formatBytes(step.bytes), formatBytes(step.maxRssBytes)],
    formatMs(step.cpuMs),
  ];
  // Files that are read by others' tasks have no figures of their own.
  const numbers = all === 0 ? figures.map(() => NOT_KNOWN) : figures;
  return (
    <tr>
      <th scope="row" title={step.source}>
        {step.node}
      </th>
      {numbers.map((text, i) => (
        <td key={i} data-number>
          {text}
        </td>
      ))}
      <td class="jobs-query" title={step.text}>
        <code>{step.text}</code>
      </td>
    </tr>
  );
}

/** Who runs tasks. */
export function ExecutorTable({ shown }: ShownProps): VNode {
  const { view, nowMs } = shown;
  return (
    <section class="bench-card" aria-label="Executors">
      <header>
        <h2>Executors</h2>
      </header>
      <div class="bench-table-scroll">
        <table class="bench-table">
          <thead>
            <tr>
              <th scope="col">Executor</th>
              <th scope="col">State</th>
              {executorColumns.map((name) => (
                <th key={name} scope="col" data-number>
                  {name}
                </th>
              ))}
              <th scope="col">Why</th>
            </tr>
          </thead>
          <tbody>
            {[...view.executors.values()].map((seat) => (
              <tr key={seat.name}>
                <th scope="row">{seat.name}</th>
                <td data-state={seat.state}>{seat.state}</td>
                <td data-number>{formatCount(seat.cpus)}</td>
                <td data-number>
                  {seat.memoryBytes === undefined ? NOT_KNOWN : formatBytes(seat.memoryBytes)}
                </td>
                <td data-number>{formatCount(seat.running)}</td>
                <td data-number>{formatCount(seat.done)}</td>
                <td data-number>
                  {seat.state === "left"
                    ? NOT_KNOWN
                    : `${formatMs(Math.max(0, nowMs - seat.lastSeenMs))} ago`}
                </td>
                <td class="why">{seat.reason}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

/** Tasks that run much longer than their kind. */
export function Stragglers({ shown: { view, nowMs } }: ShownProps): VNode | null {
  const slow = view.attempts.flatMap((attempt) => {
    if (attempt.endMs !== undefined) return [];
    const times = view.steps.get(attempt.node)?.elapsedMs.toSorted((a, b) => a - b) ?? [];
    const usual = quantile(times, 0.5);
    const ranMs = nowMs - attempt.startMs;
    const late = usual !== undefined && ranMs > Math.max(slowMs, slowTimes * usual);
    return late ? [{ attempt, ranMs, usual }] : [];
  });
  if (slow.length === 0) return null;
  slow.sort((a, b) => b.ranMs / b.usual - a.ranMs / a.usual);
  return (
    <section class="bench-card" aria-label="Stragglers">
      <header>
        <h2>Stragglers</h2>
        <p>Running more than {slowTimes} times their step's median.</p>
      </header>
      <ul class="jobs-stragglers">
        {slow.slice(0, rowsMax).map(({ attempt, ranMs, usual }) => (
          <li key={`${attempt.key}.${attempt.attempt}`}>
            <strong>{attempt.node}</strong> {attempt.key.slice(0, 8)} on {attempt.executor}:{" "}
            {formatMs(ranMs)}, usually {formatMs(usual)}
          </li>
        ))}
      </ul>
    </section>
  );
}

/** What failed, the latest first. */
export function Failures({ shown: { view } }: ShownProps): VNode | null {
  if (view.failures.length === 0) return null;
  const failures = view.failures.toReversed().slice(0, rowsMax);
  return (
    <section class="bench-card" aria-label="Failures">
      <header>
        <h2>Failures</h2>
        <p>
          {formatCount(view.failures.filter(({ final }) => final).length)} for good, the others were
          tried again.
        </p>
      </header>
      {failures.map(({ atMs, node, key, executor, final, error }) => (
        <details key={`${key}.${atMs}`} class="jobs-failure" data-final={final} open={final}>
          <summary>
            {final ? "Failed" : "Tried again"}: {node} {key.slice(0, 8)} on {executor}
          </summary>
          <pre>{error}</pre>
        </details>
      ))}
    </section>
  );
}
