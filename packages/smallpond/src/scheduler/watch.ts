// What time says about an executor: that it is silent, that it does not obey, that an attempt on it
// takes too long.

import { TaskError } from "../errors.ts";
import type { Attempt } from "./entry.ts";
import type { FaultPolicy } from "./policy.ts";
import type { Seat } from "./seat.ts";

/** Why an executor is to be taken for lost, if it is. */
export function lostReason(seat: Seat, policy: FaultPolicy, nowMs: number): string | undefined {
  const silentMs = Math.round(nowMs - seat.lastSeenMs);
  if (seat.state === "starting") {
    return silentMs > policy.executorStartMs ? `did not come up for ${silentMs} ms` : undefined;
  }
  if (silentMs > policy.heartbeatTimeoutMs) return `silent for ${silentMs} ms`;
  for (const { stopMs } of seat.running) {
    if (stopMs !== undefined && nowMs - stopMs > policy.stopGraceMs) {
      return `did not end a task within ${policy.stopGraceMs} ms`;
    }
  }
  return undefined;
}

/** Attempts of an executor whose time is over, and the errors they end in. */
export function overdue(seat: Seat, nowMs: number): readonly (readonly [Attempt, TaskError])[] {
  return [...seat.running].flatMap((attempt) => {
    const { task } = attempt.entry;
    const limitMs = task.resources.timeoutMs;
    if (attempt.over || limitMs === undefined || nowMs - attempt.startedMs <= limitMs) return [];
    const message = `took longer than its timeout of ${limitMs} ms`;
    return [[attempt, new TaskError(task.node, attempt.number + 1, "timeout", message)] as const];
  });
}
