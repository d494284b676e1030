// What the scheduler knows of one executor: what is free on it, what runs there, when it was last
// heard of.

import type { ExecutorHandle } from "../executor/local.ts";
import type { GpuShare, Load } from "../executor/protocol.ts";
import type { Resources } from "../task/task.ts";
import type { Attempt } from "./entry.ts";

/**
 * `starting` until it first speaks; `low` while its machine is short of memory: one task at a time;
 * `stopping`: nothing new.
 */
export type SeatState = "starting" | "good" | "low" | "stopping" | "lost";

/** Shares of cores and GPUs are sums of fractions, which do not come out to the last bit. */
const slack = 1e-9;
/** Free memory of the machine below which it is low (as the original's), and good again. */
const lowMemory = 1 / 16;
const goodMemory = 1 / 10;

const nameOf = (key: string, attempt: number): string => `${key}/${attempt}`;

/** One executor's place. */
export class Seat {
  readonly handle: ExecutorHandle;
  state: SeatState = "starting";
  lastSeenMs: number;
  readonly #running = new Map<string, Attempt>();
  #freeCpus: number;
  #freeMemory: number;
  readonly #freeGpus: number[];

  constructor(handle: ExecutorHandle, nowMs: number) {
    this.handle = handle;
    this.lastSeenMs = nowMs;
    this.#freeCpus = handle.capacity.cpus;
    this.#freeMemory = handle.capacity.memoryBytes;
    this.#freeGpus = Array.from({ length: Math.floor(handle.capacity.gpus) }, () => 1);
  }

  /** Attempts that hold something here. */
  get running(): Iterable<Attempt> {
    return this.#running.values();
  }

  get load(): number {
    return this.#running.size;
  }

  get freeCpus(): number {
    return this.#freeCpus;
  }

  get freeMemory(): number {
    return this.#freeMemory;
  }

  /** Free part of each GPU. */
  get freeGpus(): readonly number[] {
    return this.#freeGpus;
  }

  /** It takes tasks now, if they fit. */
  get open(): boolean {
    if (this.#freeCpus <= slack) return false;
    return this.state === "good" || (this.state === "low" && this.#running.size === 0);
  }

  /** It speaks. Gives the state it was in before. */
  heard(nowMs: number, load: Load | undefined): SeatState {
    const before = this.state;
    this.lastSeenMs = nowMs;
    if (before === "starting") this.state = "good";
    if (load !== undefined && (this.state === "good" || this.state === "low")) {
      const free = load.freeMemoryBytes / load.totalMemoryBytes;
      if (free < lowMemory) this.state = "low";
      else if (free > goodMemory) this.state = "good";
    }
    return before;
  }

  /** Memory of a task here: what it asks for, else the memory that goes with its cores. */
  memoryFor({ cpus, memoryBytes }: Resources): number {
    const { capacity } = this.handle;
    if (memoryBytes !== undefined) return memoryBytes;
    return Math.floor((capacity.memoryBytes * Math.min(cpus, capacity.cpus)) / capacity.cpus);
  }

  /** Whether it could run a task when empty. */
  couldRun({ cpus, gpus = 0, memoryBytes = 0 }: Resources): boolean {
    const { capacity } = this.handle;
    return (
      cpus <= capacity.cpus + slack &&
      gpus <= Math.floor(capacity.gpus) + slack &&
      memoryBytes <= capacity.memoryBytes
    );
  }

  /** Whether it can run a task now. */
  fits(resources: Resources, memoryBytes: number): boolean {
    return (
      this.open &&
      resources.cpus <= this.#freeCpus + slack &&
      memoryBytes <= this.#freeMemory &&
      (!resources.gpus || this.devicesFor(resources.gpus) !== undefined)
    );
  }

  /**
   * Devices for a share of GPUs: whole ones first; a rest goes where the least that suffices is
   * free, so that whole devices stay whole. undefined if there are not enough.
   */
  devicesFor(gpus: number): GpuShare[] | undefined {
    const whole = Math.floor(gpus + slack);
    const rest = gpus - whole;
    const shares: GpuShare[] = [];
    for (const [device, free] of this.#freeGpus.entries()) {
      if (shares.length < whole && free > 1 - slack) shares.push({ device, share: 1 });
    }
    if (shares.length < whole) return undefined;
    if (rest <= slack) return shares;
    let best = -1;
    for (const [device, free] of this.#freeGpus.entries()) {
      if (free + slack < rest || shares.some((share) => share.device === device)) continue;
      if (best < 0 || free < (this.#freeGpus[best] as number)) best = device;
    }
    return best < 0 ? undefined : [...shares, { device: best, share: rest }];
  }

  take(attempt: Attempt): void {
    this.#running.set(nameOf(attempt.entry.task.key, attempt.number), attempt);
    this.#hold(attempt, -1);
  }

  find(key: string, attempt: number): Attempt | undefined {
    return this.#running.get(nameOf(key, attempt));
  }

  leave(attempt: Attempt): void {
    if (!this.#running.delete(nameOf(attempt.entry.task.key, attempt.number))) return;
    this.#hold(attempt, 1);
    // Sums of fractions drift; an empty executor is whole again.
    if (this.#running.size > 0) return;
    this.#freeCpus = this.handle.capacity.cpus;
    this.#freeGpus.fill(1);
  }

  #hold(attempt: Attempt, sign: 1 | -1): void {
    this.#freeCpus += sign * attempt.cpus;
    this.#freeMemory += sign * attempt.memoryBytes;
    for (const { device, share } of attempt.gpus) {
      this.#freeGpus[device] = (this.#freeGpus[device] as number) + sign * share;
    }
  }
}
