// Distributions in a few numbers. Exact: quantiles are values of the data, not of a sketch.

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

/** Reorders `values`. `p90Us` is the smallest value that 90 % are not above. */
export function distribution(values: Float64Array): Distribution {
  const count = values.length;
  if (count === 0) {
    return { count, minUs: 0, medianUs: 0, p90Us: 0, p99Us: 0, maxUs: 0, meanUs: 0 };
  }
  let sum = 0;
  let min = values[0]!;
  let max = min;
  for (let i = 0; i < count; i++) {
    const value = values[i]!;
    sum += value;
    if (value < min) min = value;
    if (value > max) max = value;
  }
  // In rising order, so that each search begins where the one before has divided the values.
  const ranks = [(count - 1) >> 1, count >> 1, rankOf(0.9, count), rankOf(0.99, count)];
  let first = 0;
  const [low, high, p90, p99] = ranks.map((rank) => {
    const value = selectRank(values, rank, Math.min(first, rank));
    first = rank;
    return value;
  }) as [number, number, number, number];
  return {
    count,
    minUs: roundUs(min),
    medianUs: roundUs((low + high) / 2),
    p90Us: roundUs(p90),
    p99Us: roundUs(p99),
    maxUs: roundUs(max),
    meanUs: roundUs(sum / count),
  };
}

function rankOf(quantile: number, count: number): number {
  return Math.max(count >> 1, Math.ceil(quantile * count) - 1);
}

/**
 * The value of a rank, by Hoare's selection: afterwards nothing before `rank` is above it and
 * nothing behind is below. What lies before `first` must be so already.
 */
function selectRank(values: Float64Array, rank: number, first: number): number {
  let low = first;
  let high = values.length - 1;
  while (low < high) {
    const pivot = middleOf(values[low]!, values[(low + high) >> 1]!, values[high]!);
    let i = low;
    let j = high;
    while (i <= j) {
      while (values[i]! < pivot) i++;
      while (values[j]! > pivot) j--;
      if (i > j) break;
      const value = values[i]!;
      values[i++] = values[j]!;
      values[j--] = value;
    }
    if (rank <= j) high = j;
    else if (rank >= i) low = i;
    else break;
  }
  return values[rank]!;
}

function middleOf(a: number, b: number, c: number): number {
  return Math.max(Math.min(a, b), Math.min(Math.max(a, b), c));
}
