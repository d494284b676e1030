// The rendezvous: a small shared dictionary of strings, by which ranks find each other before they
// have any other connection. Nothing of an operation ever goes through it.

import { InfraError } from "@open-infra/errors";

/** Keys are written once; whoever asks for one that is not there yet waits for it. */
export interface Store {
  /** What connections between ranks are proved by, where the store has such a secret. */
  readonly secret?: string;
  /** The address that the store is reached from, where it is reached over a network. */
  readonly localAddress?: string;
  set(key: string, value: string): Promise<void>;
  /**
   * @throws StoreTimeoutError that names the key if nobody has written it in time;
   *   StoreFailedError if it is known that nobody will.
   */
  get(key: string, options?: { readonly timeoutMs?: number }): Promise<string>;
  /** Adds to a counter (0 if it is not there) and gives the sum. */
  add(key: string, amount: number): Promise<number>;
  close(): void;
}

/** Nobody has written a key in time. */
export class StoreTimeoutError extends InfraError {
  readonly key: string;

  constructor(key: string, timeoutMs: number) {
    super("store-timeout", `nobody has written ${key} in ${timeoutMs} ms`);
    this.key = key;
  }
}

/** A rank ended before all had met, so nobody will. */
export class StoreFailedError extends InfraError {
  /** The rank that ended; −1 if it is none's fault. */
  readonly culprit: number;

  constructor(culprit: number, message: string) {
    super("store-failed", message);
    this.culprit = culprit;
  }
}

/** A store within a store, for groups of some of the ranks. */
export class PartStore implements Store {
  declare readonly secret?: string;
  declare readonly localAddress?: string;
  readonly #whole: Store;
  readonly #prefix: string;

  constructor(whole: Store, name: string) {
    this.#whole = whole;
    this.#prefix = `${name}/`;
    if (whole.secret !== undefined) this.secret = whole.secret;
    if (whole.localAddress !== undefined) this.localAddress = whole.localAddress;
  }

  set(key: string, value: string): Promise<void> {
    return this.#whole.set(this.#prefix + key, value);
  }

  get(key: string, options?: { readonly timeoutMs?: number }): Promise<string> {
    return this.#whole.get(this.#prefix + key, options);
  }

  add(key: string, amount: number): Promise<number> {
    return this.#whole.add(this.#prefix + key, amount);
  }

  /** The whole stays open: it is another group's. */
  close(): void {}
}
