// Conversions between numbers and the bits of each dtype, exact to the last one: round to nearest
// even, defined saturation, NaN kept. This file is the oracle; kernels must agree with it.

import type { DType, RawArray } from "./dtype.ts";

const scratchF32 = new Float32Array(1);
const scratchU32 = new Uint32Array(scratchF32.buffer);

/** bf16 bits of a number, rounded to nearest even from float32. */
export function bf16FromNumber(x: number): number {
  scratchF32[0] = x;
  const bits = scratchU32[0] as number;
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

export function bf16ToNumber(bits: number): number {
  scratchU32[0] = bits << 16;
  return scratchF32[0] as number;
}

/** Decodes raw elements to numbers. */
export function decodeInto(dtype: DType, raw: RawArray, out: Float32Array | Float64Array): void {
  switch (dtype) {
    case "bf16":
      for (let i = 0; i < out.length; i++) out[i] = bf16ToNumber(raw[i] as number);
      return;
    default:
      for (let i = 0; i < out.length; i++) out[i] = Number(raw[i]);
  }
}

/** Encodes numbers to raw elements. */
export function encodeInto(dtype: DType, values: ArrayLike<number>, raw: RawArray): void {
  switch (dtype) {
    case "bf16":
      for (let i = 0; i < values.length; i++) raw[i] = bf16FromNumber(values[i] as number);
      return;
    default:
      for (let i = 0; i < values.length; i++) raw[i] = values[i] as number;
  }
}
