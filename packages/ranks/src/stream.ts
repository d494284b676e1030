// A rank's communication thread: operations run on it in the order they were given, while the rank
// computes. An event stands for a point in that order.

import type { NativePool } from "@open-infra/jit";
import { GroupClosedError } from "./errors.ts";
import { EventDescriptor } from "./event-descriptor.ts";
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

/** Words of a launch's block before pool, entry, threads, scratch bytes and parameters. */
export const streamWords = 3;

/** Turns of the event loop in which a short operation is expected to end by itself. */
const turnsBeforeSleep = 2;

/** Runs launches in order on a thread of its own. */
export class CommStream implements Disposable {
  readonly threads: number;
  readonly #native: RanksNative;
  readonly #pool: NativePool;
  readonly #address: number;
  readonly #check: () => void;
  readonly #completed: Int32Array;
  readonly #event: EventDescriptor;
  /** What queued launches read, by number, oldest first; kept until they are done. */
  readonly #held: { readonly number: number; readonly keep: unknown }[] = [];
  #last = 0;
  #open = true;

  /** Called by the group. `check` throws the group's failure if there is one. */
  constructor(native: RanksNative, group: number, threads: number, check: () => void) {
    this.#native = native;
    this.threads = threads;
    this.#check = check;
    this.#pool = native.openPool(threads);
    try {
      const words = new Words([group, this.#pool.launch], 2);
      native.must("starting the communication thread", "oi_stream_create", words);
      this.#address = words.at(0);
      const { streamCompleted, streamBytes } = native.layout;
      const bytes = native.view(this.#address, streamBytes);
      this.#completed = new Int32Array(bytes.buffer, bytes.byteOffset + streamCompleted, 2);
      this.#event = new EventDescriptor(words.at(1));
    } catch (error) {
      this.#pool[Symbol.dispose]();
      throw error;
    }
  }

  get pool(): number {
    return this.#pool.address;
  }

  /**
   * Queues the launch that `native.block` holds from its third word on: the operation's name, pool,
   * entry, threads, scratch bytes, parameters. `keep` stays referenced until it is done.
   */
  submit(words: number, keep: unknown): CommEvent {
    let number = this.#start("oi_stream_submit", words);
    while (number < 0) {
      // The wait uses the same block.
      const launch = this.#native.block.slice();
      this.#waitFor(this.#last);
      this.#native.block.set(launch);
      number = this.#start("oi_stream_submit", words);
    }
    this.#last = number;
    this.#release();
    this.#held.push({ number, keep });
    return this.#eventOf(number);
  }

  /** Runs a launch and returns when it is done; on this thread if nothing is queued. */
  run(words: number): void {
    this.#last = this.#start("oi_stream_run", words);
    this.#release();
    this.#check();
  }

  /** The point after all that was submitted so far. */
  record(): CommEvent {
    return this.#isDone(this.#last) ? doneEvent : this.#eventOf(this.#last);
  }

  #start(symbol: string, words: number): number {
    if (!this.#open) throw new GroupClosedError("the communication stream");
    this.#native.word(0, this.#address);
    this.#native.word(1, words);
    return this.#native.invokeBlock(symbol);
  }

  #eventOf(number: number): CommEvent {
    const stream = this;
    return {
      get done() {
        return stream.#isDone(number);
      },
      wait() {
        stream.#waitFor(number);
        stream.#check();
      },
      async finished() {
        await stream.#finish(number);
        stream.#check();
      },
    };
  }

  async #finish(number: number): Promise<void> {
    for (let turns = 0; !this.#isDone(number); turns++) {
      if (turns < turnsBeforeSleep) await new Promise<void>((resolve) => setImmediate(resolve));
      else if (this.#native.invoke("oi_stream_poll", this.#address, number) === 0) {
        // Written already or not: it stays readable until the loop's next turn.
        await this.#event.next();
      }
    }
    this.#release();
  }

  #isDone(number: number): boolean {
    if (!this.#open) return true;
    // The low half is enough: no event is 2^31 operations old.
    return ((Atomics.load(this.#completed, 0) - number) | 0) >= 0;
  }

  #waitFor(number: number): void {
    if (this.#isDone(number)) return;
    this.#native.invoke("oi_stream_wait", this.#address, number);
    this.#release();
  }

  /** Lets go of what finished launches held. */
  #release(): void {
    let done = 0;
    while (done < this.#held.length && this.#isDone(this.#held[done]?.number as number)) done++;
    if (done > 0) this.#held.splice(0, done);
  }

  /** Waits for what is queued, whose waits are bounded, and ends the thread. */
  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#waitFor(this.#last);
    this.#open = false;
    this.#event[Symbol.dispose]();
    this.#native.invoke("oi_stream_free", this.#address);
    this.#pool[Symbol.dispose]();
    this.#held.length = 0;
  }
}
