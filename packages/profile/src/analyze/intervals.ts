// Sets of time as sorted, disjoint intervals in flat arrays: union, intersection, difference,
// length. All analyses of overlap and idleness are built from these. It knows nothing of events.

/** A set of times: `bounds[2i]` to `bounds[2i + 1]`, sorted, neither empty nor touching. */
export interface Intervals {
  readonly length: number;
  /** At least `2 * length` numbers, µs. */
  readonly bounds: Float64Array;
}

/** Builds a union from intervals that come in order of their start. */
export class UnionBuilder {
  #bounds: Float64Array;
  #length = 0;
  #lastEnd = Number.NEGATIVE_INFINITY;

  constructor(capacity = 16) {
    this.#bounds = new Float64Array(2 * Math.max(1, capacity));
  }

  /** `startUs` must not be below that of the call before. Empty intervals add nothing. */
  add(startUs: number, endUs: number): void {
    if (!(endUs > startUs)) return;
    if (startUs <= this.#lastEnd) {
      if (endUs > this.#lastEnd) {
        this.#lastEnd = endUs;
        this.#bounds[2 * this.#length - 1] = endUs;
      }
      return;
    }
    if (2 * this.#length === this.#bounds.length) {
      const grown = new Float64Array(2 * this.#bounds.length);
      grown.set(this.#bounds);
      this.#bounds = grown;
    }
    this.#bounds[2 * this.#length] = startUs;
    this.#bounds[2 * this.#length + 1] = endUs;
    this.#length++;
    this.#lastEnd = endUs;
  }

  done(): Intervals {
    return { length: this.#length, bounds: this.#bounds };
  }
}

/** Union of intervals in any order, given as pairs. */
export function unionOfPairs(pairs: readonly (readonly [number, number])[]): Intervals {
  const builder = new UnionBuilder(pairs.length);
  for (const [start, end] of pairs.toSorted((a, b) => a[0] - b[0])) builder.add(start, end);
  return builder.done();
}

/** Total length, µs. */
export function lengthOf(set: Intervals): number {
  let sum = 0;
  for (let i = 0; i < set.length; i++) sum += set.bounds[2 * i + 1]! - set.bounds[2 * i]!;
  return sum;
}

/** Index of the first interval that ends after a time. */
function firstEndingAfter({ bounds, length }: Intervals, timeUs: number): number {
  let low = 0;
  for (let high = length; low < high; ) {
    const middle = (low + high) >> 1;
    if (bounds[2 * middle + 1]! <= timeUs) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Length of what two sets share, µs, without building it. */
export function sharedLength(a: Intervals, b: Intervals): number {
  const x = a.bounds;
  const y = b.bounds;
  if (a.length === 0 || b.length === 0) return 0;
  let sum = 0;
  // A short set against a long one costs the short one's part of it, not the whole.
  let i = firstEndingAfter(a, y[0]!);
  let j = firstEndingAfter(b, x[0]!);
  while (i < a.length && j < b.length) {
    const endA = x[2 * i + 1]!;
    const endB = y[2 * j + 1]!;
    const low = Math.max(x[2 * i]!, y[2 * j]!);
    const high = Math.min(endA, endB);
    if (high > low) sum += high - low;
    if (endA <= endB) i++;
    else j++;
  }
  return sum;
}

/** What two sets share. */
export function intersect(a: Intervals, b: Intervals): Intervals {
  const out = new UnionBuilder();
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    const endA = a.bounds[2 * i + 1]!;
    const endB = b.bounds[2 * j + 1]!;
    out.add(Math.max(a.bounds[2 * i]!, b.bounds[2 * j]!), Math.min(endA, endB));
    if (endA <= endB) i++;
    else j++;
  }
  return out.done();
}

/** What `a` has and `b` has not. */
export function subtract(a: Intervals, b: Intervals): Intervals {
  const out = new UnionBuilder();
  let j = 0;
  for (let i = 0; i < a.length; i++) {
    let start = a.bounds[2 * i]!;
    const end = a.bounds[2 * i + 1]!;
    while (j < b.length && b.bounds[2 * j + 1]! <= start) j++;
    // An interval of b may reach into the next of a, so that j moves only past what ended.
    for (let k = j; k < b.length && b.bounds[2 * k]! < end; k++) {
      out.add(start, b.bounds[2 * k]!);
      start = Math.max(start, b.bounds[2 * k + 1]!);
    }
    out.add(start, end);
  }
  return out.done();
}

/** What both sets hold together. */
export function unite(a: Intervals, b: Intervals): Intervals {
  const out = new UnionBuilder(a.length + b.length);
  for (let i = 0, j = 0; i < a.length || j < b.length; ) {
    const fromA = j === b.length || (i < a.length && a.bounds[2 * i]! <= b.bounds[2 * j]!);
    const { bounds } = fromA ? a : b;
    const k = fromA ? i++ : j++;
    out.add(bounds[2 * k]!, bounds[2 * k + 1]!);
  }
  return out.done();
}

/** Length of the part of `set` between two times, µs; a binary search, then only that part. */
export function lengthWithin(set: Intervals, startUs: number, endUs: number): number {
  let sum = 0;
  for (let i = firstEndingAfter(set, startUs); i < set.length && set.bounds[2 * i]! < endUs; i++) {
    sum += Math.min(set.bounds[2 * i + 1]!, endUs) - Math.max(set.bounds[2 * i]!, startUs);
  }
  return sum;
}
