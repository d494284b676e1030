// One task's life in the scheduler: what it waits for, who waits for it, how often it failed.

import type { Task, TaskResult } from "../task/task.ts";

export type TaskState = "waiting" | "ready" | "running" | "done" | "failed";

/** A task the scheduler knows. */
export class Entry {
  readonly task: Task;
  state: TaskState = "waiting";
  /** Inputs that are not done. */
  waits = 0;
  readonly users: Set<Entry> = new Set();
  /** Attempts begun; the next one's number. */
  attempts = 0;
  /** Attempts that run now: more than one while a straggler is raced. */
  live = 0;
  failures = 0;
  /** Executors that died under it. */
  losses = 0;
  memoryScale = 1;
  result: TaskResult | undefined;
  readonly finished: PromiseWithResolvers<TaskResult> = Promise.withResolvers();

  constructor(task: Task) {
    this.task = task;
    // Whoever asked for the task awaits it; nobody may.
    this.finished.promise.catch(() => {});
  }
}

/** How long a node's tasks take, for telling stragglers. */
export class NodeTimes {
  readonly #times = new Map<string, number[]>();

  add(node: string, elapsedMs: number): void {
    const times = this.#times.get(node) ?? [];
    times.push(elapsedMs);
    this.#times.set(node, times);
  }

  /** Samples, and the time that so many of them stay below; undefined without any. */
  quantile(node: string, part: number): { samples: number; ms: number } | undefined {
    const times = this.#times.get(node);
    if (times === undefined) return undefined;
    const sorted = times.toSorted((a, b) => a - b);
    const at = Math.min(sorted.length - 1, Math.floor(sorted.length * part));
    return { samples: sorted.length, ms: sorted[at] as number };
  }
}
