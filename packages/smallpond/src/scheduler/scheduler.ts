// Decides which task runs where and when: dependencies, resources, retries, executors that vanish.
// One scheduler serves all actions of a session. It holds no data and reads no clock; what it knows
// comes in as calls.

import { deserializeError } from "@open-infra/errors";
import { concatData, type DataSet } from "../dataset/dataset.ts";
import { InfeasibleTaskError, TaskError } from "../errors.ts";
import type { ExecutorHandle } from "../executor/local.ts";
import type { FromExecutor } from "../executor/protocol.ts";
import type { TaskGraph } from "../plan/planner.ts";
import type { JobFolder } from "../task/commit.ts";
import type { InputRef, Task, TaskResult } from "../task/task.ts";

/** How failures are met. */
export interface SchedulerOptions {
  /** Failures of one task before the job ends. @default 3 */
  readonly maxFailures: number;
}

/** What a listener is told. */
export interface TaskEvent {
  readonly type: "started" | "finished" | "failed" | "reused";
  readonly task: Task;
  readonly attempt: number;
  readonly executor: string | undefined;
  readonly result?: TaskResult;
}

interface Entry {
  readonly task: Task;
  state: "waiting" | "ready" | "running" | "done" | "failed";
  waits: number;
  readonly users: Set<Entry>;
  attempts: number;
  failures: number;
  memoryScale: number;
  result: TaskResult | undefined;
  readonly finished: PromiseWithResolvers<TaskResult>;
}

interface Seat {
  readonly handle: ExecutorHandle;
  freeCpus: number;
  freeMemory: number;
  readonly running: Map<
    string,
    { readonly attempt: number; readonly cpus: number; readonly memory: number }
  >;
}

/** Runs task graphs on executors. */
export class Scheduler {
  readonly #folder: JobFolder;
  readonly #options: SchedulerOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #ready: Entry[] = [];
  readonly #seats: Seat[] = [];
  readonly #listeners = new Set<(event: TaskEvent) => void>();

  constructor(folder: JobFolder, options: SchedulerOptions) {
    this.#folder = folder;
    this.#options = options;
  }

  addExecutor(handle: ExecutorHandle): void {
    const { cpus, memoryBytes } = handle.capacity;
    const seat: Seat = { handle, freeCpus: cpus, freeMemory: memoryBytes, running: new Map() };
    this.#seats.push(seat);
    handle.onMessage((message) => this.#take(seat, message));
    handle.onExit((reason) => this.#lost(seat, reason));
    this.#dispatch();
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

  #expectFeasible(task: Task): void {
    const largest = this.#seats.reduce(
      (most, { handle }) => Math.max(most, handle.capacity.cpus),
      0,
    );
    const memory = this.#seats.reduce(
      (most, { handle }) => Math.max(most, handle.capacity.memoryBytes),
      0,
    );
    const { cpus, memoryBytes = 0 } = task.resources;
    if (cpus > largest)
      throw new InfeasibleTaskError(task.node, `${cpus} cores`, `${largest} cores`);
    if (memoryBytes > memory) {
      throw new InfeasibleTaskError(task.node, `${memoryBytes} bytes of memory`, `${memory}`);
    }
  }

