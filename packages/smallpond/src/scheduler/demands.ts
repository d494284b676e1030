// Whether anybody could ever run a task, and how to say that nobody can.

import { InfeasibleTaskError, NoExecutorError } from "../errors.ts";
import type { Capacity } from "../executor/protocol.ts";
import type { Resources, Task } from "../task/task.ts";
import type { Seat } from "./seat.ts";

const nameOf = ({ cpus, gpus, memoryBytes }: Resources): string => `${cpus} ${gpus} ${memoryBytes}`;

function couldRun(capacity: Capacity, { cpus, gpus = 0, memoryBytes = 0 }: Resources): boolean {
  return (
    cpus <= capacity.cpus + 1e-9 &&
    gpus <= Math.floor(capacity.gpus) + 1e-9 &&
    memoryBytes <= capacity.memoryBytes
  );
}

/**
 * The first of the tasks that neither an executor nor one that will come could run, as an error.
 *
 * @param why Said after what the largest executor has: what became of larger ones.
 */
export function infeasible(
  tasks: Iterable<Task>,
  seats: readonly Seat[],
  coming: readonly Capacity[],
  why = "",
): InfeasibleTaskError | undefined {
  const capacities = [
    ...seats.filter(({ state }) => state !== "stopping").map(({ handle }) => handle.capacity),
    ...coming,
  ];
  const known = new Set<string>();
  for (const { node, resources } of tasks) {
    const name = nameOf(resources);
    if (known.has(name)) continue;
    known.add(name);
    if (capacities.some((capacity) => couldRun(capacity, resources))) continue;
    const { cpus, gpus = 0, memoryBytes } = resources;
    const memory = memoryBytes === undefined ? "" : ` and ${memoryBytes} bytes of memory`;
    const largest = capacities.toSorted(
      (a, b) => b.cpus - a.cpus || b.memoryBytes - a.memoryBytes,
    )[0];
    const has =
      largest === undefined
        ? "nothing: there is no executor"
        : `${largest.cpus} cores, ${largest.gpus} GPUs and ${largest.memoryBytes} bytes of memory`;
    return new InfeasibleTaskError(node, `${cpus} cores, ${gpus} GPUs${memory}`, has + why);
  }
  return undefined;
}

/** The error that no executor came up, with what those that were started said last. */
export function nobodyCame(seats: readonly Seat[], waitedMs: number): NoExecutorError {
  const states = seats.map(({ handle }) => {
    const tail = handle.stderrTail?.().trim();
    return `${handle.id} has not answered${tail ? `; its error stream ends:\n${tail}` : ""}`;
  });
  const seen = states.length === 0 ? ["none was started"] : states;
  return new NoExecutorError(`no executor came up within ${waitedMs} ms: ${seen.join("\n")}`);
}
