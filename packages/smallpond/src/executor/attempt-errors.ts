// What an attempt failed of, for the scheduler and for people: out of memory with its limit, a full
// disk with its folder and what is free, the code's own error as it is.

import { type DiskError, TaskError } from "../errors.ts";
import { isDiskFull, namedDiskError } from "../task/disk.ts";
import type { Task } from "../task/task.ts";

const memoryText = /out of memory|cannot allocate memory|bad_alloc|ENOMEM|allocation failed/i;

function isOutOfMemory(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return memoryText.test(error.message) || isOutOfMemory(error.cause);
}

/** Any error of an attempt as a TaskError with the reason that the scheduler judges by. */
export function attemptError(
  error: unknown,
  task: Task,
  limits: { readonly memoryBytes: number; readonly folder: string },
): TaskError {
  const message = error instanceof Error ? error.message : String(error);
  const prefix = `task ${task.node}: `;
  const text = message.startsWith(prefix) ? message.slice(prefix.length) : message;
  const asIs = error instanceof TaskError ? error : undefined;
  if (asIs?.reason === "stopped" || asIs?.reason === "crash") return asIs;
  if (isDiskFull(error)) {
    const disk = namedDiskError(error, limits.folder) as DiskError;
    return new TaskError(task.node, 1, "disk", disk.message, { cause: error });
  }
  if (asIs?.reason === "memory" || isOutOfMemory(error)) {
    const limit = `its limit is ${Math.floor(limits.memoryBytes / 2 ** 20)} MiB`;
    const named = text.includes("its limit is") ? text : `${text}\n${limit}`;
    return new TaskError(task.node, 1, "memory", named, { cause: error });
  }
  return asIs ?? new TaskError(task.node, 1, "internal", text, { cause: error });
}
