// Messages that arrived at one rank, by sender and key, and who waits for them. Shared by the
// transports; it moves no bytes.

import { WaitTimeoutError } from "./errors.ts";
import { describeKey, type Message } from "./transport.ts";

interface Waiter {
  resolve(message: Message): void;
  reject(error: Error): void;
}

/** Arrived messages of one rank. */
export class Mailbox {
  readonly #rank: number;
  readonly #arrived: Map<number, Message>[];
  readonly #waiters: Map<number, Waiter>[];
  #failure: Error | undefined;

  constructor(rank: number, numRanks: number) {
    this.#rank = rank;
    this.#arrived = Array.from({ length: numRanks }, () => new Map());
    this.#waiters = Array.from({ length: numRanks }, () => new Map());
  }

  get failure(): Error | undefined {
    return this.#failure;
  }

  /** A message has come. */
  deliver(from: number, key: number, message: Message): void {
    const waiters = this.#waiters[from] as Map<number, Waiter>;
    const waiter = waiters.get(key);
    if (waiter === undefined) {
      (this.#arrived[from] as Map<number, Message>).set(key, message);
      return;
    }
    waiters.delete(key);
    waiter.resolve(message);
  }

  /** Takes the message out if it has come. */
  take(from: number, key: number): Message | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    const arrived = this.#arrived[from] as Map<number, Message>;
    const message = arrived.get(key);
    if (message !== undefined) arrived.delete(key);
    return message;
  }

  /** Waits until the message comes, everything fails, or time is up. */
  wait(from: number, key: number, timeoutMs: number): Promise<Message> {
    const there = this.take(from, key);
    if (there !== undefined) return Promise.resolve(there);
    const { promise, resolve, reject } = Promise.withResolvers<Message>();
    const waiters = this.#waiters[from] as Map<number, Waiter>;
    const timer = setTimeout(() => {
      waiters.delete(key);
      reject(new WaitTimeoutError(this.#rank, from, describeKey(key), timeoutMs));
    }, timeoutMs);
    waiters.set(key, {
      resolve: (message) => {
        clearTimeout(timer);
        resolve(message);
      },
      reject: (error) => {
        clearTimeout(timer);
        reject(error);
      },
    });
    return promise;
  }

  /** Everything that waits now or later fails with `error`; the first call counts. */
  fail(error: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    for (const waiters of this.#waiters) {
      for (const waiter of waiters.values()) waiter.reject(error);
      waiters.clear();
    }
  }
}
