// An event of native code on the event loop: a descriptor that a native thread writes, as a promise
// of its next writing. Where the system has no such descriptors it is a timer.

import koffi from "koffi";
import type { RanksNative } from "./native.ts";

const pollMs = 1;

/** Wakes JavaScript when native code writes the descriptor. Does not own the descriptor. */
export class EventDescriptor implements Disposable {
  readonly #native: RanksNative;
  readonly #descriptor: number;
  #waiting: PromiseWithResolvers<void> | undefined;
  #handle: ReturnType<typeof koffi.node.poll> | undefined;

  /** @param descriptor −1 where there is none. */
  constructor(native: RanksNative, descriptor: number) {
    this.#native = native;
    this.#descriptor = descriptor;
  }

  /**
   * Resolves once it is written, all that wait with one writing; also resolves when this is closed,
   * so whoever waits looks again. Keeps the event loop alive meanwhile.
   */
  next(): Promise<void> {
    if (this.#waiting !== undefined) return this.#waiting.promise;
    const waiting = Promise.withResolvers<void>();
    this.#waiting = waiting;
    if (this.#descriptor < 0) {
      setTimeout(() => this.#wake(), pollMs);
      return waiting.promise;
    }
    if (this.#handle === undefined) {
      this.#handle = koffi.node.poll(this.#descriptor, { readable: true }, () => {
        this.#native.invoke("oi_event_clear", this.#descriptor);
        // After this callback nobody runs what promises have queued, after an immediate Node does.
        setImmediate(() => this.#wake());
      });
    } else {
      this.#handle.ref();
    }
    return waiting.promise;
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    this.#handle?.unref();
    waiting?.resolve();
  }

  [Symbol.dispose](): void {
    this.#handle?.close();
    this.#handle = undefined;
    this.#wake();
  }
}
