// Distributions in a few numbers. Exact: quantiles come from sorting, not from a sketch.

/** µs to whole nanoseconds, the finest that traces hold; hides the noise of floating sums. */
export function roundUs(value: number): number {
  return Math.round(value * 1000) / 1000;
}

/** A fraction as a percentage with two decimals; 0 of 0 is 0. */
export function percent(part: number, whole: number): number {
  return whole > 0 ? Math.round((part / whole) * 10_000) / 100 : 0;
}

/** Of a set of times, µs; all 0 where `count` is. */
export interface Distribution {
  readonly count: number;
  readonly minUs: number;
  /** The mean of the middle two where `count` is even. */
  readonly medianUs: number;
  readonly p90Us: number;
  readonly p99Us: number;
  readonly maxUs: number;
  readonly meanUs: number;
}

/** Sorts `values` in place. `p90Us` is the smallest value that 90 % are not above. */
export function distribution(values: Float64Array): Distribution {
  const count = values.length;
  if (count === 0) {
    return { count, minUs: 0, medianUs: 0, p90Us: 0, p99Us: 0, maxUs: 0, meanUs: 0 };
  }
  values.sort();
  let sum = 0;
  for (let i = 0; i < count; i++) sum += values[i]!;
  const quantile = (q: number): number => values[Math.max(0, Math.ceil(q * count) - 1)]!;
  return {
    count,
    minUs: roundUs(values[0]!),
    medianUs: roundUs((values[(count - 1) >> 1]! + values[count >> 1]!) / 2),
    p90Us: roundUs(quantile(0.9)),
    p99Us: roundUs(quantile(0.99)),
    maxUs: roundUs(values[count - 1]!),
    meanUs: roundUs(sum / count),
  };
}
