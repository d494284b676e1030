// What scheduler and executor say to each other; plain data.

import type { SerializedError } from "@open-infra/errors";
import type { StorageOptions } from "../task/disk.ts";
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
  readonly storage?: StorageOptions;
}

/** A part of one GPU of an executor. */
export interface GpuShare {
  readonly device: number;
  /** In (0, 1]. */
  readonly share: number;
}

/** What a machine has left, as its executor sees it. */
export interface Load {
  readonly freeMemoryBytes: number;
  readonly totalMemoryBytes: number;
}

export type ToExecutor =
  | {
      readonly run: BoundTask;
      readonly attempt: number;
      readonly memoryBytes: number;
      /** Cores, where they are more than the task asks for. */
      readonly cpus?: number;
      readonly gpus?: readonly GpuShare[];
    }
  /** Ends an attempt, or every one of a task; answered as a failure with the reason `stopped`. */
  | { readonly stop: string; readonly attempt?: number }
  | { readonly shutdown: true }
  /** It was taken for lost, and what it runs is given to others: it ends, and may come anew. */
  | { readonly rejoin: true };

export type FromExecutor =
  | { readonly ready: Capacity; readonly engine: string }
  | { readonly done: TaskResult; readonly attempt: number }
  | { readonly failed: string; readonly attempt: number; readonly error: SerializedError }
  | { readonly alive: number; readonly load?: Load }
  /** It ends what it runs and takes nothing more: its machine is needed, its time is over. */
  | { readonly leaving: string };
