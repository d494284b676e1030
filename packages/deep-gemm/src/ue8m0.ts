// Power-of-two scales as the eight bits of their exponent, four to an int32 along K, the first in
// the lowest byte: to and from float32. How such tensors lie in memory is in scale-layout.ts.

import {
  expectTensor,
  ShapeError,
  Tensor,
  ue8m0FromNumber,
  ue8m0ToNumber,
} from "@open-infra/tensor";
import { ArgumentError } from "./errors.ts";

/** Scales in an int32. */
export const SCALES_PER_INT = 4;

/** What to do with a scale that is no power of two. */
export type ScalePolicy = "reject" | "ceil";

/** What the packing functions take. */
export interface PackUe8m0Options {
  /**
   * A scale that is not one of 2^-127 … 2^127 is an error, or is rounded up to one of 2^-126 …
   * 2^127. (The original drops the mantissa without a word.) NaN is code 255 either way.
   * @default "reject"
   */
  readonly notPowerOfTwo?: ScalePolicy | undefined;
}

/** The ue8m0 code of a scale. @throws ArgumentError for one that the policy rejects. */
export function ue8m0CodeOf(
  operation: string,
  argument: () => string,
  scale: number,
  policy: ScalePolicy,
): number {
  const positive = scale >= 0 || Number.isNaN(scale) || policy === "reject";
  const code = positive ? ue8m0FromNumber(scale, policy === "ceil" ? "ceil" : "exact") : undefined;
  if (code !== undefined) return code;
  const allowed = policy === "ceil" ? "0 or more" : 'a power of two, or notPowerOfTwo: "ceil"';
  throw new ArgumentError(operation, argument(), `${scale}`, allowed);
}

/**
 * f32 scales [..., K] as i32 [..., ceil(K/4)], zero where no scale is left (DeepGEMM
 * `pack_ue8m0_to_int`).
 *
 * @throws DTypeError, ArgumentError naming the scale that is no power of two.
 */
export function packUe8m0ToInt(scales: Tensor, options: PackUe8m0Options = {}): Tensor {
  const operation = "packUe8m0ToInt";
  expectScales(operation, scales, "f32");
  const policy = options.notPowerOfTwo ?? "reject";
  const groups = scales.dim(-1);
  const words = Math.ceil(groups / SCALES_PER_INT);
  const out = Tensor.empty([...scales.shape.slice(0, -1), words], "i32", scales.name);
  const [from, to] = [scales.toFloat32(), out.raw()];
  for (const [i, scale] of from.entries()) {
    const g = i % groups;
    const code = ue8m0CodeOf(operation, () => `scales[${i}]`, scale, policy);
    const word = Math.floor(i / groups) * words + (g >>> 2);
    to[word] = (to[word] as number) | (code << (8 * (g & 3)));
  }
  return out;
}

/**
 * The first `groups` scales of each row of packed ones: i32 [..., W] → f32 [..., groups] (DeepGEMM
 * `unpack_ue8m0_from_int`). @default groups all 4 · W
 */
export function unpackUe8m0FromInt(packed: Tensor, groups?: number): Tensor {
  const operation = "unpackUe8m0FromInt";
  expectScales(operation, packed, "i32");
  const words = packed.dim(-1);
  const count = groups ?? SCALES_PER_INT * words;
  if (!Number.isSafeInteger(count) || count < 0 || Math.ceil(count / SCALES_PER_INT) > words) {
    const allowed = `0 to ${SCALES_PER_INT * words}, four in each int32`;
    throw new ArgumentError(operation, "groups", `${count}`, allowed);
  }
  const out = Tensor.empty([...packed.shape.slice(0, -1), count], "f32", packed.name);
  const [from, to] = [packed.contiguous().raw() as Int32Array, out.raw()];
  for (let i = 0; i < to.length; i++) {
    const g = i % count;
    const word = from[Math.floor(i / count) * words + (g >>> 2)] as number;
    to[i] = ue8m0ToNumber((word >>> (8 * (g & 3))) & 0xff);
  }
  return out;
}

function expectScales(operation: string, scales: Tensor, dtype: "f32" | "i32"): void {
  expectTensor(operation, dtype === "f32" ? "scales" : "packed", scales, [dtype], scales.shape, {});
  if (scales.rank > 0) return;
  throw new ShapeError(operation, "scales", "[]", "at least one dimension");
}
