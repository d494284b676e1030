// The original's functions under their own names, with their argument rules. All are one call of the
// same product; what they add is which types they take.

import type { Device } from "@open-infra/jit";
import { DTypeError, type Tensor } from "@open-infra/tensor";
import { ArgumentError, type CallKind, type GemmCall } from "./call.ts";
import { run } from "./gemm.ts";
import { dataOf, isScaled, type Operand, type ScaledTensor } from "./operand.ts";

export interface Fp8GemmArgs {
  /** [M,K] with scales [M, ceil(K/128)] */
  readonly a: ScaledTensor;
  /** [N,K] with scales [ceil(N/128), ceil(K/128)] */
  readonly b: ScaledTensor;
  /** [M,N] bf16 or f32 */
  readonly d: Tensor;
  readonly c?: Tensor | undefined;
}

export interface Bf16GemmArgs {
  /** [M,K] bf16 */
  readonly a: Tensor;
  /** [N,K] bf16 */
  readonly b: Tensor;
  /** [M,N] bf16 or f32 */
  readonly d: Tensor;
  readonly c?: Tensor | undefined;
}

/** d = a · bᵀ (+ c) of block-scaled e4m3 (DeepGEMM `fp8_gemm_nt`, recipe (1, 128, 128)). */
export function fp8GemmNt(device: Device, args: Fp8GemmArgs): void {
  launchFp8(device, "fp8GemmNt", "dense", args, null);
}

/** d = a · bᵀ (+ c) of bf16 (DeepGEMM `bf16_gemm_nt`). */
export function bf16GemmNt(device: Device, args: Bf16GemmArgs): void {
  launchBf16(device, "bf16GemmNt", "dense", args, null);
}

/** The group of each row. */
export interface ContiguousLayout {
  /** i32 [M]: row m uses b[groupedLayout[m]]; −1 marks padding, whose rows of d become zero. */
  readonly groupedLayout: Tensor;
}

/** How many rows of each slab count. */
export interface MaskedLayout {
  /** i32 [G]: rows beyond maskedM[g] of slab g are neither read nor written. */
  readonly maskedM: Tensor;
}

/**
 * Rows grouped one after another: a [M,K], b [G,N,K], d [M,N] (DeepGEMM
 * `m_grouped_fp8_gemm_nt_contiguous`). Unlike there, groups need no alignment, ids may change at any
 * row, and padding rows of d are defined.
 */
export function mGroupedFp8GemmNtContiguous(
  device: Device,
  args: Omit<Fp8GemmArgs, "c"> & ContiguousLayout,
): void {
  launchFp8(device, "mGroupedFp8GemmNtContiguous", "row-ids", args, args.groupedLayout);
}

/** The same of bf16 (DeepGEMM `m_grouped_bf16_gemm_nt_contiguous`). */
export function mGroupedBf16GemmNtContiguous(
  device: Device,
  args: Omit<Bf16GemmArgs, "c"> & ContiguousLayout,
): void {
  launchBf16(device, "mGroupedBf16GemmNtContiguous", "row-ids", args, args.groupedLayout);
}

/** One slab of rows per group: a [G,M,K], b [G,N,K], d [G,M,N] (`m_grouped_fp8_gemm_nt_masked`). */
export function mGroupedFp8GemmNtMasked(
  device: Device,
  args: Omit<Fp8GemmArgs, "c"> & MaskedLayout,
): void {
  launchFp8(device, "mGroupedFp8GemmNtMasked", "masked", args, args.maskedM);
}

/** The same of bf16 (DeepGEMM `m_grouped_bf16_gemm_nt_masked`). */
export function mGroupedBf16GemmNtMasked(
  device: Device,
  args: Omit<Bf16GemmArgs, "c"> & MaskedLayout,
): void {
  launchBf16(device, "mGroupedBf16GemmNtMasked", "masked", args, args.maskedM);
}

export interface EinsumArgs {
  readonly a: Operand;
  readonly b: Operand;
  readonly d: Tensor;
}

/**
 * `bhr,hdr->bhd`: d[b,h] = a[b,h] · b[h]ᵀ with a [B,H,R], b [H,D,R], d [B,H,D] (DeepGEMM `einsum` and
 * `fp8_einsum`). Strides of B and H are free.
 *
 * @throws ArgumentError for any other expression.
 */
export function einsum(device: Device, expression: string, args: EinsumArgs): void {
  if (expression.replaceAll(" ", "") !== "bhr,hdr->bhd") {
    throw new ArgumentError("einsum", "expression", `'${expression}'`, "'bhr,hdr->bhd'");
  }
  const { a, b, d } = args;
  run(device, { operation: "einsum", kind: "batched", a, b, d, c: null, index: null });
}

function launchFp8(
  device: Device,
  operation: string,
  kind: CallKind,
  { a, b, d, c }: Fp8GemmArgs,
  index: Tensor | null,
): void {
  for (const [name, operand] of [["a", a] as const, ["b", b] as const]) {
    if (!isScaled(operand)) {
      const got = dataOf(operand).dtype;
      throw new DTypeError(operation, name, got, "{data: e4m3fn, scales: f32}");
    }
  }
  launch(device, { operation, kind, a, b, d, c: c ?? null, index });
}

function launchBf16(
  device: Device,
  operation: string,
  kind: CallKind,
  { a, b, d, c }: Bf16GemmArgs,
  index: Tensor | null,
): void {
  for (const [name, operand] of [["a", a] as const, ["b", b] as const]) {
    const { dtype } = dataOf(operand);
    if (dtype !== "bf16") throw new DTypeError(operation, name, dtype, "bf16");
  }
  launch(device, { operation, kind, a, b, d, c: c ?? null, index });
}

function launch(device: Device, call: GemmCall): void {
  if (call.d.dtype !== "bf16" && call.d.dtype !== "f32") {
    throw new DTypeError(call.operation, "d", call.d.dtype, "bf16 or f32");
  }
  run(device, call);
}
