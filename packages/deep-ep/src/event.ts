// What asynchronous calls give back: a point in the communication stream's order, with what must
// stay alive until then and what is to happen after the wait. The rank's own thread is the
// original's "current stream": all it has computed is done by the time it calls, so waiting for it
// costs nothing, and `capture` gives an event that is done.

import { type CommEvent, doneEvent } from "@open-infra/ranks";
import { BufferStateError } from "./errors.ts";

/** An event, and how its operation ended. */
export class EventOverlap implements Disposable {
  readonly event: CommEvent;
  /** Kept referenced as long as this object is. */
  readonly extraTensors: readonly unknown[];
  readonly #check: (() => void) | undefined;
  #afterWait: (() => void) | undefined;
  #released = false;

  /**
   * @param check Throws how the operation failed where the group itself goes on; called after each
   *   wait.
   */
  constructor(
    event: CommEvent = doneEvent,
    extraTensors: readonly unknown[] = [],
    check?: () => void,
  ) {
    this.event = event;
    this.extraTensors = extraTensors;
    this.#check = check;
  }

  get done(): boolean {
    return this.event.done;
  }

  /**
   * Blocks until the operation is done, then runs the hook, once.
   *
   * @param releaseHandle Lets go of the hook and refuses later waits.
   * @throws the group's failure, or the operation's
   */
  currentStreamWait(releaseHandle = false): void {
    if (this.#released) throw new BufferStateError("the event was released by an earlier wait");
    this.event.wait();
    this.#finish(releaseHandle);
  }

  /** The same without blocking the event loop. */
  async finished(): Promise<void> {
    await this.event.finished();
    this.#finish(false);
  }

  /** Runs `hook` after the next wait; there can be one. @throws BufferStateError for a second */
  registerHookAfterWait(hook: () => void): void {
    if (this.#afterWait !== undefined) throw new BufferStateError("the event has a hook already");
    this.#afterWait = hook;
  }

  /** Waits: `using event = …` keeps a block's work overlapped and waits at its end. */
  [Symbol.dispose](): void {
    if (!this.#released) this.currentStreamWait();
  }

  #finish(releaseHandle: boolean): void {
    this.#check?.();
    const hook = this.#afterWait;
    this.#afterWait = undefined;
    hook?.();
    this.#released ||= releaseHandle;
  }
}
