// The original's dense functions under their own names, with their argument rules. All are one call
// of the same product; what they add is which types they take and how their operands lie.

import type { Device } from "@open-infra/jit";
import { DTypeError, type Tensor } from "@open-infra/tensor";
import type { CallKind, GemmCall } from "./call.ts";
import type { Epilogue, HeadSplits } from "./epilogue.ts";
import { run } from "./gemm.ts";
import {
  dataOf,
  defaultGrains,
  expectGrain,
  type Grains,
  grainsOf,
  isScaled,
  type Operand,
  type RecipeOptions,
  rowGrains,
  type ScaledTensor,
  viewOf,
} from "./operand.ts";
import { expectSizes, isPacked, withFloatScales } from "./packed-scales.ts";
import { runSplit } from "./split-k.ts";

/** What every product takes besides its operands. */
export interface GemmOptions {
  /** What is done to the sums before they are written. @default nothing */
  readonly epilogue?: Epilogue | undefined;
  /** Threads to use at most (`set_num_sms`); never changes a result. @default the device's */
  readonly threads?: number | undefined;
}

/** What a product of two matrices takes besides. */
export interface DenseOptions extends GemmOptions {
  /**
   * Whether K is cut at its multiples of 512 and the parts are computed side by side and added in
   * order: for few rows and few columns on many threads. A row is the same whatever M and the
   * threads are; where vectors multiply, not matrix tiles, it is that of a whole K to the bit.
   * @default false
   */
  readonly splitK?: boolean | undefined;
}

/** A result: plain, or e4m3 codes with a scale for each 128 columns of a row. */
export type Output = Tensor | ScaledTensor;

/**
 * Arguments of the dense FP8 and FP4 functions; which way A and B lie is in the function's name.
 */
export interface Fp8GemmArgs extends DenseOptions, RecipeOptions {
  /**
   * `nt`, `nn`: [M,K] with scales [M, ceil(K/128)]; `tn`, `tt`: both transposed. Scales are f32, or
   * ue8m0 packed four to an i32 along K, [M, ceil(ceil(K/128)/4)], of any strides.
   */
  readonly a: ScaledTensor;
  /**
   * `nt`, `tt`: [N,K] with scales [ceil(N/128), ceil(K/128)]; `nn`, `tn`: both transposed. With
   * recipe (1, 1, 128), the default of packed ones, a scale per row: [N, ceil(K/128)].
   */
  readonly b: ScaledTensor;
  /** [M,N], f32, bf16, f16 or e4m3fn, or requantised {data, scales [M, ceil(N/128)]}. */
  readonly d: Output;
  /** Added to the product, of d's type; d itself, or memory of its own. */
  readonly c?: Tensor | undefined;
}

/** Arguments of the dense BF16 functions. */
export interface Bf16GemmArgs extends DenseOptions {
  /** bf16; `nt`, `nn`: [M,K]; `tn`, `tt`: [K,M] */
  readonly a: Tensor;
  /** bf16; `nt`, `tt`: [N,K]; `nn`, `tn`: [K,N] */
  readonly b: Tensor;
  /** [M,N], as in {@link Fp8GemmArgs} */
  readonly d: Output;
  readonly c?: Tensor | undefined;
}

/**
 * d = a · bᵀ (+ c) of block-scaled e4m3 or e2m1 (DeepGEMM `fp8_gemm_nt`, `fp8_fp4_gemm_nt`). Recipe
 * (1, 128, 128) unless another is given: (1, 1, 128) is 1D1D, for weight gradients.
 *
 * @throws DTypeError, ShapeError, ArgumentError naming the argument, before anything is written.
 */
export function fp8GemmNt(device: Device, args: Fp8GemmArgs): void {
  launchFp8(device, "fp8GemmNt", "dense", args);
}

/** d = a · b (+ c): b [K,N] with scales [ceil(K/128), ceil(N/128)] (`fp8_gemm_nn`). */
export function fp8GemmNn(device: Device, args: Fp8GemmArgs): void {
  launchFp8(device, "fp8GemmNn", "dense", { ...args, b: turned(args.b) }, turnedB);
}

