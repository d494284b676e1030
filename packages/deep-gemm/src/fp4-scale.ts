// One number to an e2m1 code, and the scale of a block of them, with the original's arithmetic. The
// tensor package's own conversion rounds ties to even; this one rounds them toward zero.

import { ceilToUe8m0 } from "./fp8-scale.ts";

/** The middles between neighbouring e2m1 values; a number on one takes the smaller. */
const middles = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5];

/**
 * The e2m1 code (0 to 15) of a number: nearest value, a tie to the one nearer zero, no negative
 * zero, 6 for what is larger and for NaN (DeepGEMM's `_quantize_to_fp4_e2m1`).
 */
export function fp4CodeOf(x: number): number {
  const size = Math.abs(x);
  let code = 7;
  for (const middle of middles) if (size <= middle) code--;
  return x < 0 && code !== 0 ? code | 8 : code;
}

/** Scale of a block whose largest magnitude is `amax`; NaN if that is. */
export function fp4ScaleOf(amax: number, useUe8m0: boolean): number {
  const scale = Math.fround(Math.max(amax, Math.fround(1e-4)) / 6);
  return useUe8m0 ? ceilToUe8m0(scale) : scale;
}
