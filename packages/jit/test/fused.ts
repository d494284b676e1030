// The fused multiply-add of bf16 instructions, computed in float64 steps that are exact.

const flush = (x: number): number => (Math.abs(x) < 2 ** -126 ? 0 * x : x);

/**
 * x · y + z rounded once to float32, for x and y that are bf16 and z that is float32; subnormals
 * count as zero, going in and coming out.
 */
export function fusedF32(x: number, y: number, z: number): number {
  const product = flush(x) * flush(y); // Exact: 8 × 8 bits.
  const sum = product + flush(z);
  // The rounding error of the sum decides how a tie of the second rounding goes.
  const error = product - (sum - flush(z)) + (flush(z) - (sum - (sum - flush(z))));
  return flush(roundOdd(sum, error));
}

/** Rounds sum + error (|error| below half an ulp of the double sum) to float32 once. */
function roundOdd(sum: number, error: number): number {
  if (error === 0 || !Number.isFinite(sum)) return Math.fround(sum);
  const view = new BigInt64Array(new Float64Array([sum]).buffer);
  const bits = view[0] as bigint;
  if ((bits & 1n) === 0n) view[0] = bits + (error > 0 === sum > 0 ? 1n : -1n);
  return Math.fround(new Float64Array(view.buffer)[0] as number);
}