/** d = aᵀ · b (+ c): a [K,M], b [K,N], scales as they (`fp8_gemm_tn`). */
export function fp8GemmTn(device: Device, args: Fp8GemmArgs): void {
  const [a, b] = [turned(args.a), turned(args.b)];
  launchFp8(device, "fp8GemmTn", "dense", { ...args, a, b }, turnedBoth);
}

/** d = aᵀ · bᵀ (+ c): a [K,M], b [N,K], scales as they (`fp8_gemm_tt`). */
export function fp8GemmTt(device: Device, args: Fp8GemmArgs): void {
  launchFp8(device, "fp8GemmTt", "dense", { ...args, a: turned(args.a) }, turnedA);
}

/** The original's newer names for the same functions. */
export {
  fp8GemmNn as fp8Fp4GemmNn,
  fp8GemmNt as fp8Fp4GemmNt,
  fp8GemmTn as fp8Fp4GemmTn,
  fp8GemmTt as fp8Fp4GemmTt,
};

/** d = a · bᵀ (+ c) of bf16 (DeepGEMM `bf16_gemm_nt`). */
export function bf16GemmNt(device: Device, args: Bf16GemmArgs): void {
  launchBf16(device, "bf16GemmNt", "dense", args);
}

/** d = a · b (+ c) of bf16, b [K,N] (`bf16_gemm_nn`). */
export function bf16GemmNn(device: Device, args: Bf16GemmArgs): void {
  launchBf16(device, "bf16GemmNn", "dense", { ...args, b: turnedTensor(args.b) }, turnedB);
}

/** d = aᵀ · b (+ c) of bf16, a [K,M], b [K,N] (`bf16_gemm_tn`). */
export function bf16GemmTn(device: Device, args: Bf16GemmArgs): void {
  const [a, b] = [turnedTensor(args.a), turnedTensor(args.b)];
  launchBf16(device, "bf16GemmTn", "dense", { ...args, a, b }, turnedBoth);
}

/** d = aᵀ · bᵀ (+ c) of bf16, a [K,M], b [N,K] (`bf16_gemm_tt`). */
export function bf16GemmTt(device: Device, args: Bf16GemmArgs): void {
  launchBf16(device, "bf16GemmTt", "dense", { ...args, a: turnedTensor(args.a) }, turnedA);
}

/** Arguments of {@link fp8GemmNtSkipHeadMid}. */
export interface SkipHeadMidArgs extends GemmOptions, RecipeOptions {
  readonly a: ScaledTensor;
  readonly b: ScaledTensor;
  /** [M, heads · (left + mid + right)]; the `mid` columns of each head are left as they are. */
  readonly d: Tensor;
  /** Columns [left, mid, right] of each head; N is heads · (left + right). */
  readonly headSplits: readonly [left: number, mid: number, right: number];
}

/**
 * A product whose columns are written around a gap in each head, as an up-projection beside rotary
 * channels needs (DeepGEMM `fp8_gemm_nt_skip_head_mid`).
 */
export function fp8GemmNtSkipHeadMid(device: Device, args: SkipHeadMidArgs): void {
  const [left, mid, right] = args.headSplits;
  launchFp8(device, "fp8GemmNtSkipHeadMid", "dense", args, { heads: { left, mid, right } });
}

/** What a kind of call has that the dense functions lack. */
export interface CallParts {
  readonly index?: Tensor | undefined;
  readonly alignment?: number | undefined;
  readonly zeroPadding?: boolean | undefined;
  readonly flat?: boolean | undefined;
  readonly heads?: HeadSplits | undefined;
  readonly grains?: Grains | undefined;
  readonly turned?: GemmCall["turned"];
}

const turnedA: CallParts = { turned: { a: true } };

/** B came the other way. */
export const turnedB: CallParts = { turned: { b: true } };

/** Both operands came the other way. */
export const turnedBoth: CallParts = { turned: { a: true, b: true } };

