// Products of groups: rows of A that each belong to one of G matrices B (experts, forward), and
// stretches of K that each make one of G matrices D (experts, weight gradients).

import type { Device } from "@open-infra/jit";
import { DTypeError, Tensor } from "@open-infra/tensor";
import {
  type Bf16GemmArgs,
  type CallParts,
  type Fp8GemmArgs,
  type GemmOptions,
  launchBf16,
  launchFp8,
  type Output,
  turned,
  turnedB,
  turnedBoth,
  turnedTensor,
} from "./deepgemm.ts";
import { ArgumentError } from "./errors.ts";
import { type RecipeOptions, rowGrains, type ScaledTensor } from "./operand.ts";

/** Where groups start unless the call says otherwise (`get_mk_alignment_for_contiguous_layout`). */
export const MK_ALIGNMENT = 128;

/** The group of each row. */
export interface ContiguousLayout {
  /**
   * i32 [M]: row m uses b[groupedLayout[m]], −1 marks padding. With `usePsumLayout` i32 [G]: group
   * g ends before row groupedLayout[g], and starts where the group before it ends, aligned.
   */
  readonly groupedLayout: Tensor;
  /** @default false */
  readonly usePsumLayout?: boolean | undefined;
  /** Where groups of the psum layout start. @default 128 */
  readonly alignment?: number | undefined;
  /** Whether rows of d that belong to no group become zero or are left alone. @default true */
  readonly ensureZeroPadding?: boolean | undefined;
  /** Taken for the original's sake: sizes are known here. */
  readonly expectedMForPsumLayout?: number | undefined;
}

/** How many rows of each slab count. */
export interface MaskedLayout {
  /** i32 [G]: rows beyond maskedM[g] of slab g are neither read nor written. */
  readonly maskedM: Tensor;
  /** Taken for the original's sake: the counts are known here, and no result depends on it. */
  readonly expectedM?: number | undefined;
}

/** Arguments of the contiguous FP8 functions: a [M,K], b [G,N,K] (`nn`: [G,K,N]), d [M,N]. */
export type GroupedFp8Args = Omit<Fp8GemmArgs, "c" | "splitK"> & ContiguousLayout;

/** Arguments of the contiguous BF16 functions. */
export type GroupedBf16Args = Omit<Bf16GemmArgs, "c" | "splitK"> & ContiguousLayout;

function contiguousParts(layout: ContiguousLayout): ["ends" | "row-ids", CallParts] {
  const { groupedLayout: index, usePsumLayout, alignment, ensureZeroPadding } = layout;
  const parts = { index, zeroPadding: ensureZeroPadding };
  if (!usePsumLayout) return ["row-ids", parts];
  return ["ends", { ...parts, alignment: alignment ?? MK_ALIGNMENT }];
}

/**
 * Rows grouped one after another: a [M,K], b [G,N,K], d [M,N] (DeepGEMM
 * `m_grouped_fp8_gemm_nt_contiguous`). Unlike there, groups need no alignment, ids may change at
 * any row, and padding rows of d are defined; rows of a in padding are never read.
 */
export function mGroupedFp8GemmNtContiguous(device: Device, args: GroupedFp8Args): void {
  const [kind, parts] = contiguousParts(args);
  launchFp8(device, "mGroupedFp8GemmNtContiguous", kind, args, parts);
}

/** The same with b [G,K,N] and scales as it (`m_grouped_fp8_gemm_nn_contiguous`). */
export function mGroupedFp8GemmNnContiguous(device: Device, args: GroupedFp8Args): void {
  const [kind, parts] = contiguousParts(args);
  const b = turned(args.b);
  launchFp8(device, "mGroupedFp8GemmNnContiguous", kind, { ...args, b }, { ...parts, ...turnedB });
}

/** The same of bf16 (DeepGEMM `m_grouped_bf16_gemm_nt_contiguous`). */
export function mGroupedBf16GemmNtContiguous(device: Device, args: GroupedBf16Args): void {
  const [kind, parts] = contiguousParts(args);
  launchBf16(device, "mGroupedBf16GemmNtContiguous", kind, args, parts);
}

/** The same with b [G,K,N] (`m_grouped_bf16_gemm_nn_contiguous`). */
export function mGroupedBf16GemmNnContiguous(device: Device, args: GroupedBf16Args): void {
  const [kind, parts] = contiguousParts(args);
  const b = turnedTensor(args.b);
  launchBf16(
    device,
    "mGroupedBf16GemmNnContiguous",
    kind,
    { ...args, b },
    { ...parts, ...turnedB },
  );
}

/** One slab of rows per group: a [G,M,K], b [G,N,K], d [G,M,N] (`m_grouped_fp8_gemm_nt_masked`). */
export function mGroupedFp8GemmNtMasked(
  device: Device,
  args: Omit<Fp8GemmArgs, "c" | "splitK"> & MaskedLayout,
): void {
  launchFp8(device, "mGroupedFp8GemmNtMasked", "masked", args, { index: args.maskedM });
}

/** The same of bf16 (DeepGEMM `m_grouped_bf16_gemm_nt_masked`). */
export function mGroupedBf16GemmNtMasked(
  device: Device,
  args: Omit<Bf16GemmArgs, "c" | "splitK"> & MaskedLayout,
): void {
  launchBf16(device, "mGroupedBf16GemmNtMasked", "masked", args, { index: args.maskedM });
}

