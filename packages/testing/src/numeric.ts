// Distances between tensors as the originals' tests define them. A NaN that only one side holds
// makes the distance NaN, which no bound accepts.

function expectSameLength(x: ArrayLike<number>, y: ArrayLike<number>): void {
  if (x.length === y.length) return;
  throw new RangeError(`cannot compare ${x.length} values with ${y.length}`);
}

/**
 * 1 − 2·Σxy / Σ(x²+y²) in float64 (DeepGEMM `calc_diff`, FlashMLA `cos_diff`); 0 for two zero
 * inputs.
 *
 * @throws RangeError if the lengths differ, as the other distances do.
 */
export function calcDiff(x: ArrayLike<number>, y: ArrayLike<number>): number {
  expectSameLength(x, y);
  let dot = 0;
  let norm = 0;
  for (let i = 0; i < x.length; i++) {
    const a = x[i] as number;
    const b = y[i] as number;
    dot += a * b;
    norm += a * a + b * b;
  }
  return norm === 0 ? 0 : 1 - (2 * dot) / norm;
}

/** Largest |x − y|; NaN if either holds a NaN the other lacks. */
export function maxAbsDiff(x: ArrayLike<number>, y: ArrayLike<number>): number {
  expectSameLength(x, y);
  let worst = 0;
  for (let i = 0; i < x.length; i++) {
    const a = x[i] as number;
    const b = y[i] as number;
    if (Object.is(a, b) || a === b) continue;
    const d = Math.abs(a - b);
    if (Number.isNaN(d)) return Number.NaN;
    if (d > worst) worst = d;
  }
  return worst;
}

/** Root mean square of x − y. */
export function rmsDiff(x: ArrayLike<number>, y: ArrayLike<number>): number {
  expectSameLength(x, y);
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += ((x[i] as number) - (y[i] as number)) ** 2;
  return Math.sqrt(sum / Math.max(1, x.length));
}
