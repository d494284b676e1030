// The few words of shared memory through which threads of one pipeline wake each other, say that it
// is over, and show how far they are. A line of the cache for each rank, so that they do not
// contend; then a word for each pair.

const wordsPerRank = 16;
/** Word 0: 0, or 1 + the rank that ended the pipeline; the host counts as rank −1 and writes −1. */
const endedWord = 0;
const doorbellOf = (rank: number): number => (rank + 1) * wordsPerRank;
const stepOf = (rank: number): number => doorbellOf(rank) + 1;
const operationOf = (rank: number): number => doorbellOf(rank) + 2;

/** A view of the shared words; each thread makes its own. */
export class ControlBlock {
  readonly buffer: SharedArrayBuffer;
  readonly numRanks: number;
  readonly #words: Int32Array<SharedArrayBuffer>;

  constructor(numRanks: number, buffer?: SharedArrayBuffer) {
    this.numRanks = numRanks;
    const words = (numRanks + 1) * wordsPerRank + numRanks * numRanks;
    this.buffer = buffer ?? new SharedArrayBuffer(words * Int32Array.BYTES_PER_ELEMENT);
    this.#words = new Int32Array(this.buffer);
  }

  /** Who ended the pipeline: a rank, −1 for the host, or undefined while it goes on. */
  get endedBy(): number | undefined {
    const word = Atomics.load(this.#words, endedWord);
    if (word === 0) return undefined;
    return word > 0 ? word - 1 : -1;
  }

  /** Ends the pipeline and wakes everyone; the first call counts. */
  end(rank: number): void {
    Atomics.compareExchange(this.#words, endedWord, 0, rank < 0 ? -1 : rank + 1);
    for (let r = 0; r < this.numRanks; r++) this.ring(r);
  }

  /** Wakes a rank, whatever it waits for. */
  ring(rank: number): void {
    Atomics.add(this.#words, doorbellOf(rank), 1);
    Atomics.notify(this.#words, doorbellOf(rank));
  }

  /** Rings so far; read it before looking for messages, then pass it to `sleep`. */
  rings(rank: number): number {
    return Atomics.load(this.#words, doorbellOf(rank));
  }

  /** Until the rank is rung again since `rings`, or time is up. The event loop goes on. */
  async sleep(rank: number, rings: number, timeoutMs: number): Promise<void> {
    const wait = Atomics.waitAsync(this.#words, doorbellOf(rank), rings, timeoutMs);
    if (!wait.async) return;
    // Such a wait does not keep a thread alive that has nothing else to wait for.
    const alive = setTimeout(() => {}, timeoutMs + 1000);
    await wait.value;
    clearTimeout(alive);
  }

  /** Notes that a rank begins operation `index` of a step. */
  progress(rank: number, step: number, index: number): void {
    Atomics.store(this.#words, stepOf(rank), step);
    Atomics.store(this.#words, operationOf(rank), index);
  }

  /** How far a rank is. */
  progressOf(rank: number): { readonly step: number; readonly index: number } {
    const step = Atomics.load(this.#words, stepOf(rank));
    return { step, index: Atomics.load(this.#words, operationOf(rank)) };
  }

  /** Notes that `to` has posted a receive from `from`, which may wait for that. */
  countPosted(from: number, to: number): void {
    Atomics.add(this.#words, this.#pair(from, to), 1);
    this.ring(from);
  }

  /** Receives from `from` that `to` has posted since the pipeline began; wraps at 2^32. */
  posted(from: number, to: number): number {
    return Atomics.load(this.#words, this.#pair(from, to));
  }

  #pair(from: number, to: number): number {
    return (this.numRanks + 1) * wordsPerRank + from * this.numRanks + to;
  }
}
