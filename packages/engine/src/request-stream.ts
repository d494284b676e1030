// The client's end of one request: events come in from the worker in batches, and go out one at a
// time to whoever iterates. Single use.

import type { GenerateEvent } from "./api.ts";

interface Waiter {
  readonly resolve: (result: IteratorResult<GenerateEvent>) => void;
  readonly reject: (error: Error) => void;
}

export class RequestStream {
  readonly id: string;
  readonly #events: GenerateEvent[] = [];
  readonly #onEnd: () => void;
  #error: Error | undefined;
  #ended = false;
  #waiter: Waiter | undefined;

  /** `onEnd` runs once, when nothing more can come in. */
  constructor(id: string, onEnd: () => void) {
    this.id = id;
    this.#onEnd = onEnd;
  }

  get ended(): boolean {
    return this.#ended;
  }

  push(events: readonly GenerateEvent[]): void {
    if (this.#ended) return;
    for (const event of events) {
      this.#events.push(event);
      if (event.type === "finish") this.#end();
    }
    this.#serve();
  }

  fail(error: Error): void {
    if (this.#ended) return;
    this.#error = error;
    this.#end();
    this.#serve();
  }

  /** The reader has left: drop what is there. */
  abandon(): void {
    this.#events.length = 0;
    this.#error = undefined;
    if (!this.#ended) this.#end();
    this.#serve();
  }

  next(): Promise<IteratorResult<GenerateEvent>> {
    if (this.#waiter !== undefined) {
      return Promise.reject(new Error(`request '${this.id}' is already being read`));
    }
    return new Promise((resolve, reject) => {
      this.#waiter = { resolve, reject };
      this.#serve();
    });
  }

  #serve(): void {
    const waiter = this.#waiter;
    if (waiter === undefined) return;
    const event = this.#events.shift();
    if (event === undefined && !this.#ended) return;
    this.#waiter = undefined;
    if (event !== undefined) waiter.resolve({ done: false, value: event });
    else if (this.#error !== undefined) {
      const error = this.#error;
      this.#error = undefined;
      waiter.reject(error);
    } else waiter.resolve({ done: true, value: undefined });
  }

  #end(): void {
    this.#ended = true;
    this.#onEnd();
  }
}