  #enter(task: Task): Entry {
    const known = this.#entries.get(task.key);
    if (known !== undefined && known.state !== "failed") return known;
    const entry: Entry = {
      task,
      state: "waiting",
      waits: 0,
      users: new Set(),
      attempts: 0,
      failures: 0,
      memoryScale: 1,
      result: undefined,
      finished: Promise.withResolvers(),
    };
    entry.finished.promise.catch(() => {});
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
    for (let i = 0; i < this.#ready.length; ) {
      const entry = this.#ready[i] as Entry;
      const seat = this.#seatFor(entry);
      if (seat === undefined) {
        i++;
        continue;
      }
      this.#ready.splice(i, 1);
      this.#startOn(entry, seat);
    }
  }

  #memoryOf(entry: Entry, seat: Seat): number {
    const { cpus, memoryBytes } = entry.task.resources;
    const { capacity } = seat.handle;
    const share = (capacity.memoryBytes * Math.min(cpus, capacity.cpus)) / capacity.cpus;
    return Math.min(capacity.memoryBytes, (memoryBytes ?? share) * entry.memoryScale);
  }

  #seatFor(entry: Entry): Seat | undefined {
    const { cpus } = entry.task.resources;
    let best: Seat | undefined;
    for (const seat of this.#seats) {
      if (seat.freeCpus < cpus || seat.freeMemory < this.#memoryOf(entry, seat) - 1) continue;
      if (best === undefined || seat.freeCpus > best.freeCpus) best = seat;
    }
    return best;
  }

  #startOn(entry: Entry, seat: Seat): void {
    const { task } = entry;
    const memory = this.#memoryOf(entry, seat);
    const attempt = entry.attempts++;
    entry.state = "running";
    seat.freeCpus -= task.resources.cpus;
    seat.freeMemory -= memory;
    seat.running.set(task.key, { attempt, cpus: task.resources.cpus, memory });
    const inputs = task.inputs.map((refs) => concatData(refs.map((ref) => this.#data(ref))));
    this.#tell({ type: "started", task, attempt, executor: seat.handle.id });
    seat.handle.send({ run: { task, inputs }, attempt, memoryBytes: memory });
  }

  #data(ref: InputRef): DataSet {
    if ("data" in ref) return ref.data;
    const result = this.#entries.get(ref.task)?.result as TaskResult;
    return result.outputs[ref.output] as DataSet;
  }

  #take(seat: Seat, message: FromExecutor): void {
    if ("done" in message) {
      const entry = this.#entries.get(message.done.key);
      this.#leave(seat, message.done.key);
      if (entry !== undefined && entry.state !== "done") {
        this.#finish(entry, message.done, "finished", seat.handle.id);
      }
    } else if ("failed" in message) {
      const entry = this.#entries.get(message.failed);
      this.#leave(seat, message.failed);
      if (entry?.state === "running") {
        this.#retry(entry, deserializeError(message.error, [TaskError]), seat.handle.id);
      }
    }
    this.#dispatch();
  }

  #leave(seat: Seat, key: string): void {
    const held = seat.running.get(key);
    if (held === undefined) return;
    seat.running.delete(key);
    seat.freeCpus += held.cpus;
    seat.freeMemory += held.memory;
  }

  #retry(entry: Entry, error: Error, executor: string): void {
    entry.failures++;
    this.#tell({ type: "failed", task: entry.task, attempt: entry.attempts - 1, executor });
    const reason = error instanceof TaskError ? error.reason : "internal";
    if (reason === "memory") entry.memoryScale *= 2;
    // A query that is wrong stays wrong.
    if (reason !== "sql" && entry.failures < this.#options.maxFailures) this.#makeReady(entry);
    else this.#fail(entry, error);
  }

  #fail(entry: Entry, error: Error): void {
    entry.state = "failed";
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
      const entry = this.#entries.get(key);
      if (entry?.state !== "running") continue;
      const message = `executor ${id} was lost (${reason})`;
      this.#retry(
        entry,
        new TaskError(entry.task.node, entry.attempts, "executor-lost", message),
        id,
      );
    }
    if (this.#seats.length === 0) {
      for (const entry of this.#entries.values()) {
        if (entry.state === "done" || entry.state === "failed") continue;
        const message = `no executor is left; the last one, ${id}, was lost (${reason})`;
        this.#fail(entry, new TaskError(entry.task.node, entry.attempts, "executor-lost", message));
      }
    }
    this.#dispatch();
  }

  #tell(event: TaskEvent): void {
    for (const listener of this.#listeners) listener(event);
  }
}
