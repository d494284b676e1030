// The device that needs nothing: every operation's plain TypeScript reference.

import type { Device, WarmupOptions } from "./device.ts";
import { noteLaunches } from "./dry-run.ts";
import { DeviceError } from "./errors.ts";
import type { Operation } from "./operation.ts";

/** Runs every operation's plain TypeScript reference. Slow, obvious, and public: the oracle. */
export class ReferenceDevice implements Device {
  readonly backend = "reference";
  readonly description = "reference (plain TypeScript, float64 accumulation)";
  readonly threads = 1;
  #dry = false;
  #disposed = false;

  run<A>(operation: Operation<A>, args: A): void {
    if (this.#disposed) throw new DeviceError(`${operation.name}: the device was disposed`);
    operation.check(args);
    if (!this.#dry) operation.reference(args);
  }

  supports<A>(_operation: Operation<A>, _args: A): true {
    return true;
  }

  async warmup(body: () => void, options: WarmupOptions = {}): Promise<void> {
    options.signal?.throwIfAborted();
    this.#dry = true;
    try {
      noteLaunches(body);
    } finally {
      this.#dry = false;
    }
  }

  [Symbol.dispose](): void {
    this.#disposed = true;
  }
}
