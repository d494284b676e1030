// What can be done to a product on its way out, instead of in passes of its own over the result.
// The arithmetic of the reference is here, that of the kernel in epilogue.h.

import { DTypeError, expectRows, expectTensor, type Tensor } from "@open-infra/tensor";
import { ArgumentError } from "./errors.ts";

/** Columns of a requantised result that share a scale. */
export const QUANTISED_COLUMNS = 128;

/** d = activation(alpha · a · bᵀ + bias) + c, in float32, then rounded to d's type once. */
export interface Epilogue {
  /** @default 1 */
  readonly alpha?: number | undefined;
  /** f32, bf16 or f16: [N], or [G,N] where b is [G,N,K]. */
  readonly bias?: Tensor | undefined;
  /**
   * `swiglu`: columns 0 … N/2 − 1 of the product are gates, the rest their values, and d has N/2
   * columns, x · sigmoid(x) of the gate times the value. c is not taken then.
   */
  readonly activation?: "swiglu" | undefined;
  /** Gates above it, values beyond ± it, become it before the activation. @default none */
  readonly activationClamp?: number | undefined;
  /** Where d is {data, scales}: scales rounded up to powers of two. @default false */
  readonly useUe8m0?: boolean | undefined;
}

/** Columns of D: `left` written, `mid` left alone, `right` written, head after head. */
export interface HeadSplits {
  readonly left: number;
  readonly mid: number;
  readonly right: number;
}

/** Columns that D must have for N columns of the product. */
export function outputColumns(
  n: number,
  epilogue: Epilogue | undefined,
  heads: HeadSplits | undefined,
): number {
  if (epilogue?.activation === "swiglu") return Math.floor(n / 2);
  if (heads === undefined) return n;
  return (n / (heads.left + heads.right)) * (heads.left + heads.mid + heads.right);
}

/** Requires an epilogue that fits N columns and G matrices of B. */
export function expectEpilogue(
  operation: string,
  epilogue: Epilogue,
  { n, groups, c }: { readonly n: number; readonly groups: number | null; readonly c: boolean },
): void {
  const { alpha, bias, activation, activationClamp } = epilogue;
  if (alpha !== undefined && !Number.isFinite(alpha)) {
    throw new ArgumentError(operation, "epilogue.alpha", `${alpha}`, "a finite number");
  }
  if (activation !== undefined && activation !== "swiglu") {
    throw new ArgumentError(operation, "epilogue.activation", `'${activation}'`, "'swiglu'");
  }
  if (activationClamp !== undefined && !(activationClamp > 0)) {
    const got = `${activationClamp}`;
    throw new ArgumentError(operation, "epilogue.activationClamp", got, "a positive number");
  }
  if (activationClamp !== undefined && activation === undefined) {
    const got = `${activationClamp} without an activation`;
    throw new ArgumentError(operation, "epilogue.activationClamp", got, "activation: 'swiglu'");
  }
  if (activation !== undefined && n % 2 !== 0) {
    throw new ArgumentError(operation, "epilogue.activation", `swiglu of N=${n}`, "an even N");
  }
  if (activation !== undefined && c) {
    throw new ArgumentError(operation, "c", "given with an activation", "none: d is its result");
  }
  if (bias === undefined) return;
  const perGroup = groups !== null && bias.rank === 2;
  const pattern = perGroup ? [groups, n] : [n];
  expectTensor(operation, "epilogue.bias", bias, ["f32", "bf16", "f16"], pattern, {});
  expectRows(operation, "epilogue.bias", bias);
}

/** Requires splits that are whole numbers and divide N. */
export function expectHeads(operation: string, heads: HeadSplits, n: number): void {
  const { left, mid, right } = heads;
  const whole = [left, mid, right].every((x) => Number.isSafeInteger(x) && x >= 0);
  const head = left + right;
  if (whole && head > 0 && n % head === 0) return;
  const allowed = `three whole numbers of columns, left + right dividing N=${n}`;
  throw new ArgumentError(operation, "headSplits", `[${left}, ${mid}, ${right}]`, allowed);
}

/** Requires codes and scales that fit each other. */
export function expectQuantised(operation: string, data: Tensor, scales: Tensor): void {
  if (data.dtype !== "e4m3fn") throw new DTypeError(operation, "d.data", data.dtype, "e4m3fn");
  const columns = Math.ceil(data.dim(-1) / QUANTISED_COLUMNS);
  const pattern = [...data.shape.slice(0, -1), columns];
  expectTensor(operation, "d.scales", scales, ["f32"], pattern, {});
}

/** x · sigmoid(x) · y with the clamp applied. */
export function swiglu(gate: number, value: number, clamp: number): number {
  const x = gate > clamp ? clamp : gate;
  const y = value > clamp ? clamp : value < -clamp ? -clamp : value;
  return (x / (1 + Math.exp(-x))) * y;
}

/** alpha, bias and activation over `rows` × `n` products; `bias` has n values or is null. */
export function applyEpilogue(
  values: Float64Array,
  n: number,
  epilogue: Epilogue,
  bias: Float64Array | null,
): Float64Array {
  const alpha = Math.fround(epilogue.alpha ?? 1);
  const out = values.map((x, i) => alpha * x + (bias === null ? 0 : (bias[i % n] as number)));
  if (epilogue.activation === undefined) return out;
  const half = n / 2;
  const clamp = Math.fround(epilogue.activationClamp ?? Number.POSITIVE_INFINITY);
  return Float64Array.from({ length: out.length / 2 }, (_, i) => {
    const at = Math.floor(i / half) * n + (i % half);
    return swiglu(out[at] as number, out[at + half] as number, clamp);
  });
}
