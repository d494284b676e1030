// The 1 × 128 FP8 recipe in TypeScript, one float32 rounding a step: what the C of
// kernels/ep_cast.h must agree with byte by byte, and a helper for callers that dispatch FP8.

import { InputError } from "@open-infra/errors";
import { e4m3FromNumber, e4m3ToNumber, Tensor } from "@open-infra/tensor";

/** Columns that share a scale. */
export const scaleBlock = 128;

/** How scales are made. */
export interface CastOptions {
  /** Scales are powers of two, rounded up. @default false */
  readonly roundScale?: boolean;
}

/** e4m3 codes and the scales to multiply them by. */
export interface Fp8Cast {
  /** `[rows, hidden]` e4m3fn. */
  readonly codes: Tensor<"e4m3fn">;
  /** `[rows, ceil(hidden / 128)]` f32. */
  readonly scales: Tensor<"f32">;
}

const { fround } = Math;

/** What dispatch is given, as codes and scales. @throws InputError if it is neither form */
export function tokensOf<T extends Tensor, S extends Tensor>(
  x: Tensor | readonly [codes: T, scales: S],
): readonly [Tensor, S | undefined] {
  if (x instanceof Tensor) return [x, undefined];
  if (Array.isArray(x) && x[0] instanceof Tensor && x[1] instanceof Tensor) return x;
  throw new InputError("x", typeof x, "a tensor, or [codes, scales]");
}

/** The exponent code of a power of two: 127 for 1. */
export function ue8m0Of(scale: number): number {
  return Math.min(254, Math.max(1, Math.round(Math.log2(scale)) + 127));
}

/** 2^ceil(log2(scale)) of a positive float32, exactly. */
function roundUpToPowerOfTwo(scale: number): number {
  const word = new Uint32Array(new Float32Array([scale]).buffer)[0] as number;
  const exponent = Math.min(254, Math.max(1, (word >>> 23) + ((word & 0x7fffff) !== 0 ? 1 : 0)));
  return 2 ** (exponent - 127);
}

/**
 * Casts rows to e4m3 with one scale for each 128 columns; the last block of a row may be shorter.
 * A NaN becomes the NaN code and does not touch its block's scale.
 *
 * @param x `[rows, hidden]` of any float type.
 */
export function perTokenCastToFp8(x: Tensor, options: CastOptions = {}): Fp8Cast {
  const rows = x.dim(0);
  const hidden = x.dim(1);
  const blocks = Math.ceil(hidden / scaleBlock);
  const codes = Tensor.empty([rows, hidden], "e4m3fn");
  const scales = Tensor.empty([rows, blocks], "f32");
  const values = x.toFloat32();
  for (let row = 0; row < rows; row++) {
    for (let block = 0; block < blocks; block++) {
      const from = row * hidden + block * scaleBlock;
      const to = Math.min(from + scaleBlock, (row + 1) * hidden);
      let amax = fround(1e-4);
      for (let i = from; i < to; i++) {
        const size = Math.abs(values[i] as number);
        if (size > amax) amax = size;
      }
      let scale = fround(amax / 448);
      let inverse = fround(448 / amax);
      if (options.roundScale) {
        scale = roundUpToPowerOfTwo(scale);
        inverse = fround(1 / scale);
      }
      scales.raw()[row * blocks + block] = scale;
      for (let i = from; i < to; i++) {
        codes.raw()[i] = e4m3FromNumber(fround((values[i] as number) * inverse), true);
      }
    }
  }
  return { codes, scales };
}

/** The numbers that codes and scales stand for, `[rows, hidden]` in row-major order. */
export function perTokenCastBack(codes: Tensor<"e4m3fn">, scales: Tensor<"f32">): Float32Array {
  const hidden = codes.dim(1);
  const factors = scales.toFloat32();
  const blocks = scales.dim(1);
  const raw = codes.contiguous().raw();
  return Float32Array.from(raw, (code, i) => {
    const row = Math.floor(i / hidden);
    const block = Math.floor((i % hidden) / scaleBlock);
    return fround(e4m3ToNumber(code) * (factors[row * blocks + block] as number));
  });
}

/**
 * Packs power-of-two scales as their exponent bytes, four of neighbouring blocks in an i32, the
 * first lowest; bytes beyond the last block are 0.
 */
export function packUe8m0(scales: Tensor<"f32">): Tensor<"i32"> {
  const rows = scales.dim(0);
  const blocks = scales.dim(1);
  const words = Math.ceil(blocks / 4);
  const packed = Tensor.empty([rows, words], "i32");
  const bytes = packed.bytes();
  scales.toFloat32().forEach((scale, i) => {
    const row = Math.floor(i / blocks);
    bytes[row * words * 4 + (i % blocks)] = ue8m0Of(scale);
  });
  return packed;
}
