// Figures of many values in little memory: exact count, sum, least and most, and quantiles of a
// sample that is all of them while they are few.

/** Values kept; with more, each has the same chance to be among them. */
export const sampleMax = 4096;

/** What is told of many values. */
export interface Quantiles {
  readonly count: number;
  readonly sum: number;
  readonly min: number;
  readonly max: number;
  readonly avg: number;
  readonly p50: number;
  readonly p75: number;
  readonly p95: number;
  readonly p99: number;
}

/**
 * The least value that a part of all values does not pass (the nearest rank).
 *
 * @param sorted In rising order; undefined comes of none.
 * @param part In [0, 1].
 */
export function quantile(sorted: readonly number[], part: number): number | undefined {
  const rank = Math.ceil(part * sorted.length);
  return sorted[Math.min(sorted.length, Math.max(1, rank)) - 1];
}

/** Takes values one by one. */
export class Sample {
  /** Those kept, in no order once they are not all. */
  readonly values: number[] = [];
  #count = 0;
  #sum = 0;
  #min = Number.POSITIVE_INFINITY;
  #max = Number.NEGATIVE_INFINITY;
  /** Of a generator of its own: the same values give the same figures. */
  #state = 1;

  get count(): number {
    return this.#count;
  }

  get sum(): number {
    return this.#sum;
  }

  add(value: number): void {
    this.#count++;
    this.#sum += value;
    this.#min = Math.min(this.#min, value);
    this.#max = Math.max(this.#max, value);
    if (this.values.length < sampleMax) {
      this.values.push(value);
      return;
    }
    // Vitter's algorithm R.
    const at = Math.floor(this.#chance() * this.#count);
    if (at < sampleMax) this.values[at] = value;
  }

  /** All zeros of no values. */
  quantiles(): Quantiles {
    const sorted = this.values.toSorted((a, b) => a - b);
    const at = (part: number): number => quantile(sorted, part) ?? 0;
    const some = this.#count > 0;
    return {
      count: this.#count,
      sum: this.#sum,
      min: some ? this.#min : 0,
      max: some ? this.#max : 0,
      avg: some ? this.#sum / this.#count : 0,
      ...{ p50: at(0.5), p75: at(0.75), p95: at(0.95), p99: at(0.99) },
    };
  }

  /** In [0, 1), of 32 bits: xorshift32. */
  #chance(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return (x >>> 0) / 2 ** 32;
  }
}
