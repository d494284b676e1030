// Products as this project's own models call them: any mix of operand types, any strides of rows,
// any shape. The originals' functions with their stricter rules are in deepgemm.ts.

import type { Device } from "@open-infra/jit";
import type { Tensor } from "@open-infra/tensor";
import type { GemmCall } from "./call.ts";
import { gemmOperation } from "./gemm-operation.ts";
import type { Operand } from "./operand.ts";

export interface GemmNtArgs {
  /** [M,K] f32, bf16 or f16, rows may be apart; or e4m3 with f32 scales [M, ceil(K/128)]. */
  readonly a: Operand;
  /** [N,K] f32, bf16 or f16; or e4m3 with f32 scales [ceil(N/128), ceil(K/128)]. */
  readonly b: Operand;
  /** [M,N] f32, bf16 or f16, rows may be apart. */
  readonly d: Tensor;
  /** Added to the product, same dtype as `d`; may be `d` itself. */
  readonly c?: Tensor | undefined;
}

/**
 * d = a · bᵀ (+ c), for any M, N, K ≥ 0. A row of d depends on its row of a alone, to the bit:
 * neither the other rows nor their number nor threads nor grouping change it.
 *
 * @throws DTypeError, ShapeError naming the argument, before anything is written.
 */
export function gemmNt(device: Device, args: GemmNtArgs): void {
  const { a, b, d, c } = args;
  run(device, { operation: "gemmNt", kind: "dense", a, b, d, c: c ?? null, index: null });
}

export interface GemmNtGroupedArgs {
  /** [M,K], as in {@link GemmNtArgs}. */
  readonly a: Operand;
  /** [G,N,K]; scales [G, ceil(N/128), ceil(K/128)]. */
  readonly b: Operand;
  /** [M,N] */
  readonly d: Tensor;
  /** i32 [G+1], ascending: rows offsets[g] … offsets[g+1] use b[g]. In host memory. */
  readonly offsets: Tensor;
}

/**
 * Row groups against a matrix each. Groups need no alignment and empty ones cost nothing; rows
 * outside offsets[0] … offsets[G] are neither read nor written.
 *
 * @throws DTypeError, ShapeError, ArgumentError (offsets not ascending or beyond M).
 */
export function gemmNtGrouped(device: Device, args: GemmNtGroupedArgs): void {
  const { a, b, d, offsets } = args;
  run(device, { operation: "gemmNtGrouped", kind: "offsets", a, b, d, c: null, index: offsets });
}

export interface GemmNtBatchedArgs {
  /** [M,H,K], any strides of M and H; scales [M, H, ceil(K/128)]. */
  readonly a: Operand;
  /** [H,N,K]; scales [H, ceil(N/128), ceil(K/128)]. */
  readonly b: Operand;
  /** [M,H,N], any strides of M and H. */
  readonly d: Tensor;
}

/** d[m,h] = a[m,h] · b[h]ᵀ: one product per head, on the layouts of attention. */
export function gemmNtBatched(device: Device, args: GemmNtBatchedArgs): void {
  const { a, b, d } = args;
  run(device, { operation: "gemmNtBatched", kind: "batched", a, b, d, c: null, index: null });
}

/** Runs a lowered call under its public name. */
export function run(device: Device, call: GemmCall): void {
  device.run(gemmOperation(call.operation), call);
}
