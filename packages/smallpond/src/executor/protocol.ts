// What scheduler and executor say to each other; plain data.

import type { SerializedError } from "@open-infra/errors";
import type { BoundTask } from "../task/run.ts";
import type { TaskResult } from "../task/task.ts";

/** What an executor can take on. */
export interface Capacity {
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly gpus: number;
}

/** How an executor process is started. */
export interface ExecutorStart {
  readonly id: string;
  readonly jobRoot: string;
  readonly capacity: Capacity;
}

export type ToExecutor =
  | { readonly run: BoundTask; readonly attempt: number; readonly memoryBytes: number }
  | { readonly stop: string }
  | { readonly shutdown: true };

export type FromExecutor =
  | { readonly ready: Capacity; readonly engine: string }
  | { readonly done: TaskResult; readonly attempt: number }
  | { readonly failed: string; readonly attempt: number; readonly error: SerializedError }
  | { readonly alive: number };
