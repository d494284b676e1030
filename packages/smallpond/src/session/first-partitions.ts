// Runs partitions of a plan until there are rows enough: the first few, then four times as many,
// and so on. So the first rows of ten thousand partitions cost as much as those of ten.

import type { DataSet } from "../dataset/dataset.ts";
import { knownRows } from "../dataset/dataset.ts";
import type { TaskGraph } from "../plan/planner.ts";
import { type InputRef, type Task, tasksOf } from "../task/task.ts";

/** How many times more partitions each batch has than the one before. */
const growth = 4;

/** The data of the first partitions of a graph's root that together have at least `rows` rows. */
export async function firstPartitions(
  graph: TaskGraph,
  rows: number,
  atOnce: number,
  run: (some: TaskGraph) => Promise<readonly DataSet[]>,
): Promise<readonly DataSet[]> {
  const data: DataSet[] = [];
  let found = 0;
  let batch = atOnce;
  for (let at = 0; at < graph.roots.length; batch *= growth) {
    const roots = graph.roots.slice(at, at + batch);
    const sets = await run({ tasks: tasksFor(roots, graph.tasks), roots });
    data.push(...sets);
    // A part that does not know its rows may have none.
    for (const set of sets) found += knownRows(set) ?? 0;
    if (found >= rows) break;
    at += batch;
  }
  return data;
}

/** The tasks that references need, in the order they are in. */
function tasksFor(roots: readonly (readonly InputRef[])[], all: readonly Task[]): readonly Task[] {
  const needed = new Set<string>();
  const take = (refs: readonly InputRef[]): void => {
    for (const ref of refs) for (const key of tasksOf(ref)) needed.add(key);
  };
  roots.forEach(take);
  // Inputs come before their users, so backwards every user is seen first.
  const tasks = all.toReversed().filter((task) => {
    if (!needed.has(task.key)) return false;
    task.inputs.forEach(take);
    return true;
  });
  return tasks.reverse();
}