/** The original's newer names for the same functions. */
export {
  mGroupedFp8GemmNnContiguous as mGroupedFp8Fp4GemmNnContiguous,
  mGroupedFp8GemmNtContiguous as mGroupedFp8Fp4GemmNtContiguous,
  mGroupedFp8GemmNtMasked as mGroupedFp8Fp4GemmNtMasked,
};

/** The stretches of K. */
export interface KGroupedLayout {
  /** k of each group, 0 allowed; numbers or i32 [G]. Not needed with `usePsumLayout`. */
  readonly ks?: readonly number[] | Tensor | undefined;
  /** i32 [G], instead of `ks`; with `usePsumLayout` where each group ends. */
  readonly groupedLayout?: Tensor | undefined;
  /**
   * Group g ends at groupedLayout[g] and starts where the group before it ends, aligned; what lies
   * between is not read. @default false
   */
  readonly usePsumLayout?: boolean | undefined;
  /** Where groups of the psum layout start. @default 128 */
  readonly alignment?: number | undefined;
}

interface KGroupedOutput extends GemmOptions {
  /** [G,M,N]; d[g] = the product over group g's k (+ c[g]), zero or c[g] where it has none. */
  readonly d: Output;
  readonly c?: Tensor | undefined;
}

/** Arguments of the k-grouped FP8 functions; 1D1D unless a recipe says otherwise. */
export interface KGroupedFp8Args extends KGroupedOutput, KGroupedLayout, RecipeOptions {
  /**
   * `tn`: [ΣK,M] with scales [Σ ceil(k/128), M]. `nt`: flat, the groups' [M,k] one after another,
   * with scales [M, Σ ceil(k/128)].
   */
  readonly a: ScaledTensor;
  /** The same with N for M. */
  readonly b: ScaledTensor;
}

/** Arguments of {@link kGroupedBf16GemmTnContiguous}: a [ΣK,M], b [ΣK,N]. */
export interface KGroupedBf16Args extends KGroupedOutput, KGroupedLayout {
  readonly a: Tensor;
  readonly b: Tensor;
}

/** The layout as a kind of call. */
function kGroups(operation: string, args: KGroupedLayout): ["k-sizes" | "k-ends", CallParts] {
  const { ks, groupedLayout, usePsumLayout, alignment } = args;
  if (usePsumLayout) {
    if (groupedLayout === undefined) {
      throw new ArgumentError(operation, "groupedLayout", "missing", "i32 [G], ends of the groups");
    }
    return ["k-ends", { index: groupedLayout, alignment: alignment ?? MK_ALIGNMENT }];
  }
  const given = ks ?? groupedLayout;
  if (given === undefined) {
    throw new ArgumentError(operation, "ks", "missing", "numbers or i32 [G], k of each group");
  }
  if (given instanceof Tensor) {
    if (given.dtype !== "i32") throw new DTypeError(operation, "ks", given.dtype, "i32");
    return ["k-sizes", { index: given }];
  }
  given.forEach((k, g) => {
    if (Number.isSafeInteger(k) && k >= 0 && k < 2 ** 31) return;
    throw new ArgumentError(operation, `ks[${g}]`, `${k}`, "a size, 0 or more");
  });
  return ["k-sizes", { index: Tensor.from(given, [given.length], "i32", "ks") }];
}

/**
 * d[g] = a[g]ᵀ · b[g] (+ c[g]) over stretches of K (DeepGEMM `k_grouped_fp8_gemm_tn_contiguous`).
 * No k needs to be a multiple of anything; each group has scales of its own.
 */
export function kGroupedFp8GemmTnContiguous(device: Device, args: KGroupedFp8Args): void {
  const operation = "kGroupedFp8GemmTnContiguous";
  const [kind, parts] = kGroups(operation, args);
  const [a, b] = [turned(args.a), turned(args.b)];
  launchFp8(
    device,
    operation,
    kind,
    { ...args, a, b },
    {
      ...parts,
      ...turnedBoth,
      grains: rowGrains,
    },
  );
}

/**
 * The same of flat operands: a matrix [M,k], [N,k] per group (`k_grouped_fp8_gemm_nt_contiguous`).
 */
export function kGroupedFp8GemmNtContiguous(device: Device, args: KGroupedFp8Args): void {
  const operation = "kGroupedFp8GemmNtContiguous";
  if (args.usePsumLayout) {
    throw new ArgumentError(operation, "usePsumLayout", "true", "false: flat groups have no gaps");
  }
  const [kind, parts] = kGroups(operation, args);
  launchFp8(device, operation, kind, args, { ...parts, flat: true, grains: rowGrains });
}

/** The same of bf16 (DeepGEMM `k_grouped_bf16_gemm_tn_contiguous`). */
export function kGroupedBf16GemmTnContiguous(device: Device, args: KGroupedBf16Args): void {
  const operation = "kGroupedBf16GemmTnContiguous";
  const [kind, parts] = kGroups(operation, args);
  const [a, b] = [turnedTensor(args.a), turnedTensor(args.b)];
  launchBf16(device, operation, kind, { ...args, a, b }, { ...parts, ...turnedBoth });
}
