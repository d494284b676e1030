// The scale of a block of e4m3 codes, with the original's float32 arithmetic. Shared by the casts
// and by products that requantise their result, so that both give the same bytes.

const bits = new Uint32Array(1);
const value = new Float32Array(bits.buffer);

/** The power of two at or above a positive float32, exponent code 1 to 254 (`ceil_to_ue8m0`). */
export function ceilToUe8m0(x: number): number {
  value[0] = x;
  const b = bits[0] as number;
  if (Number.isNaN(x)) return Number.NaN;
  const exponent = ((b >>> 23) & 0xff) + ((b & 0x7fffff) !== 0 ? 1 : 0);
  return 2 ** (Math.min(Math.max(exponent, 1), 254) - 127);
}

/** Scale of a block whose largest magnitude is `amax`; NaN if that is. */
export function fp8ScaleOf(amax: number, useUe8m0: boolean): number {
  const scale = Math.fround(Math.max(amax, Math.fround(1e-4)) / 448);
  return useUe8m0 ? ceilToUe8m0(scale) : scale;
}
