// What an action needs that is not there: from its roots back to what is done.

import type { TaskGraph } from "../plan/planner.ts";
import { type InputRef, type Task, type TaskResult, tasksOf } from "../task/task.ts";

/** A plan's tasks by what is to become of them. */
export interface Admission {
  /** Tasks that something needed reads, the roots, and what of them is done; inputs first. */
  readonly needed: readonly Task[];
  /** Of the needed, those whose results an earlier run left. */
  readonly found: ReadonlyMap<string, TaskResult>;
  readonly skipped: readonly Task[];
}

/**
 * Goes from the roots towards the sources and stops where a result is.
 *
 * @param isDone In this session.
 * @param find A result of an earlier run; asked only for what is needed.
 */
export function admit(
  { tasks, roots }: TaskGraph,
  isDone: (task: Task) => boolean,
  find: (task: Task) => TaskResult | undefined,
): Admission {
  const wanted = new Set<string>();
  const found = new Map<string, TaskResult>();
  const want = (refs: readonly InputRef[]): void => {
    for (const ref of refs) for (const key of tasksOf(ref)) wanted.add(key);
  };
  roots.forEach(want);
  // Tasks are in order, so from the last to the first each one's users are seen before it.
  for (const task of tasks.toReversed()) {
    if (!wanted.has(task.key) || isDone(task)) continue;
    const result = find(task);
    if (result === undefined) task.inputs.forEach(want);
    else found.set(task.key, result);
  }
  return {
    needed: tasks.filter(({ key }) => wanted.has(key)),
    found,
    skipped: tasks.filter(({ key }) => !wanted.has(key)),
  };
}
