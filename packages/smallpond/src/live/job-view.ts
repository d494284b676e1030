// A job as a person sees it, made from its log line by line: steps and how far they are, executors,
// tasks on a time axis, what failed. Pure: the terminal, the console's page and the tests feed it
// the same lines.

import type { LogLine, StepLine } from "./log-lines.ts";
import { Sample } from "./sample.ts";

/** A job under a data root. */
export interface JobEntry {
  readonly jobId: string;
  readonly root: string;
  readonly state: "running" | "ended" | "killed";
  readonly startedMs: number;
  readonly lastMs: number;
  readonly tasks: number;
  readonly done: number;
  readonly failures: number;
}

/** A step and its tasks. */
export interface StepView extends Omit<StepLine, "tasks"> {
  tasks: number;
  /** Results there are, reused ones included. */
  done: number;
  running: number;
  failed: number;
  retries: number;
  reused: number;
  /** Copies of stragglers. */
  speculated: number;
  rows: number;
  bytes: number;
  maxRssBytes: number;
  cpuMs: number;
  /** Of finished tasks; of very many, a sample. */
  readonly elapsedMs: readonly number[];
}

/** An executor. */
export interface ExecutorView {
  readonly name: string;
  state: string;
  reason: string;
  running: number;
  done: number;
  lastSeenMs: number;
  /** What it takes on; undefined in older logs. */
  cpus: number | undefined;
  memoryBytes: number | undefined;
}

/** An attempt at a task. */
export interface AttemptView {
  readonly key: string;
  readonly node: string;
  readonly attempt: number;
  readonly executor: string;
  readonly startMs: number;
  /** Undefined while it runs. */
  endMs: number | undefined;
  /** How it ended: finished, retried, failed, stopped. */
  outcome: string;
  rows: number | undefined;
  error: string | undefined;
}

/** A failure, newest last. */
export interface FailureView {
  readonly atMs: number;
  readonly node: string;
  readonly key: string;
  readonly executor: string;
  readonly final: boolean;
  readonly error: string;
}

/** Attempts that are kept for the timeline; the first ones go when there are more. */
const attemptsMax = 20_000;
const failuresMax = 200;

/** How an executor ends that is told to: a process of ours, or one that came by itself. */
const endedWell: ReadonlySet<string> = new Set(["exit code 0", "closed"]);

function letGo(seat: ExecutorView): void {
  seat.state = "left";
  seat.reason = "";
}

/** See the head of this file. */
export class JobView {
  jobId = "";
  state: "unknown" | "running" | "ended" = "unknown";
  pid = 0;
  host = "";
  startedMs: number | undefined;
  lastMs = 0;
  actions = 0;
  readonly steps: Map<string, StepView> = new Map();
  readonly executors: Map<string, ExecutorView> = new Map();
  readonly attempts: AttemptView[] = [];
  readonly failures: FailureView[] = [];
  readonly #open = new Map<string, AttemptView>();
  readonly #done = new Set<string>();
  readonly #elapsed = new Map<string, Sample>();

  take(line: LogLine): void {
    this.startedMs ??= line.atMs;
    this.lastMs = Math.max(this.lastMs, line.atMs);
    switch (line.type) {
      case "job":
        this.jobId = line.jobId;
        this.state = line.state;
        this.pid = line.pid;
        this.host = line.host;
        if (line.state === "ended") this.#endAll(line.atMs);
        break;
      case "action":
        this.actions++;
        for (const step of line.steps) this.#plan(step);
        break;
      case "task":
        this.#task(line);
        break;
      case "executor":
        this.#executor(line);
        break;
    }
  }

  /** Tasks of all steps, and how many of them have results. */
  get progress(): { readonly tasks: number; readonly done: number; readonly running: number } {
    let [tasks, done, running] = [0, 0, 0];
    for (const step of this.steps.values()) {
      tasks += Math.max(step.tasks, step.done);
      done += step.done;
      running += step.running;
    }
    return { tasks, done, running };
  }

