// What a job leaves for people: one line a task in `log/tasks.jsonl` as it happens, figures of each
// node in `log/metrics.csv`, and when what ran where as a Chrome trace in `log/timeline.json`.

import { appendFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { TaskEvent } from "../scheduler/scheduler.ts";
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
  readonly #ran: Ran[] = [];
  readonly #reused = new Map<string, number>();
  readonly #retries = new Map<string, number>();
  #started = 0;
  #finished = 0;

  /** @param folder The job's `log`. */
  constructor(folder: string) {
    this.#folder = folder;
  }

  take(event: TaskEvent): void {
    const { type, task, result } = event;
    if (type === "started") this.#started++;
    if (type === "finished" && result !== undefined) {
      this.#finished++;
      this.#ran.push({ task, result });
    }
    if (type === "reused") this.#reused.set(task.node, (this.#reused.get(task.node) ?? 0) + 1);
    if (type === "retried") this.#retries.set(task.node, (this.#retries.get(task.node) ?? 0) + 1);
    const line = { type, key: task.key, node: task.node, executor: event.executor };
    const error = event.error === undefined ? {} : { error: event.error.message };
    this.#append("events.jsonl", { atMs: Date.now(), ...line, attempt: event.attempt, ...error });
    // The whole task once, so that it can be run again alone.
    if (type === "started" && event.attempt === 0) this.#append("tasks.jsonl", task);
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

  /** Writes `metrics.csv` and `timeline.json`. */
  write(): void {
    writeFileSync(join(this.#folder, "metrics.csv"), metricsCsv(this.figures()));
    writeFileSync(join(this.#folder, "timeline.json"), JSON.stringify(timeline(this.#ran)));
  }

  #append(file: string, value: unknown): void {
    appendFileSync(join(this.#folder, file), `${JSON.stringify(value)}\n`);
  }
}

/** The tasks a job has started, in order. */
export function readTasks(folder: string): Task[] {
  return readFileSync(join(folder, "tasks.jsonl"), "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Task);
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

/** A lane a task needs on its executor, so that tasks side by side do not overlap. */
function timeline(ran: readonly Ran[]): object {
  const executors = [...new Set(ran.map(({ result }) => result.metrics.executor))];
  const startMs = Math.min(...ran.map(({ result }) => result.metrics.startedMs));
  const lanes = new Map<string, number[]>();
  const spans = ran
    .toSorted((a, b) => a.result.metrics.startedMs - b.result.metrics.startedMs)
    .map(({ task, result }) => {
      const { metrics } = result;
      const ends = lanes.get(metrics.executor) ?? [];
      lanes.set(metrics.executor, ends);
      const free = ends.findIndex((end) => end <= metrics.startedMs);
      const tid = free < 0 ? ends.length : free;
      ends[tid] = metrics.startedMs + metrics.elapsedMs;
      return {
        ph: "X",
        cat: "task",
        name: task.node,
        pid: executors.indexOf(metrics.executor),
        tid,
        ts: (metrics.startedMs - startMs) * 1000,
        dur: metrics.elapsedMs * 1000,
        args: { key: task.key, ...task.partition, rows: metrics.outputRows },
      };
    });
  const names = executors.map((name, pid) => ({
    ph: "M",
    name: "process_name",
    pid,
    args: { name: `executor ${name}` },
  }));
  return { traceEvents: [...names, ...spans] };
}
