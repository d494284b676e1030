// What a job leaves for people: what happens as it happens in `log/events.jsonl`, each task whole
// in `log/tasks.jsonl`, figures of each node in `log/metrics.csv`, and when what ran where as
// Chrome traces, by executor in `log/timeline_exec.json` and by node in `log/timeline_plan.json`,
// and the plan as a picture. None of it grows in memory with the number of tasks.

import { writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { LineWriter } from "../live/line-writer.ts";
import type { LogLine, StepLine } from "../live/log-lines.ts";
import type { ExecutorEvent, TaskEvent } from "../scheduler/scheduler.ts";
import type { TaskResult } from "../task/task.ts";
import { metricsCsv, type NodeFigures, NodeMetrics } from "./node-metrics.ts";
import { stepsDot, stepsSvg } from "./plan-picture.ts";
import { TaskSpans } from "./timeline.ts";

/** Collects events of a session. */
export class JobReport {
  readonly #folder: string;
  readonly #jobId: string;
  readonly #events: LineWriter;
  readonly #tasks: LineWriter;
  readonly #metrics = new NodeMetrics();
  readonly #spans = new TaskSpans();
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
    const { type, executor, reason, capacity } = event;
    const why = reason === undefined ? {} : { reason };
    const has =
      capacity === undefined ? {} : { cpus: capacity.cpus, memoryBytes: capacity.memoryBytes };
    this.#say({ type: "executor", atMs: Date.now(), event: type, executor, ...why, ...has });
  }

  take(event: TaskEvent): void {
    const { type, task, result, executor } = event;
    if (type === "started") this.#started++;
    if (type === "finished" && result !== undefined) {
      this.#finished++;
      this.#metrics.finished(task.node, result.metrics);
      this.#spans.add(task, result);
    }
    if (type === "reused") this.#metrics.reused(task.node);
    if (type === "retried") this.#metrics.retried(task.node);
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
    return this.#metrics.figures();
  }

  /** The job ends: writes `metrics.csv`, the timelines and the plan's pictures. */
  write(): void {
    this.#job("ended");
    this.#events.flush();
    this.#tasks.flush();
    const write = (file: string, text: string): void =>
      writeFileSync(join(this.#folder, file), text);
    write("metrics.csv", metricsCsv(this.figures()));
    write("timeline_exec.json", JSON.stringify(this.#spans.trace("executor")));
    write("timeline_plan.json", JSON.stringify(this.#spans.trace("node")));
    const steps = [...this.#steps.values()];
    write("graph.dot", stepsDot(steps));
    write("graph.svg", stepsSvg(steps));
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