  #plan(step: StepLine): void {
    const known = this.steps.get(step.node);
    const elapsed = this.#elapsed.get(step.node) ?? new Sample();
    this.#elapsed.set(step.node, elapsed);
    const counts = known ?? {
      ...{ done: 0, running: 0, failed: 0, retries: 0, reused: 0, speculated: 0 },
      ...{ rows: 0, bytes: 0, maxRssBytes: 0, cpuMs: 0, elapsedMs: elapsed.values },
    };
    this.steps.set(step.node, { ...counts, ...step });
  }

  /** A step that no action named, of a log that is older or cut. */
  #step(node: string): StepView {
    const known = this.steps.get(node);
    if (known !== undefined) return known;
    this.#plan({
      node,
      kind: node.split("#")[0] ?? node,
      text: "",
      inputs: [],
      source: "",
      tasks: 0,
    });
    return this.steps.get(node) as StepView;
  }

  #task(line: Extract<LogLine, { type: "task" }>): void {
    const step = this.#step(line.node);
    const { event, key } = line;
    if (event === "started" || event === "speculated") {
      this.#begin(line, step);
      return;
    }
    if (event === "reused" || event === "finished") {
      if (!this.#done.has(key)) step.done++;
      this.#done.add(key);
    }
    if (event === "reused") step.reused++;
    if (event === "released") this.#done.delete(key);
    if (event === "retried") step.retries++;
    if (event === "failed") step.failed++;
    if (event === "finished") {
      step.rows += line.rows ?? 0;
      step.bytes += line.bytes ?? 0;
      step.cpuMs += line.cpuMs ?? 0;
      step.maxRssBytes = Math.max(step.maxRssBytes, line.maxRssBytes ?? 0);
      if (line.elapsedMs !== undefined) this.#elapsed.get(line.node)?.add(line.elapsedMs);
    }
    this.#end(line, step);
    if (line.error !== undefined) {
      this.failures.push({
        ...{ atMs: line.atMs, node: line.node, key, executor: line.executor ?? "" },
        ...{ final: event === "failed", error: line.error },
      });
      if (this.failures.length > failuresMax) this.failures.shift();
    }
  }

  #begin(line: Extract<LogLine, { type: "task" }>, step: StepView): void {
    const { key, node, attempt, executor = "" } = line;
    const view: AttemptView = {
      ...{ key, node, attempt, executor, startMs: line.atMs, endMs: undefined },
      ...{ outcome: "running", rows: undefined, error: undefined },
    };
    step.running++;
    if (line.event === "speculated") step.speculated++;
    this.#open.set(`${key}.${attempt}`, view);
    this.attempts.push(view);
    if (this.attempts.length > attemptsMax) this.attempts.splice(0, attemptsMax / 10);
    const seat = this.executors.get(executor);
    if (seat === undefined) return;
    seat.running++;
    seat.lastSeenMs = line.atMs;
  }

  #end(line: Extract<LogLine, { type: "task" }>, step: StepView): void {
    const name = `${line.key}.${line.attempt}`;
    const view = this.#open.get(name);
    if (view === undefined) return;
    this.#open.delete(name);
    view.endMs = line.atMs;
    view.outcome = line.event;
    view.rows = line.rows;
    view.error = line.error;
    step.running--;
    const seat = this.executors.get(view.executor);
    if (seat === undefined) return;
    seat.running--;
    seat.lastSeenMs = line.atMs;
    if (line.event === "finished") seat.done++;
  }

  #executor(line: Extract<LogLine, { type: "executor" }>): void {
    const { atMs, event, executor, reason = "" } = line;
    const seat = this.executors.get(executor) ?? {
      ...{ name: executor, state: event, reason, running: 0, done: 0, lastSeenMs: atMs },
      ...{ cpus: undefined, memoryBytes: undefined },
    };
    seat.cpus = line.cpus ?? seat.cpus;
    seat.memoryBytes = line.memoryBytes ?? seat.memoryBytes;
    seat.state = event === "recovered" ? "ready" : event;
    seat.reason = reason;
    if (this.state === "ended" && endedWell.has(reason)) letGo(seat);
    seat.lastSeenMs = atMs;
    this.executors.set(executor, seat);
  }

  /** Nothing runs in a job that has ended, whatever its log lacks. */
  #endAll(atMs: number): void {
    for (const view of this.#open.values()) {
      view.endMs = atMs;
      view.outcome = "stopped";
    }
    this.#open.clear();
    for (const step of this.steps.values()) {
      step.running = 0;
      // `take` runs no more partitions than it needs.
      if (step.failed === 0) step.tasks = step.done;
    }
    for (const seat of this.executors.values()) {
      seat.running = 0;
      if (seat.state !== "lost" || endedWell.has(seat.reason)) letGo(seat);
    }
  }
}
