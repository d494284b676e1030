// Casts to e4m3 by a recipe of one's own: a block of any rows and columns, or one scale for every
// index of some dimensions.

import type { Device } from "@open-infra/jit";
import { contiguousStrides, DTypeError, ShapeError, Tensor } from "@open-infra/tensor";
import { type CastToFp8Options, castToFp8 } from "./cast.ts";
import { perChannelCastToFp8 } from "./cast-channels.ts";
import { ArgumentError } from "./errors.ts";
import { fp8ScaleOf } from "./fp8-scale.ts";
import type { ScaledTensor } from "./operand.ts";

/** Options of {@link perRecipeCastToFp8}. */
export interface RecipeCastOptions extends CastToFp8Options {
  /** Rows and columns that share a scale. */
  readonly recipe: readonly [granMn: number, granK: number];
}

/**
 * e4m3 codes with one scale per granMn × granK block: data [M,K], scales f32 [ceil(M/granMn),
 * ceil(K/granK)]. What `recipeA` and `recipeB` of the products ask for.
 *
 * @throws DTypeError, ShapeError, ArgumentError
 */
export function perRecipeCastToFp8(device: Device, options: RecipeCastOptions): ScaledTensor {
  const [granM, granK] = options.recipe;
  if (granK === 1) return perChannelCastToFp8(device, { ...options, granM });
  return castToFp8(device, "perRecipeCastToFp8", options, granM, granK);
}

/** Options of {@link perCustomDimsCastToFp8}. */
export interface CustomDimsCastOptions {
  /** f32, bf16 or f16, of any rank from 1. */
  readonly x: Tensor;
  /** Dimensions that scales are told apart by; negative ones count from the end. */
  readonly dims: readonly number[];
  /** Scales rounded up to powers of two. @default false */
  readonly useUe8m0?: boolean | undefined;
}

/**
 * e4m3 codes with one scale for each index of `dims`, over all of the other dimensions: data of x's
 * shape, scales f32 of the shape of `dims` in ascending order (DeepGEMM
 * `per_custom_dims_cast_to_fp8`, which drops dimensions of one; here they stay).
 *
 * @throws DTypeError, ShapeError, ArgumentError
 */
export function perCustomDimsCastToFp8(
  device: Device,
  options: CustomDimsCastOptions,
): ScaledTensor {
  const operation = "perCustomDimsCastToFp8";
  const { x, useUe8m0 } = options;
  if (!["f32", "bf16", "f16"].includes(x.dtype)) {
    throw new DTypeError(operation, "x", x.dtype, "f32 or bf16 or f16");
  }
  if (x.rank === 0) throw new ShapeError(operation, "x", "[]", "at least one dimension");
  const kept = keptDims(operation, options.dims, x.rank);
  const others = x.shape.map((_, i) => i).filter((i) => !kept.includes(i));
  const scaleShape = kept.map((i) => x.shape[i] as number);
  const data = Tensor.empty(x.shape, "e4m3fn", x.name);
  const scales = Tensor.empty(scaleShape, "f32");
  if (x.size === 0) return { data, scales: scales.fill(fp8ScaleOf(0, useUe8m0 ?? false)) };
  const count = scales.size;
  // Kept dimensions last are columns; otherwise they go first, by a copy if they are not already.
  if (kept.length > 0 && others.every((i) => kept.every((k) => k > i))) {
    const rows = x.size / count;
    const [flat, codes] = [x.contiguous(), data].map((t) => t.reshape([rows, count]));
    const out = { data: codes as Tensor, scales: scales.reshape([1, count]) };
    perChannelCastToFp8(device, { x: flat as Tensor, granM: rows, useUe8m0, out });
    return { data, scales };
  }
  const order = [...kept, ...others];
  const turned = permuted(x, order).contiguous();
  const shape = [count, x.size / count];
  const sorted = order.every((d, i) => d === i);
  const codes = sorted ? data : Tensor.empty(turned.shape, "e4m3fn");
  const out = { data: codes.reshape(shape), scales: scales.reshape([count, 1]) };
  castToFp8(device, operation, { x: turned.reshape(shape), useUe8m0, out }, 1, shape[1] as number);
  if (!sorted) permuted(data, order).copyFrom(codes);
  return { data, scales };
}

function keptDims(operation: string, dims: readonly number[], rank: number): number[] {
  const kept = dims.map((d) => {
    const at = d < 0 ? d + rank : d;
    if (Number.isSafeInteger(at) && at >= 0 && at < rank) return at;
    throw new ArgumentError(operation, "dims", `[${dims}]`, `each of them -${rank} to ${rank - 1}`);
  });
  if (new Set(kept).size !== kept.length) {
    throw new ArgumentError(operation, "dims", `[${dims}]`, "each dimension once");
  }
  return kept.sort((a, b) => a - b);
}

/** A view whose dimension i is `order[i]` of x. */
function permuted(x: Tensor, order: readonly number[]): Tensor {
  const strides = x.size === 0 ? contiguousStrides(x.shape) : x.strides;
  return new Tensor({
    dtype: x.dtype,
    shape: order.map((d) => x.shape[d] as number),
    strides: order.map((d) => strides[d] as number),
    offset: x.offset,
    storage: x.storage,
    name: x.name,
  });
}
