// What listeners of the scheduler are told. Every attempt that `started` or was `speculated` ends
// in exactly one of `finished`, `retried`, `failed` and `stopped`, with the attempt's number.

import type { Capacity } from "../executor/protocol.ts";
import type { Task, TaskResult } from "../task/task.ts";

/** What happened to a task. */
export interface TaskEvent {
  readonly type: /** An attempt began. */
    | "started"
    /** A copy of a straggler began. */
    | "speculated"
    /** An attempt's result is the task's. */
    | "finished"
    /** An attempt failed; the task is tried again, or another attempt of it still runs. */
    | "retried"
    /** An attempt failed, and the task with it. */
    | "failed"
    /** An attempt was ended: another one was first, or nobody wants the task any more. */
    | "stopped"
    /** The result was there: of an earlier run, or of an attempt that was given up for lost. */
    | "reused"
    /** An action does not need the task, as what is made of it is there. */
    | "skipped"
    /** The output was removed to make space; it is computed again if it is asked for again. */
    | "released";
  readonly task: Task;
  /** From 0; -1 where no attempt was made. */
  readonly attempt: number;
  readonly executor: string | undefined;
  readonly result?: TaskResult;
  readonly error?: Error;
}

/** What happened to an executor. */
export interface ExecutorEvent {
  readonly type: "added" | "ready" | "low" | "recovered" | "stopping" | "lost";
  readonly executor: string;
  readonly reason?: string;
  /** Of one that was added, or is ready. */
  readonly capacity?: Capacity;
}
