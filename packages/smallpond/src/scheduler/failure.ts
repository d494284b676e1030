// What follows from a failed attempt: another one, more memory, or the end.

import { TaskError } from "../errors.ts";
import type { Attempt } from "./entry.ts";
import type { FaultPolicy } from "./policy.ts";

/** What to do. */
export type Verdict =
  /** It was told to end by others than the scheduler: once more, and nothing is counted. */
  | { readonly kind: "stopped" }
  /** Its executor is gone: once more elsewhere. */
  | { readonly kind: "lost" }
  /** Once more with a multiple of the memory that the task asks for. */
  | { readonly kind: "relax"; readonly memoryScale: number }
  /** Once more, rather on another executor. */
  | { readonly kind: "again" }
  | { readonly kind: "final"; readonly note: string };

/** Why an attempt failed, in one word. */
export function reasonOf(error: Error): string {
  if (error instanceof TaskError) return error.reason;
  return "code" in error && error.code === "disk" ? "disk" : "internal";
}

/**
 * Judges a failure by its reason, the task's past and the options.
 *
 * @param ceilingBytes The most memory that the task could get.
 * @param crashed Its executor ended by itself.
 */
export function judge(
  attempt: Attempt,
  error: Error,
  policy: FaultPolicy,
  ceilingBytes: number,
  crashed: boolean,
): Verdict {
  const { entry, seat, memoryBytes } = attempt;
  const reason = reasonOf(error);
  if (reason === "stopped") return { kind: "stopped" };
  const crash = crashed || reason === "crash";
  if (reason === "memory" || (crash && policy.crashIsMemory)) {
    if (memoryBytes < ceilingBytes && policy.maxFailures > 1) {
      const asked = Math.max(1, seat.memoryFor(entry.task.resources));
      return { kind: "relax", memoryScale: (2 * memoryBytes) / asked };
    }
    if (reason === "memory" && memoryBytes >= ceilingBytes) {
      return { kind: "final", note: "; no executor has more memory" };
    }
  }
  if (reason === "executor-lost") {
    if (entry.losses < policy.maxLosses) return { kind: "lost" };
    return { kind: "final", note: `; so were ${entry.losses} executors before under this task` };
  }
  // A query or a function that is wrong stays wrong; what the machine did may not happen again.
  const lasting = reason === "sql" || reason === "function";
  if (lasting && policy.retryErrors === "machine") return { kind: "final", note: "" };
  if (entry.failures + 1 < policy.maxFailures) return { kind: "again" };
  const note = policy.maxFailures > 1 ? ` (failure ${entry.failures + 1}, the last allowed)` : "";
  return { kind: "final", note };
}

/** The error that ends a task, with how often it was tried. */
export function finalError(error: Error, task: string, attempts: number, note: string): Error {
  if (note === "" && error instanceof TaskError) return Object.assign(error, { attempts });
  const prefix = `task ${task}: `;
  const { message } = error;
  const text = message.startsWith(prefix) ? message.slice(prefix.length) : message;
  return new TaskError(task, attempts, reasonOf(error), text + note, { cause: error });
}
