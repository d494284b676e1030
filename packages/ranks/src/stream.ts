// A rank's communication thread: operations run on it in the order they were given, while the rank
// computes. An event stands for a point in that order.

import type { NativePool } from "@open-infra/jit";
import { GroupClosedError } from "./errors.ts";
import { type RanksNative, Words } from "./native.ts";

/** A point in a stream's order; everything before it is done once `done` is true. */
export interface CommEvent {
  readonly done: boolean;
  /** Blocks this thread until it is done. @throws the group's failure */
  wait(): void;
  /** Resolves when it is done; the event loop goes on. @throws the group's failure */
  finished(): Promise<void>;
}

/** An event that is done from the start. */
export const doneEvent: CommEvent = {
  done: true,
  wait: () => {},
  finished: () => Promise.resolve(),
};

/** Runs launches in order on a thread of its own. */
export class CommStream implements Disposable {
  readonly threads: number;
  readonly #native: RanksNative;
  readonly #pool: NativePool;
  readonly #address: number;
  readonly #check: () => void;
  /** What queued launches read; kept until they are done. */
  readonly #held = new Map<number, unknown>();
  #last = 0;
  #open = true;

  /** Called by the group. `check` throws the group's failure if there is one. */
  constructor(native: RanksNative, group: number, threads: number, check: () => void) {
    this.#native = native;
    this.threads = threads;
    this.#check = check;
    this.#pool = native.openPool(threads);
    const words = new Words([group, this.#pool.launch], 2);
    native.must("starting the communication thread", "oi_stream_create", words);
    this.#address = words.at(0);
  }

  get pool(): number {
    return this.#pool.address;
  }

  /** Words that `submit` needs before those of the launch. */
  static readonly room = 2;

  /**
   * Queues a launch; `block` has {@link room} free words first. `keep` stays referenced until the
   * launch is done.
   */
  submit(block: BigInt64Array, keep: unknown): CommEvent {
    if (!this.#open) throw new GroupClosedError("the communication stream");
    block[0] = BigInt(this.#address);
    block[1] = BigInt(block.length - CommStream.room);
    const words = new Words([]);
    (words as { block: BigInt64Array }).block = block;
    let number = this.#native.call("oi_stream_submit", words);
    while (number < 0) {
      this.#wait(this.#last);
      number = this.#native.call("oi_stream_submit", words);
    }
    this.#last = number;
    this.#held.set(number, keep);
    this.#release();
    return this.#event(number);
  }

  /** The point after all that was submitted so far. */
  record(): CommEvent {
    return this.#last === 0 ? doneEvent : this.#event(this.#last);
  }

  #event(number: number): CommEvent {
    const stream = this;
    return {
      get done() {
        return stream.#isDone(number);
      },
      wait() {
        stream.#wait(number);
        stream.#check();
      },
      async finished() {
        // Short operations end within a few turns of the loop; long ones are asked for rarely.
        for (let turns = 0; !stream.#isDone(number); turns++) {
          await new Promise<void>((resolve) => {
            if (turns < 50) setImmediate(resolve);
            else setTimeout(resolve, 1);
          });
        }
        stream.#release();
        stream.#check();
      },
    };
  }

  #isDone(number: number): boolean {
    if (!this.#open) return true;
    return this.#native.call("oi_stream_poll", new Words([this.#address, number])) === 1;
  }

  #wait(number: number): void {
    if (!this.#open || number === 0) return;
    this.#native.call("oi_stream_wait", new Words([this.#address, number]));
    this.#release();
  }

  /** Lets go of what finished launches held. */
  #release(): void {
    for (const number of this.#held.keys()) {
      if (!this.#isDone(number)) break;
      this.#held.delete(number);
    }
  }

  /** Waits for what is queued, whose waits are bounded, and ends the thread. */
  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#wait(this.#last);
    this.#open = false;
    this.#native.call("oi_stream_free", new Words([this.#address]));
    this.#pool[Symbol.dispose]();
    this.#held.clear();
  }
}
