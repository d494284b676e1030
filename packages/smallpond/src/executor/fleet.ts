// The executors of a session: how many, how they are started, and who takes the place of a lost one.
// What they run is the scheduler's.

import { type ExecutorHandle, startLocalExecutor } from "./local.ts";
import type { Capacity } from "./protocol.ts";

/** What a fleet is made of. */
export interface FleetOptions {
  readonly jobRoot: string;
  readonly count: number;
  readonly capacity: Capacity;
  /** Executors started anew for lost ones, in all. */
  readonly maxRestarts: number;
  /** Given each executor as it is started. */
  readonly onStart: (handle: ExecutorHandle) => void;
}

const restartDelayMs = 200;

/** See the head of this file. */
export class Fleet {
  readonly #options: FleetOptions;
  readonly #executors = new Set<ExecutorHandle>();
  #restarts = 0;
  #open = true;

  constructor(options: FleetOptions) {
    this.#options = options;
  }

  start(): void {
    const { count, capacity } = this.#options;
    for (let i = 0; i < count; i++) this.#launch(`local-${i}`, capacity);
  }

  /** Cores of all executors started. */
  get cpus(): number {
    return [...this.#executors].reduce((sum, { capacity }) => sum + capacity.cpus, 0);
  }

  /** Starts an executor in the place of a lost one, if any may still be. */
  replace({ id, capacity }: ExecutorHandle): boolean {
    if (!this.#open || this.#restarts >= this.#options.maxRestarts) return false;
    this.#restarts++;
    // Not at once: whatever ended the other one may still be going on.
    setTimeout(() => {
      if (this.#open) this.#launch(`${id.replace(/\+\d+$/, "")}+${this.#restarts}`, capacity);
    }, restartDelayMs);
    return true;
  }

  async close(): Promise<void> {
    this.#open = false;
    await Promise.all([...this.#executors].map((executor) => executor.close()));
  }

  #launch(id: string, capacity: Capacity): void {
    const handle = startLocalExecutor({ id, jobRoot: this.#options.jobRoot, capacity });
    this.#executors.add(handle);
    this.#options.onStart(handle);
  }
}
