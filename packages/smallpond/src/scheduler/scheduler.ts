// Decides which task runs where and when: dependencies, resources, retries, stragglers, executors
// that vanish. One scheduler serves all actions of a session. It holds no data, and time comes in
// through `tick`, so that a test can run it on a clock of its own.

import { deserializeError } from "@open-infra/errors";
import { concatData, type DataSet } from "../dataset/dataset.ts";
import { InfeasibleTaskError, TaskError } from "../errors.ts";
import type { ExecutorHandle } from "../executor/local.ts";
import type { FromExecutor } from "../executor/protocol.ts";
import type { TaskGraph } from "../plan/planner.ts";
import type { JobFolder } from "../task/commit.ts";
import type { InputRef, Task, TaskResult } from "../task/task.ts";
import { Entry, NodeTimes } from "./entry.ts";
import { Seat } from "./seat.ts";

/** How failures and slowness are met. */
export interface SchedulerOptions {
  /** Failures of one task before the job ends. */
  readonly maxFailures: number;
  /** An executor that was silent for so long is taken for lost. */
  readonly heartbeatTimeoutMs: number;
  /** Races copies of stragglers where executors are free. */
  readonly speculation: boolean;
  /** A task is a straggler after this and three times its node's median. */
  readonly stragglerMs: number;
  /** Told of each executor that was lost; true if another one will come for it. */
  readonly onLost?: (executor: ExecutorHandle, reason: string) => boolean;
}

/** What a listener is told. */
export interface TaskEvent {
  readonly type: "started" | "finished" | "failed" | "reused" | "retried" | "speculated";
  readonly task: Task;
  readonly attempt: number;
  readonly executor: string | undefined;
  readonly result?: TaskResult;
  readonly error?: Error;
}

/** How long an executor may take to come up. */
const startTimeoutMs = 60_000;
/** Executors that may die under one task before it is taken for the cause. */
const maxLosses = 4;
/** Finished tasks of a node before its stragglers are told. */
const speculationSamples = 5;

/** Runs task graphs on executors. */
export class Scheduler {
  readonly #folder: JobFolder;
  readonly #options: SchedulerOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #seats: Seat[] = [];
  readonly #times = new NodeTimes();
  readonly #listeners = new Set<(event: TaskEvent) => void>();
  #ready: Entry[] = [];
  #nowMs = 0;

  constructor(folder: JobFolder, options: SchedulerOptions) {
    this.#folder = folder;
    this.#options = options;
  }

