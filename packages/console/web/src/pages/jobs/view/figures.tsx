// The list of jobs, and the figures of the one that is shown.

import type { VNode } from "preact";
import { formatBytes, formatCount, formatMs } from "../../../ui/format.ts";
import { type FigureEntry, Figures } from "../../../ui/workbench.tsx";
import type { JobsSession, Shown } from "../session.ts";

const stateText = { running: "running", ended: "ended", killed: "killed" } as const;

/** Jobs to choose from, the latest first. */
export function JobList({ session }: { readonly session: JobsSession }): VNode {
  const jobs = session.jobs.value;
  const current = session.shown.value?.job;
  return (
    <nav class="jobs-list" aria-label="Jobs">
      {jobs?.length === 0 && <p class="bench-note">No job lies here yet.</p>}
      <ul>
        {jobs?.map(({ jobId, state, tasks, done, failures, startedMs }) => (
          <li key={jobId}>
            <button
              type="button"
              aria-current={jobId === current}
              onClick={() => session.choose(jobId)}
            >
              <strong>{jobId}</strong>
              <span data-state={failures > 0 ? "failed" : state}>
                {stateText[state]}, {formatCount(done)}/{formatCount(tasks)}
              </span>
              <time dateTime={new Date(startedMs).toISOString()}>
                {new Date(startedMs).toLocaleString()}
              </time>
            </button>
          </li>
        ))}
      </ul>
    </nav>
  );
}

/** How far the job is. */
export function JobFigures({ shown }: { readonly shown: Shown }): VNode {
  const { view, nowMs } = shown;
  const { tasks, done, running } = view.progress;
  const steps = [...view.steps.values()];
  const sum = (of: (step: (typeof steps)[number]) => number): number =>
    steps.reduce((total, step) => total + of(step), 0);
  const [retries, reused, failed] = [
    sum((step) => step.retries),
    sum((step) => step.reused),
    sum((step) => step.failed),
  ];
  const bytes = sum((step) => step.bytes);
  const entries: FigureEntry[] = [
    { name: "Tasks", value: formatCount(done), beside: `of ${formatCount(tasks)}` },
    { name: "Running", value: formatCount(running), color: running > 0 ? "accent" : undefined },
    { name: "Time", value: formatMs(nowMs - (view.startedMs ?? nowMs)) },
    { name: "Written", value: formatBytes(bytes) },
    { name: "Reused", value: formatCount(reused), title: "Results of an earlier run" },
    { name: "Retries", value: formatCount(retries), color: retries > 0 ? "second" : undefined },
    { name: "Failed", value: formatCount(failed), color: failed > 0 ? "alert" : undefined },
  ];
  const share = tasks === 0 ? 0 : done / tasks;
  return (
    <section class="bench-card" aria-label="Progress">
      <Figures label="Job" entries={entries} />
      <progress class="jobs-progress" max={1} value={share} aria-label="Tasks done">
        {Math.round(share * 100)} %
      </progress>
    </section>
  );
}
