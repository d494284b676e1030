// The dictionary of a rendezvous in the memory of whoever starts the ranks.

import { type Store, StoreFailedError, StoreTimeoutError } from "./store.ts";

interface Waiting {
  readonly resolve: (value: string) => void;
  readonly reject: (error: Error) => void;
}

/** The dictionary itself, for use within one thread. */
export class MemoryStore implements Store {
  readonly #values = new Map<string, string>();
  readonly #waiting = new Map<string, Set<Waiting>>();
  #failure: StoreFailedError | undefined;

  set(key: string, value: string): Promise<void> {
    this.#values.set(key, value);
    for (const { resolve } of this.#waiting.get(key) ?? []) resolve(value);
    this.#waiting.delete(key);
    return Promise.resolve();
  }

  get(key: string, options: { readonly timeoutMs?: number } = {}): Promise<string> {
    const value = this.#values.get(key);
    if (value !== undefined) return Promise.resolve(value);
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const { timeoutMs = 100_000 } = options;
    return new Promise((resolve, reject) => {
      const list = this.#waiting.get(key) ?? new Set();
      this.#waiting.set(key, list);
      const timer = setTimeout(() => {
        list.delete(waiting);
        reject(new StoreTimeoutError(key, timeoutMs));
      }, timeoutMs);
      const waiting: Waiting = {
        resolve: (written) => {
          clearTimeout(timer);
          resolve(written);
        },
        reject: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      };
      list.add(waiting);
    });
  }

  /** What is there now. */
  peek(key: string): string | undefined {
    return this.#values.get(key);
  }

  add(key: string, amount: number): Promise<number> {
    const sum = Number(this.#values.get(key) ?? 0) + amount;
    this.#values.set(key, `${sum}`);
    return Promise.resolve(sum);
  }

  /** From now on nobody waits for a key that is not there; `culprit` is the rank that ended. */
  fail(culprit: number, message: string): void {
    this.#failure ??= new StoreFailedError(culprit, message);
    for (const list of this.#waiting.values()) {
      for (const { reject } of list) reject(this.#failure);
    }
    this.#waiting.clear();
  }

  close(): void {}
}
