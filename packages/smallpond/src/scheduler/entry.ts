// One task's life in the scheduler: what it waits for, who waits for it, how often it failed; the
// attempts at it; the actions that want it.

import type { DataSet } from "../dataset/dataset.ts";
import type { GpuShare } from "../executor/protocol.ts";
import type { TaskGraph } from "../plan/planner.ts";
import type { Task, TaskResult } from "../task/task.ts";
import type { Seat } from "./seat.ts";

/** `dropped`: nobody wants it any more. `released`: it was done, and its output is gone. */
export type TaskState = "waiting" | "ready" | "running" | "done" | "dropped" | "released";

/** One try at a task. It holds its share of an executor until the executor says it has ended. */
export interface Attempt {
  readonly entry: Entry;
  /** From 0, over the session. */
  readonly number: number;
  readonly seat: Seat;
  readonly startedMs: number;
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly gpus: readonly GpuShare[];
  /** Listeners know how it ended; only its executor has yet to say so. */
  over: boolean;
  /** When the executor was told to end it. */
  stopMs: number | undefined;
}

/** A task the scheduler knows. */
export class Entry {
  readonly task: Task;
  state: TaskState = "waiting";
  /** Inputs that are not done. */
  waits = 0;
  /** Tasks that wait for this one. */
  users: Entry[] = [];
  /** Tasks that read this one and are not over. */
  readers = 0;
  /** Tasks it reads, until it is over. */
  inputs: readonly Entry[] = [];
  readonly actions: Set<Action> = new Set();
  /** Attempts that are not over: more than one while a straggler is raced. */
  readonly live: Set<Attempt> = new Set();
  /** Attempts begun; the next one's number. */
  attempts: number;
  failures = 0;
  /** Executors that were lost under it. */
  losses = 0;
  /** Copies made because it was late. */
  copies = 0;
  memoryScale = 1;
  /** Executors on which it failed. */
  avoid: readonly string[] = [];
  result: TaskResult | undefined;
  /** Running actions whose roots it is one of. */
  pins = 0;
  /** A user holds its data. */
  kept = false;

  constructor(task: Task, attempts: number) {
    this.task = task;
    this.attempts = attempts;
  }

  /** Some running action computes, reads or awaits it. */
  get busy(): boolean {
    const over = this.state === "done" || this.state === "released";
    return !over || this.readers > 0 || this.pins > 0;
  }
}

/** A call of `run`: the tasks it wants and has not got. */
export class Action {
  readonly graph: TaskGraph;
  /** Tasks it waits for. */
  readonly entries: Set<Entry> = new Set();
  over = false;
  readonly #pinned: Entry[] = [];
  readonly #ended = Promise.withResolvers<readonly DataSet[]>();

  constructor(graph: TaskGraph) {
    this.graph = graph;
  }

  /** The roots' data. */
  get ended(): Promise<readonly DataSet[]> {
    return this.#ended.promise;
  }

  /** Keeps a root until the action is over, and for its user. */
  pin(entry: Entry): void {
    entry.pins++;
    entry.kept = true;
    this.#pinned.push(entry);
  }

  resolve(data: readonly DataSet[]): void {
    this.#close();
    this.#ended.resolve(data);
  }

  reject(error: unknown): void {
    this.#close();
    this.#ended.reject(error);
  }

  #close(): void {
    this.over = true;
    for (const entry of this.#pinned) entry.pins--;
  }
}
