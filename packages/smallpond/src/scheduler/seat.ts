// What the scheduler knows of one executor: what is free on it, what runs there, when it was last
// heard of.

import type { ExecutorHandle } from "../executor/local.ts";
import type { Resources } from "../task/task.ts";

/** An attempt that runs. */
export interface Running {
  readonly attempt: number;
  readonly startedMs: number;
  readonly cpus: number;
  readonly gpus: number;
  readonly memoryBytes: number;
}

/** One executor's place. */
export class Seat {
  readonly handle: ExecutorHandle;
  /** By task key. */
  readonly running: Map<string, Running> = new Map();
  lastSeenMs: number;
  /** It has spoken: it is up. */
  ready = false;
  #freeCpus: number;
  #freeGpus: number;
  #freeMemory: number;

  constructor(handle: ExecutorHandle, nowMs: number) {
    this.handle = handle;
    this.lastSeenMs = nowMs;
    this.#freeCpus = handle.capacity.cpus;
    this.#freeGpus = handle.capacity.gpus;
    this.#freeMemory = handle.capacity.memoryBytes;
  }

  get freeCpus(): number {
    return this.#freeCpus;
  }

  /** What a task gets here: what it asks for, else the memory that goes with its cores. */
  memoryFor(resources: Resources, scale: number): number {
    const { capacity } = this.handle;
    const cores = Math.min(resources.cpus, capacity.cpus);
    const share = (capacity.memoryBytes * cores) / capacity.cpus;
    const asked = (resources.memoryBytes ?? share) * scale;
    return Math.floor(Math.min(capacity.memoryBytes, asked));
  }

  /** Whether it could run a task when empty. */
  couldRun({ cpus, gpus = 0, memoryBytes = 0 }: Resources): boolean {
    const { capacity } = this.handle;
    return cpus <= capacity.cpus && gpus <= capacity.gpus && memoryBytes <= capacity.memoryBytes;
  }

  /** Whether it can run a task now. */
  fits(resources: Resources, scale: number): boolean {
    const { cpus, gpus = 0 } = resources;
    // Shares of cores are sums of fractions, which do not come out to the last bit.
    const slack = 1e-9;
    return (
      this.ready &&
      cpus <= this.#freeCpus + slack &&
      gpus <= this.#freeGpus + slack &&
      this.memoryFor(resources, scale) <= this.#freeMemory
    );
  }

  take(key: string, running: Running): void {
    this.running.set(key, running);
    this.#freeCpus -= running.cpus;
    this.#freeGpus -= running.gpus;
    this.#freeMemory -= running.memoryBytes;
  }

  leave(key: string): void {
    const held = this.running.get(key);
    if (held === undefined) return;
    this.running.delete(key);
    this.#freeCpus += held.cpus;
    this.#freeGpus += held.gpus;
    this.#freeMemory += held.memoryBytes;
  }
}