/** A matrix, or each matrix of a stack, transposed: a view. What is neither is refused later. */
export function turnedTensor(tensor: Tensor): Tensor {
  return tensor.rank < 2 ? tensor : tensor.transpose(-2, -1);
}

/** The same of codes and scales. */
export function turned(operand: ScaledTensor): ScaledTensor {
  return viewOf(operand, turnedTensor) as ScaledTensor;
}

interface LaunchArgs extends DenseOptions {
  readonly a: Operand;
  readonly b: Operand;
  readonly d: Output;
  readonly c?: Tensor | undefined;
}

/** Runs a product of scaled operands. */
export function launchFp8(
  device: Device,
  operation: string,
  kind: CallKind,
  args: LaunchArgs & RecipeOptions,
  parts: CallParts = {},
): void {
  const a = scaledOnly(operation, "a", args.a);
  const b = scaledOnly(operation, "b", args.b);
  const packed = isPacked(b);
  const usual = parts.grains ?? defaultGrains;
  const grains = grainsOf(operation, args, packed && usual === defaultGrains ? rowGrains : usual);
  if (!packed && !isPacked(a)) {
    launch(device, operation, kind, args, { ...parts, grains });
    return;
  }
  expectGrain(operation, "a", grains.a);
  expectGrain(operation, "b", grains.b);
  const sizes = sizesAlongK(operation, kind, a, parts);
  const spread = (argument: "a" | "b", operand: ScaledTensor): ScaledTensor =>
    withFloatScales(device, operation, argument, operand, { granK: grains[argument].k, sizes });
  const operands = { a: spread("a", a), b: spread("b", b) };
  launch(device, operation, kind, { ...args, ...operands }, { ...parts, grains });
}

function scaledOnly(operation: string, name: string, operand: Operand): ScaledTensor {
  if (isScaled(operand)) return operand;
  throw new DTypeError(operation, name, operand.dtype, "{data: e4m3fn or e2m1, scales: f32}");
}

/** Elements along K of each group whose scales are packed apart. */
function sizesAlongK(
  operation: string,
  kind: CallKind,
  a: ScaledTensor,
  { index, alignment = 1 }: CallParts,
): number[] {
  if (kind !== "k-sizes" && kind !== "k-ends") return [a.data.dim(-1)];
  const values = [...((index as Tensor).contiguous().raw() as Int32Array)];
  if (kind === "k-sizes") {
    expectSizes(operation, "ks", values);
    return values;
  }
  let start = 0;
  const sizes = values.map((end) => {
    const size = Math.ceil((end - start) / alignment) * alignment;
    start += size;
    return size;
  });
  expectSizes(operation, "groupedLayout", sizes);
  return sizes;
}

/** Runs a product of bf16. */
export function launchBf16(
  device: Device,
  operation: string,
  kind: CallKind,
  args: LaunchArgs,
  parts: CallParts = {},
): void {
  const [a, b] = [dataOf(args.a).dtype, dataOf(args.b).dtype];
  if (a !== "bf16") throw new DTypeError(operation, "a", a, "bf16");
  if (b !== "bf16") throw new DTypeError(operation, "b", b, "bf16");
  launch(device, operation, kind, args, parts);
}

/** Lowers the arguments of a public function to a call and runs it. */
export function launch(
  device: Device,
  operation: string,
  kind: CallKind,
  { a, b, d, c, epilogue, threads, splitK }: LaunchArgs,
  parts: CallParts = {},
): void {
  const dScales = isScaled(d) ? d.scales : undefined;
  const call: GemmCall = {
    operation,
    kind,
    a,
    b,
    d: dataOf(d),
    c: c ?? null,
    index: parts.index ?? null,
    grains: parts.grains,
    epilogue,
    dScales,
    heads: parts.heads,
    alignment: parts.alignment,
    zeroPadding: parts.zeroPadding,
    flat: parts.flat,
    turned: parts.turned,
    threads,
  };
  if (splitK) runSplit(device, call);
  else run(device, call);
}
