// Rows for intervals that overlap: each gets the lowest row that is free when it begins. Two heaps,
// so that a hundred thousand intervals at once take their number times its logarithm.

/** Smallest key first. */
class Heap<T> {
  readonly #keys: number[] = [];
  readonly #values: T[] = [];

  get smallest(): number {
    return this.#keys[0] ?? Number.POSITIVE_INFINITY;
  }

  push(key: number, value: T): void {
    let at = this.#keys.length;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if ((this.#keys[parent] as number) <= key) break;
      this.#move(parent, at);
      at = parent;
    }
    this.#keys[at] = key;
    this.#values[at] = value;
  }

  pop(): T | undefined {
    const top = this.#values[0];
    const key = this.#keys.pop();
    const value = this.#values.pop();
    const length = this.#keys.length;
    if (key === undefined || value === undefined || length === 0) return top;
    let at = 0;
    for (let child = 1; child < length; child = 2 * at + 1) {
      const right = child + 1;
      if (right < length && (this.#keys[right] as number) < (this.#keys[child] as number)) child++;
      if ((this.#keys[child] as number) >= key) break;
      this.#move(child, at);
      at = child;
    }
    this.#keys[at] = key;
    this.#values[at] = value;
    return top;
  }

  #move(from: number, to: number): void {
    this.#keys[to] = this.#keys[from] as number;
    this.#values[to] = this.#values[from] as T;
  }
}

/** Lanes for spans that overlap: each span gets the lowest that is free. */
export class SlotPool {
  /** Slots by when they become free. */
  readonly #busy = new Heap<number>();
  /** Free slots by their number. */
  readonly #free = new Heap<number>();
  #slots = 0;

  /** The lowest slot free at `fromUs`, taken until `untilUs`; calls come in order of `fromUs`. */
  take(fromUs: number, untilUs: number): number {
    while (this.#busy.smallest <= fromUs) {
      const freed = this.#busy.pop() as number;
      this.#free.push(freed, freed);
    }
    const slot = this.#free.pop() ?? this.#slots++;
    this.#busy.push(untilUs, slot);
    return slot;
  }
}
