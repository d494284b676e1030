// What a job leaves for people: what happens as it happens in `log/events.jsonl`, each task whole in
// `log/tasks.jsonl`, figures of each node in `log/metrics.csv`, and when what ran where as Chrome
// traces, by executor in `log/timeline_exec.json` and by node in `log/timeline_plan.json`.

import { writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { LineWriter } from "../live/line-writer.ts";
import type { LogLine, StepLine } from "../live/log-lines.ts";
import type { ExecutorEvent, TaskEvent } from "../scheduler/scheduler.ts";
import type { Task, TaskResult } from "../task/task.ts";

/** Figures of one node's tasks. */
export interface NodeFigures {
  readonly node: string;
  readonly tasks: number;
  readonly reused: number;
  readonly retries: number;
  readonly elapsedMs: Quantiles;
  readonly maxRssBytes: Quantiles;
  readonly outputRows: number;
  readonly outputBytes: number;
}

export interface Quantiles {
  readonly sum: number;
  readonly min: number;
  readonly avg: number;
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
  readonly max: number;
}

interface Ran {
  readonly task: Task;
  readonly result: TaskResult;
}

/** Collects events of a session. */
export class JobReport {
  readonly #folder: string;
  readonly #jobId: string;
  readonly #events: LineWriter;
  readonly #tasks: LineWriter;
  readonly #ran: Ran[] = [];
  readonly #reused = new Map<string, number>();
  readonly #retries = new Map<string, number>();
  readonly #steps = new Map<string, StepLine>();
  #started = 0;
  #finished = 0;

  /** @param folder The job's `log`. */
  constructor(folder: string, jobId: string) {
    this.#folder = folder;
    this.#jobId = jobId;
    this.#events = new LineWriter(join(folder, "events.jsonl"));
    this.#tasks = new LineWriter(join(folder, "tasks.jsonl"));
  }

  /** The job begins, or begins again. */
  begin(): void {
    this.#job("running");
  }

  /** `file:line` of the call that made a node; "" if that is not known. */
  sourceOf(node: string): string {
    return this.#steps.get(node)?.source ?? "";
  }

  /** An action begins. */
  action(steps: readonly StepLine[]): void {
    for (const step of steps) this.#steps.set(step.node, step);
    this.#say({ type: "action", atMs: Date.now(), steps });
  }

  executor(event: ExecutorEvent): void {
    const { type, executor, reason } = event;
    const why = reason === undefined ? {} : { reason };
    this.#say({ type: "executor", atMs: Date.now(), event: type, executor, ...why });
  }

  take(event: TaskEvent): void {
    const { type, task, result, executor } = event;
    if (type === "started") this.#started++;
    if (type === "finished" && result !== undefined) {
      this.#finished++;
      this.#ran.push({ task, result });
    }
    if (type === "reused") this.#reused.set(task.node, (this.#reused.get(task.node) ?? 0) + 1);
    if (type === "retried") this.#retries.set(task.node, (this.#retries.get(task.node) ?? 0) + 1);
    this.#say({
      ...{ type: "task", atMs: Date.now(), event: type, key: task.key, node: task.node },
      attempt: event.attempt,
      ...(executor !== undefined && { executor }),
      ...(event.error !== undefined && { error: event.error.message }),
      ...(type === "finished" && result !== undefined && costOf(result)),
    });
    // The whole task once, so that it can be run again alone.
    if (type === "started" && event.attempt === 0) this.#tasks.add(task);
  }

  get progress(): { readonly started: number; readonly finished: number } {
    return { started: this.#started, finished: this.#finished };
  }

  figures(): NodeFigures[] {
    const nodes = [...new Set([...this.#ran.map(({ task }) => task.node), ...this.#reused.keys()])];
    return nodes.map((node) => {
      const results = this.#ran
        .filter(({ task }) => task.node === node)
        .map(({ result }) => result);
      return {
        node,
        tasks: results.length,
        reused: this.#reused.get(node) ?? 0,
        retries: this.#retries.get(node) ?? 0,
        elapsedMs: quantiles(results.map(({ metrics }) => metrics.elapsedMs)),
        maxRssBytes: quantiles(results.map(({ metrics }) => metrics.maxRssBytes)),
        outputRows: results.reduce((sum, { metrics }) => sum + (metrics.outputRows ?? 0), 0),
        outputBytes: results.reduce((sum, { metrics }) => sum + metrics.outputBytes, 0),
      };
    });
  }

  /** The job ends: writes `metrics.csv` and the timelines. */
  write(): void {
    this.#job("ended");
    this.#events.flush();
    this.#tasks.flush();
    const write = (file: string, text: string): void =>
      writeFileSync(join(this.#folder, file), text);
    write("metrics.csv", metricsCsv(this.figures()));
    const byExecutor = timeline(this.#ran, ({ result }) => `executor ${result.metrics.executor}`);
    write("timeline_exec.json", JSON.stringify(byExecutor));
    write("timeline_plan.json", JSON.stringify(timeline(this.#ran, ({ task }) => task.node)));
  }

  #job(state: "running" | "ended"): void {
    const who = { jobId: this.#jobId, pid: process.pid, host: hostname() };
    this.#say({ type: "job", atMs: Date.now(), state, ...who });
  }

  #say(line: LogLine): void {
    this.#events.add(line);
  }
}

function costOf({ metrics }: TaskResult): object {
  const { elapsedMs, outputRows, outputBytes, maxRssBytes, cpuMs } = metrics;
  const rows = outputRows === undefined ? {} : { rows: outputRows };
  return { elapsedMs, ...rows, bytes: outputBytes, maxRssBytes, cpuMs: Math.round(cpuMs) };
}

function quantiles(values: readonly number[]): Quantiles {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (part: number): number =>
    sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] ?? 0;
  const sum = sorted.reduce((total, value) => total + value, 0);
  return {
    sum,
    min: sorted[0] ?? 0,
    avg: sorted.length === 0 ? 0 : sum / sorted.length,
    p50: at(0.5),
    p95: at(0.95),
    p99: at(0.99),
    max: sorted.at(-1) ?? 0,
  };
}

function metricsCsv(figures: readonly NodeFigures[]): string {
  const names = ["sum", "min", "avg", "p50", "p95", "p99", "max"] as const;
  const head = [
    "node",
    "tasks",
    "reused",
    "retries",
    ...names.map((name) => `elapsed_ms_${name}`),
    ...names.slice(1).map((name) => `max_rss_bytes_${name}`),
    "output_rows",
    "output_bytes",
  ];
  const lines = figures.map((node) => [
    node.node,
    node.tasks,
    node.reused,
    node.retries,
    ...names.map((name) => Math.round(node.elapsedMs[name])),
    ...names.slice(1).map((name) => Math.round(node.maxRssBytes[name])),
    node.outputRows,
    node.outputBytes,
  ]);
  return `${[head, ...lines].map((line) => line.join(",")).join("\n")}\n`;
}

/**
 * Tasks as spans of a Chrome trace, those of one group (an executor, a node) on lanes below each
 * other, so that tasks side by side do not overlap.
 */
function timeline(ran: readonly Ran[], groupOf: (one: Ran) => string): object {
  const groups = new Map<string, { pid: number; ends: number[] }>();
  const sorted = ran.toSorted((a, b) => a.result.metrics.startedMs - b.result.metrics.startedMs);
  const startMs = sorted[0]?.result.metrics.startedMs ?? 0;
  const spans = sorted.map((one) => {
    const { task, result } = one;
    const { metrics } = result;
    const name = groupOf(one);
    const group = groups.get(name) ?? { pid: groups.size, ends: [] };
    groups.set(name, group);
    const free = group.ends.findIndex((end) => end <= metrics.startedMs);
    const tid = free < 0 ? group.ends.length : free;
    group.ends[tid] = metrics.startedMs + metrics.elapsedMs;
    return {
      ph: "X",
      cat: "task",
      name: task.node,
      pid: group.pid,
      tid,
      ts: (metrics.startedMs - startMs) * 1000,
      dur: metrics.elapsedMs * 1000,
      args: { key: task.key, ...task.partition, rows: metrics.outputRows },
    };
  });
  const names = [...groups].map(([name, { pid }]) => ({
    ...{ ph: "M", name: "process_name", pid, args: { name } },
  }));
  return { traceEvents: [...names, ...spans] };
}
