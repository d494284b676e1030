// Virtual time: what is to happen, in order of when. Nothing here reads a real clock.

interface Planned {
  readonly atMs: number;
  readonly order: number;
  readonly act: () => void;
}

const before = (a: Planned, b: Planned): boolean =>
  a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);

/** A heap of plans; equal times in the order in which they were made. */
export class VirtualClock {
  readonly #heap: Planned[] = [];
  #order = 0;
  nowMs = 0;

  after(delayMs: number, act: () => void): void {
    const heap = this.#heap;
    const item = { atMs: this.nowMs + Math.max(0, delayMs), order: this.#order++, act };
    let at = heap.length;
    heap.push(item);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!before(item, heap[parent] as Planned)) break;
      heap[at] = heap[parent] as Planned;
      at = parent;
    }
    heap[at] = item;
  }

  /** Does the next thing; false if there is none. */
  step(): boolean {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined) return false;
    if (heap.length > 0) {
      let at = 0;
      for (;;) {
        let child = 2 * at + 1;
        if (child >= heap.length) break;
        const right = heap[child + 1];
        if (right !== undefined && before(right, heap[child] as Planned)) child++;
        if (!before(heap[child] as Planned, last)) break;
        heap[at] = heap[child] as Planned;
        at = child;
      }
      heap[at] = last;
    }
    this.nowMs = first.atMs;
    first.act();
    return true;
  }
}
