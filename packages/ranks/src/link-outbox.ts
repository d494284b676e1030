// The link's end of the outbox: reads descriptors in order and gives their places back once their
// bytes may change. Layout: oi_outbox in kernels/include/oi_ranks.h.

import { viewOf } from "@open-infra/jit";
import type { Layout } from "./native.ts";

/** A put or a signal on its way to a peer. */
export interface Job {
  readonly kind: "put" | "signal" | "add" | "close";
  readonly peer: number;
  readonly window: number;
  /** Bytes into the peer's window, or the flag's index. */
  readonly offset: number;
  /** Low and high half of a signal's value. */
  readonly low: number;
  readonly high: number;
  readonly source: number;
  readonly bytes: number;
  /** Its place in the outbox's order; −1 if it did not come from there. */
  readonly index: number;
  /** Bytes that have been handed on. */
  sent: number;
}

const entries = 4096;
const entryBytes = 64;
const kinds = [undefined, "put", "signal", "add"] as const;

/** Reads an outbox. One thread only. */
export class Outbox {
  readonly #words: Int32Array;
  readonly #counters: BigInt64Array;
  readonly #posted: number;
  readonly #taken: number;
  readonly #idle: number;
  readonly #first: number;
  readonly #done = new Uint8Array(entries);
  #next = 0;
  #freed = 0;

  constructor(layout: Layout, address: number) {
    const bytes = viewOf(address, layout.outboxBytes);
    this.#words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >> 2);
    this.#counters = new BigInt64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >> 3);
    this.#posted = layout.outboxPosted >> 3;
    this.#taken = layout.outboxTaken >> 3;
    this.#idle = layout.outboxIdle >> 2;
    this.#first = layout.outboxEntries >> 2;
  }

  /** What was posted and has not been read yet, in order. */
  *read(): Generator<Job> {
    const posted = Number(Atomics.load(this.#counters, this.#posted));
    while (this.#next < posted) {
      const at = this.#first + ((this.#next % entries) * entryBytes) / 4;
      yield this.#job(at, this.#next++);
    }
  }

  get hasMore(): boolean {
    return Number(Atomics.load(this.#counters, this.#posted)) > this.#next;
  }

  /** The job's source may change. */
  complete(index: number): void {
    if (index < 0) return;
    this.#done[index % entries] = 1;
    const before = this.#freed;
    while (this.#freed < this.#next && this.#done[this.#freed % entries] === 1) {
      this.#done[this.#freed % entries] = 0;
      this.#freed++;
    }
    if (this.#freed > before) Atomics.store(this.#counters, this.#taken, BigInt(this.#freed));
  }

  /** Says whether posters have to wake us by the event fd. */
  setIdle(idle: boolean): void {
    Atomics.store(this.#words, this.#idle, idle ? 1 : 0);
  }

  #job(at: number, index: number): Job {
    const words = this.#words;
    const whole = (word: number): number =>
      (words[word + 1] as number) * 2 ** 32 + ((words[word] as number) >>> 0);
    return {
      kind: kinds[words[at] as number] ?? "put",
      peer: words[at + 1] as number,
      window: whole(at + 2),
      offset: whole(at + 4),
      low: words[at + 6] as number,
      high: words[at + 7] as number,
      source: whole(at + 8),
      bytes: whole(at + 10),
      index,
      sent: 0,
    };
  }
}
