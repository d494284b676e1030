// `open-infra smallpond jobs` and `status`: what jobs left or write of themselves, as tables.

import {
  findJob,
  JobFollower,
  jobState,
  listJobs,
  quantile,
  type StepView,
} from "@open-infra/smallpond";
import { type CliContext, printJson, printLine } from "../context.ts";
import { formatBytes } from "../progress.ts";
import { dataRootOf } from "../smallpond-jobs.ts";
import { counted, ellipsis, formatNumber, formatTable } from "../table.ts";

interface Flags {
  readonly dataRoot?: string;
  readonly json: boolean;
}

const time = (ms: number): string => new Date(ms).toISOString().slice(0, 19).replace("T", " ");

export default async function jobs(this: CliContext, flags: Flags): Promise<void> {
  const dataRoot = dataRootOf(flags, this);
  const all = await listJobs(dataRoot);
  if (flags.json) {
    printJson(this, all);
    return;
  }
  if (all.length === 0) printLine(this, `no job lies under ${dataRoot}`);
  else {
    const rows = all.map(({ jobId, state, startedMs, lastMs, tasks, done, failures }) => [
      ...[jobId, state, time(startedMs), `${((lastMs - startedMs) / 1000).toFixed(1)}`],
      ...[`${done}/${tasks}`, failures === 0 ? "" : `${failures}`],
    ]);
    const head = ["job", "state", "began (UTC)", ">seconds", ">tasks", ">failed"];
    for (const line of formatTable(head, rows)) printLine(this, line);
  }
}

function stepRow(step: StepView): string[] {
  const times = step.elapsedMs.toSorted((a, b) => a - b);
  const ms = (part: number): string => formatNumber(Math.round(quantile(times, part) ?? 0));
  return [
    ...[step.node, `${step.done}/${Math.max(step.tasks, step.done)}`, `${step.reused || ""}`],
    ...[`${step.retries || ""}`, ms(0.5), ms(0.95), ms(0.99)],
    ...[formatNumber(step.rows), formatBytes(step.bytes), formatBytes(step.maxRssBytes)],
    ellipsis(step.text, 48),
  ];
}

/** `open-infra smallpond status`. */
export async function status(this: CliContext, flags: Flags, job: string): Promise<void> {
  const root = await findJob(job, dataRootOf(flags, this));
  const follower = new JobFollower(root);
  await follower.read();
  const { view } = follower;
  const state = await jobState(root, view);
  const steps = [...view.steps.values()];
  const { tasks, done } = view.progress;
  if (flags.json) {
    const { jobId, pid, host, startedMs, lastMs, failures } = view;
    const executors = [...view.executors.values()];
    const facts = { jobId, state, pid, host, startedMs, lastMs, tasks, done };
    printJson(this, { ...facts, steps, executors, failures });
    return;
  }
  printLine(this, `${view.jobId}  ${state}, ${done} of ${counted(tasks, "task")}, in ${root}`);
  printLine(this);
  const head = [
    ...["step", ">done", ">reused", ">retries", ">p50 ms", ">p95", ">p99"],
    ...[">rows", ">bytes", ">peak memory", ""],
  ];
  for (const line of formatTable(head, steps.map(stepRow))) printLine(this, line);
  printLine(this);
  const seats = [...view.executors.values()].map((seat) => [
    ...[seat.name, seat.state, `${seat.cpus ?? ""}`],
    seat.memoryBytes === undefined ? "" : formatBytes(seat.memoryBytes),
    ...[`${seat.running}`, `${seat.done}`, ellipsis(seat.reason, 60)],
  ]);
  const columns = ["executor", "state", ">cores", ">memory", ">runs", ">done", ""];
  for (const line of formatTable(columns, seats)) {
    printLine(this, line);
  }
  for (const { node, key, executor, final, error } of view.failures.slice(-10)) {
    printLine(this);
    printLine(this, `${final ? "failed" : "retried"}: ${node} ${key.slice(0, 8)} on ${executor}`);
    printLine(this, `  ${error.split("\n").slice(0, 6).join("\n  ")}`);
  }
}
