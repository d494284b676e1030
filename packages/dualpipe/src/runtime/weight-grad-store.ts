// Gradients of weights that wait: a stage puts what is left to do while it computes the input's
// gradient, and a later W of the schedule does it. The original's WeightGradStore, one a rank
// instead of one a process.

/** Work that is left; awaited if it gives a promise. */
export type WeightGradTask = () => void | Promise<void>;

interface Entry {
  readonly tag: number;
  readonly tasks: readonly WeightGradTask[];
}

/** A FIFO of the weight gradients of whole backward passes. */
export class WeightGradStore {
  #enabled = false;
  #cache: WeightGradTask[] = [];
  readonly #entries: Entry[] = [];

  /** Whether what is put waits (in an I), or is due at once (in a B). */
  get enabled(): boolean {
    return this.#enabled;
  }

  set enabled(value: boolean) {
    this.#enabled = value;
  }

  /** Entries that wait. */
  get size(): number {
    return this.#entries.length;
  }

  /** Keeps `task` for the W of the backward that is running, or runs it now if not `enabled`. */
  put(task: WeightGradTask): void | Promise<void> {
    if (!this.#enabled) return task();
    this.#cache.push(task);
  }

  /**
   * Makes what was put since the last flush the youngest entry.
   *
   * @param tag Names the entry for `pop`. @default 0
   */
  flush(tag = 0): void {
    this.#entries.push({ tag, tasks: this.#cache });
    this.#cache = [];
  }

  /**
   * Runs the oldest entry, or the oldest of that tag: a schedule may take its weight gradients in
   * another order than they came.
   *
   * @returns whether there was one.
   */
  async pop(tag?: number): Promise<boolean> {
    const at = tag === undefined ? 0 : this.#entries.findIndex((entry) => entry.tag === tag);
    const [entry] = at < 0 ? [] : this.#entries.splice(at, 1);
    if (entry === undefined) return false;
    for (const task of entry.tasks) {
      const done = task();
      if (done !== undefined) await done;
    }
    return true;
  }

  /** Forgets everything. */
  clear(): void {
    this.#cache = [];
    this.#entries.length = 0;
  }
}