  addExecutor(handle: ExecutorHandle): void {
    const seat = new Seat(handle, this.#nowMs);
    this.#seats.push(seat);
    handle.onMessage((message) => this.#take(seat, message));
    handle.onExit((reason) => this.#lost(seat, reason));
    this.#dispatch();
  }

  get executors(): readonly Seat[] {
    return this.#seats;
  }

  listen(listener: (event: TaskEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Runs what the roots need and is not done, and gives the roots' data.
   *
   * @throws TaskError, InfeasibleTaskError
   */
  async run(graph: TaskGraph): Promise<readonly DataSet[]> {
    for (const task of graph.tasks) this.#expectFeasible(task);
    const entries = graph.tasks.map((task) => this.#enter(task));
    this.#dispatch();
    await Promise.all(entries.map((entry) => entry.finished.promise));
    return graph.roots.map((refs) => concatData(refs.map((ref) => this.#data(ref))));
  }

  /** Lets go of results, so that they are computed again when next asked for. */
  forget(refs: readonly InputRef[]): void {
    for (const ref of refs) {
      if (!("task" in ref)) continue;
      this.#entries.delete(ref.task);
      this.#folder.remove(ref.task);
    }
  }

  /** Tells the time: who is silent, whose time is over, who is slow. */
  tick(nowMs: number): void {
    this.#nowMs = nowMs;
    for (const seat of [...this.#seats]) {
      const silentMs = nowMs - seat.lastSeenMs;
      const limitMs = seat.ready ? this.#options.heartbeatTimeoutMs : startTimeoutMs;
      if (silentMs > limitMs) {
        seat.handle.kill();
        this.#lost(seat, `silent for ${Math.round(silentMs)} ms`);
      } else this.#expectInTime(seat);
    }
    if (this.#options.speculation) this.#speculate();
    this.#dispatch();
  }

  #expectInTime(seat: Seat): void {
    for (const [key, { startedMs, attempt }] of seat.running) {
      const entry = this.#entries.get(key) as Entry;
      const limitMs = entry.task.resources.timeoutMs;
      if (limitMs === undefined || this.#nowMs - startedMs <= limitMs) continue;
      // A query can be interrupted, a function's endless loop cannot: only the process ends both.
      const message = `took longer than its timeout of ${limitMs} ms`;
      const error = new TaskError(entry.task.node, attempt + 1, "timeout", message);
      seat.leave(key);
      entry.live--;
      this.#failed(entry, error, seat.handle.id);
      seat.handle.kill();
      this.#lost(seat, "ended with a task that took too long");
      return;
    }
  }

  #speculate(): void {
    if (this.#ready.length > 0) return;
    for (const seat of this.#seats) {
      for (const [key, { startedMs }] of seat.running) {
        const entry = this.#entries.get(key) as Entry;
        const usual = this.#times.quantile(entry.task.node, 0.5);
        if (entry.live > 1 || usual === undefined || usual.samples < speculationSamples) continue;
        const late = Math.max(this.#options.stragglerMs, 3 * usual.ms);
        if (this.#nowMs - startedMs < late) continue;
        const other = this.#seatFor(entry, seat);
        if (other !== undefined) this.#start(entry, other, "speculated");
      }
    }
  }

  #expectFeasible({ node, resources }: Task): void {
    if (this.#seats.some((seat) => seat.couldRun(resources))) return;
    const { cpus, gpus = 0, memoryBytes } = resources;
    const memory = memoryBytes === undefined ? "" : ` and ${memoryBytes} bytes of memory`;
    const largest = this.#seats
      .map(({ handle: { capacity } }) => capacity)
      .sort((a, b) => b.cpus - a.cpus || b.memoryBytes - a.memoryBytes)[0];
    throw new InfeasibleTaskError(
      node,
      `${cpus} cores, ${gpus} GPUs${memory}`,
      largest === undefined
        ? "nothing: there is no executor"
        : `${largest.cpus} cores, ${largest.gpus} GPUs and ${largest.memoryBytes} bytes of memory`,
    );
  }

  #enter(task: Task): Entry {
    const known = this.#entries.get(task.key);
    if (known !== undefined && known.state !== "failed") return known;
    const entry = new Entry(task);
    this.#entries.set(task.key, entry);
    const done = this.#folder.finished(task.key);
    if (done !== undefined) {
      this.#finish(entry, done, "reused", undefined);
      return entry;
    }
    for (const ref of task.inputs.flat()) {
      if (!("task" in ref)) continue;
      const input = this.#entries.get(ref.task) as Entry;
      if (input.state === "done" || input.users.has(entry)) continue;
      input.users.add(entry);
      entry.waits++;
    }
    if (entry.waits === 0) this.#makeReady(entry);
    return entry;
  }

  #makeReady(entry: Entry): void {
    entry.state = "ready";
    this.#ready.push(entry);
  }

  #dispatch(): void {
    const rest: Entry[] = [];
    let full = false;
    for (const entry of this.#ready) {
      const seat = full ? undefined : this.#seatFor(entry);
      if (seat !== undefined) this.#start(entry, seat, "started");
      else {
        rest.push(entry);
        // Most tasks ask for a core; when none is free there is no use in asking for each.
        full = this.#seats.every(({ ready, freeCpus }) => !ready || freeCpus <= 0);
      }
    }
    this.#ready = rest;
  }

  #seatFor(entry: Entry, not?: Seat): Seat | undefined {
    let best: Seat | undefined;
    for (const seat of this.#seats) {
      if (seat === not || !seat.fits(entry.task.resources, entry.memoryScale)) continue;
      if (best === undefined || seat.freeCpus > best.freeCpus) best = seat;
    }
    return best;
  }

  #start(entry: Entry, seat: Seat, type: "started" | "speculated"): void {
    const { task } = entry;
    const attempt = entry.attempts++;
    const memoryBytes = seat.memoryFor(task.resources, entry.memoryScale);
    const { cpus, gpus = 0 } = task.resources;
    entry.state = "running";
    entry.live++;
    seat.take(task.key, { attempt, startedMs: this.#nowMs, cpus, gpus, memoryBytes });
    const inputs = task.inputs.map((refs) => concatData(refs.map((ref) => this.#data(ref))));
    this.#tell({ type, task, attempt, executor: seat.handle.id });
    seat.handle.send({ run: { task, inputs }, attempt, memoryBytes });
  }

  #data(ref: InputRef): DataSet {
    if ("data" in ref) return ref.data;
    const result = this.#entries.get(ref.task)?.result as TaskResult;
    return result.outputs[ref.output] as DataSet;
  }

  #take(seat: Seat, message: FromExecutor): void {
    seat.lastSeenMs = this.#nowMs;
    seat.ready = true;
    if ("done" in message) this.#done(seat, message.done);
    else if ("failed" in message) {
      const entry = this.#entries.get(message.failed);
      if (entry === undefined || !seat.running.has(message.failed)) return;
      seat.leave(message.failed);
      entry.live--;
      this.#failed(entry, deserializeError(message.error, [TaskError]), seat.handle.id);
    }
    this.#dispatch();
  }

  #done(seat: Seat, result: TaskResult): void {
    const entry = this.#entries.get(result.key);
    if (entry === undefined || !seat.running.has(result.key)) return;
    seat.leave(result.key);
    entry.live--;
    if (entry.state === "done" || entry.state === "failed") return;
    this.#times.add(entry.task.node, result.metrics.elapsedMs);
    for (const other of this.#seats) {
      if (other.running.has(result.key)) other.handle.send({ stop: result.key });
    }
    this.#finish(entry, result, "finished", seat.handle.id);
  }

  #failed(entry: Entry, error: Error, executor: string): void {
    if (entry.state !== "running") return;
    const { task } = entry;
    const attempt = entry.attempts - 1;
    const reason = error instanceof TaskError ? error.reason : "internal";
    if (reason === "executor-lost") entry.losses++;
    else entry.failures++;
    if (reason === "memory") entry.memoryScale *= 2;
    // A query or a function that is wrong stays wrong; what the machine did may not happen again.
    const lasting = reason === "sql" || reason === "function";
    const again = entry.failures < this.#options.maxFailures && entry.losses <= maxLosses;
    if (!lasting && again) {
      this.#tell({ type: "retried", task, attempt, executor, error });
      if (entry.live === 0) this.#makeReady(entry);
      return;
    }
    this.#tell({ type: "failed", task, attempt, executor, error });
    this.#fail(entry, error);
  }

  #fail(entry: Entry, error: Error): void {
    entry.state = "failed";
    this.#ready = this.#ready.filter((other) => other !== entry);
    entry.finished.reject(error);
    for (const user of entry.users) if (user.state !== "failed") this.#fail(user, error);
  }

  #finish(
    entry: Entry,
    result: TaskResult,
    type: "finished" | "reused",
    executor: string | undefined,
  ): void {
    entry.state = "done";
    entry.result = result;
    this.#ready = this.#ready.filter((other) => other !== entry);
    this.#tell({ type, task: entry.task, attempt: entry.attempts - 1, executor, result });
    for (const user of entry.users) {
      user.waits--;
      if (user.waits === 0 && user.state === "waiting") this.#makeReady(user);
    }
    entry.finished.resolve(result);
  }

  #lost(seat: Seat, reason: string): void {
    const at = this.#seats.indexOf(seat);
    if (at < 0) return;
    this.#seats.splice(at, 1);
    const { id } = seat.handle;
    for (const key of seat.running.keys()) {
      const entry = this.#entries.get(key) as Entry;
      entry.live--;
      const message = `executor ${id} was lost (${reason})`;
      this.#failed(
        entry,
        new TaskError(entry.task.node, entry.attempts, "executor-lost", message),
        id,
      );
    }
    const replaced = this.#options.onLost?.(seat.handle, reason) ?? false;
    if (this.#seats.length === 0 && !replaced) this.#nobodyLeft(id, reason);
    this.#dispatch();
  }

  #nobodyLeft(id: string, reason: string): void {
    for (const entry of this.#entries.values()) {
      if (entry.state === "done" || entry.state === "failed") continue;
      const message = `no executor is left; the last one, ${id}, was lost (${reason})`;
      this.#fail(entry, new TaskError(entry.task.node, entry.attempts, "executor-lost", message));
    }
  }

  #tell(event: TaskEvent): void {
    for (const listener of this.#listeners) listener(event);
  }
}
