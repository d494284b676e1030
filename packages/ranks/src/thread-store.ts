// The rendezvous of ranks that are threads: the host thread holds the dictionary, ranks ask by
// messages.

import { parentPort, type Worker } from "node:worker_threads";
import { InfraError } from "@open-infra/errors";
import type { Store } from "./store.ts";

/** Nobody has written a key in time. */
export class StoreTimeoutError extends InfraError {
  readonly key: string;

  constructor(key: string, timeoutMs: number) {
    super("store-timeout", `nobody has written ${key} in ${timeoutMs} ms`);
    this.key = key;
  }
}

/** The dictionary itself, for use within one thread. */
export class MemoryStore implements Store {
  readonly #values = new Map<string, string>();
  readonly #waiting = new Map<string, ((value: string) => void)[]>();

  set(key: string, value: string): Promise<void> {
    this.#values.set(key, value);
    for (const wake of this.#waiting.get(key) ?? []) wake(value);
    this.#waiting.delete(key);
    return Promise.resolve();
  }

  get(key: string, options: { readonly timeoutMs?: number } = {}): Promise<string> {
    const value = this.#values.get(key);
    if (value !== undefined) return Promise.resolve(value);
    const { timeoutMs = 100_000 } = options;
    return new Promise((resolve, reject) => {
      const wake = (written: string): void => {
        clearTimeout(timer);
        resolve(written);
      };
      const timer = setTimeout(() => {
        const waiting = this.#waiting.get(key)?.filter((other) => other !== wake) ?? [];
        this.#waiting.set(key, waiting);
        reject(new StoreTimeoutError(key, timeoutMs));
      }, timeoutMs);
      this.#waiting.set(key, [...(this.#waiting.get(key) ?? []), wake]);
    });
  }

  add(key: string, amount: number): Promise<number> {
    const sum = Number(this.#values.get(key) ?? 0) + amount;
    this.#values.set(key, `${sum}`);
    return Promise.resolve(sum);
  }

  close(): void {}
}

interface Question {
  readonly store: number;
  readonly call: "set" | "get" | "add";
  readonly key: string;
  readonly value: string | number | undefined;
  readonly timeoutMs: number | undefined;
}

interface Answer {
  readonly storeAnswer: number;
  readonly value?: string | number;
  readonly timedOut?: number;
}

/** Answers one worker's questions. */
export function serveStore(worker: Worker, store: MemoryStore): void {
  worker.on("message", async (message: Question) => {
    if (typeof message?.store !== "number") return;
    const { call, key, value, timeoutMs } = message;
    let answer: Answer = { storeAnswer: message.store };
    try {
      if (call === "set") await store.set(key, String(value));
      else if (call === "add") answer = { ...answer, value: await store.add(key, Number(value)) };
      else {
        const options = timeoutMs === undefined ? {} : { timeoutMs };
        answer = { ...answer, value: await store.get(key, options) };
      }
    } catch {
      answer = { ...answer, timedOut: timeoutMs ?? 0 };
    }
    worker.postMessage(answer);
  });
}

/** A rank's end. */
export class ThreadStore implements Store {
  readonly #port = parentPort as NonNullable<typeof parentPort>;
  readonly #waiting = new Map<number, (answer: Answer) => void>();
  #next = 0;

  constructor() {
    this.#port.on("message", (answer: Answer) => {
      this.#waiting.get(answer?.storeAnswer)?.(answer);
      this.#waiting.delete(answer?.storeAnswer);
    });
  }

  async set(key: string, value: string): Promise<void> {
    await this.#ask("set", key, value);
  }

  async get(key: string, options: { readonly timeoutMs?: number } = {}): Promise<string> {
    const answer = await this.#ask("get", key, undefined, options.timeoutMs);
    if (answer.timedOut !== undefined) throw new StoreTimeoutError(key, answer.timedOut);
    return String(answer.value);
  }

  async add(key: string, amount: number): Promise<number> {
    return Number((await this.#ask("add", key, amount)).value);
  }

  close(): void {
    this.#port.removeAllListeners("message");
  }

  #ask(
    call: Question["call"],
    key: string,
    value?: string | number,
    timeoutMs?: number,
  ): Promise<Answer> {
    const store = this.#next++;
    const { promise, resolve } = Promise.withResolvers<Answer>();
    this.#waiting.set(store, resolve);
    this.#port.postMessage({ store, call, key, value, timeoutMs } satisfies Question);
    return promise;
  }
}
