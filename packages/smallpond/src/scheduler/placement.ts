// Which executor a task goes to, and how much of it the task gets.

import type { Resources, Task } from "../task/task.ts";
import type { Entry } from "./entry.ts";
import { mayBoost } from "./policy.ts";
import type { Seat } from "./seat.ts";
import type { UsualTime } from "./stragglers.ts";

/** What a task asks for, and where it failed. */
export interface Demand {
  readonly resources: Resources;
  readonly memoryScale: number;
  readonly avoid: readonly string[];
}

/** What a task's next attempt asks for. */
export function demandOf({ task, memoryScale, avoid }: Entry): Demand {
  return { resources: task.resources, memoryScale, avoid };
}

/** A task that is usually done within this gains nothing from an engine of another size. */
const worthBoostMs = 200;

/** The most memory that a task could ever get. */
export function ceilingFor(resources: Resources, seats: Iterable<Seat>): number {
  let most = 0;
  for (const seat of seats) {
    if (seat.couldRun(resources)) most = Math.max(most, seat.handle.capacity.memoryBytes);
  }
  return most;
}

/** Memory of a task's next attempt on an executor. */
export function memoryOn(seat: Seat, demand: Demand, seats: Iterable<Seat>): number {
  const { resources, memoryScale } = demand;
  const most = memoryScale > 1 ? ceilingFor(resources, seats) : Number.POSITIVE_INFINITY;
  return Math.min(most, Math.floor(seat.memoryFor(resources) * memoryScale));
}

/**
 * Of the open executors the one with the most free cores that a task fits on; one on which it
 * failed only if no other executor there is could ever run it.
 */
export function chooseSeat(
  demand: Demand,
  open: readonly Seat[],
  all: Iterable<Seat>,
): Seat | undefined {
  const { resources, avoid } = demand;
  let best: Seat | undefined;
  let avoided: Seat | undefined;
  for (const seat of open) {
    if (!seat.fits(resources, memoryOn(seat, demand, all))) continue;
    if (avoid.includes(seat.handle.id)) avoided ??= seat;
    else if (best === undefined || seat.freeCpus > best.freeCpus) best = seat;
  }
  if (best !== undefined || avoided === undefined) return best;
  for (const seat of all) {
    const { id, capacity } = seat.handle;
    if (seat.state === "stopping" || avoid.includes(id) || !seat.couldRun(resources)) continue;
    if (memoryOn(seat, demand, all) <= capacity.memoryBytes) return undefined;
  }
  return avoided;
}

/** Cores and memory of an attempt, more than asked for by up to `factor` where they are idle. */
export function boosted(
  task: Task,
  seat: Seat,
  memoryBytes: number,
  factor: number,
  usual: UsualTime | undefined,
): { readonly cpus: number; readonly memoryBytes: number } {
  const { cpus } = task.resources;
  const brief = usual !== undefined && usual.p50 < worthBoostMs;
  if (factor <= 1 || brief || !mayBoost(task)) return { cpus, memoryBytes };
  const more = Math.floor(Math.min(cpus * factor, seat.freeCpus));
  if (more <= cpus) return { cpus, memoryBytes };
  const memory = Math.floor(Math.min(memoryBytes * factor, seat.freeMemory));
  return { cpus: more, memoryBytes: Math.max(memoryBytes, memory) };
}
