// The rendezvous: a small shared dictionary of strings, by which ranks find each other before they
// have any other connection. Nothing of an operation ever goes through it.

/** Keys are written once; whoever asks for one that is not there yet waits for it. */
export interface Store {
  set(key: string, value: string): Promise<void>;
  /**
   * @throws StoreTimeoutError that names the key if nobody has written it in time.
   */
  get(key: string, options?: { readonly timeoutMs?: number }): Promise<string>;
  /** Adds to a counter (0 if it is not there) and gives the sum. */
  add(key: string, amount: number): Promise<number>;
  close(): void;
}
