// Problems of attention over packed sequences, forward and backward, and what a result of them is
// compared by: an oracle of its own for the forward pass, the package's reference for gradients
// (which mha-gradients.unit.test.ts checks by finite differences).

import { type Device, ReferenceDevice } from "@open-infra/jit";
import { type DType, Tensor } from "@open-infra/tensor";
import type { Random } from "@open-infra/testing";
import {
  type FlashAttnVarlenGradients,
  type FlashAttnVarlenInputs,
  type FlashAttnVarlenResult,
  flashAttnVarlenBackward,
  flashAttnVarlenFunc,
} from "../src/index.ts";
import { bits, drawn, poisoned, softmaxRow } from "./problems.ts";

export interface MhaShape {
  readonly h: number;
  readonly hkv: number;
  readonly dqk: number;
  readonly dv: number;
  readonly lensQ: readonly number[];
  readonly lensK: readonly number[];
  readonly dtype: DType;
  readonly causal: boolean;
}

export interface MhaProblem extends FlashAttnVarlenInputs {
  readonly shape: MhaShape;
  readonly dOut: Tensor;
  readonly softmaxScale: number;
  readonly causal: boolean;
}

/** i32 prefix sums. */
export function cumulative(lens: readonly number[]): Tensor<"i32"> {
  const sums = [0];
  for (const n of lens) sums.push((sums.at(-1) as number) + n);
  return Tensor.from(sums, [sums.length], "i32");
}

/** A problem whose keys and values are slices of one packed tensor, as a projection leaves them. */
export function mhaProblem(random: Random, shape: MhaShape): MhaProblem {
  const { h, hkv, dqk, dv, dtype, causal } = shape;
  const cuSeqlensQ = cumulative(shape.lensQ);
  const cuSeqlensK = cumulative(shape.lensK);
  const tq = cuSeqlensQ.raw().at(-1) as number;
  const tk = cuSeqlensK.raw().at(-1) as number;
  const make = (t: number, heads: number, d: number): Tensor =>
    Tensor.from(
      drawn(random, t * heads * d).map((x) => x * 5),
      [t, heads, d],
      dtype,
    );
  const q = make(tq, h, dqk);
  const kv = make(tk, hkv, dqk + dv);
  const [k, v] = [kv.slice(2, 0, dqk), kv.slice(2, dqk, dqk + dv)];
  const softmaxScale = (dqk + 100) ** -0.5;
  return { shape, q, k, v, dOut: make(tq, h, dv), cuSeqlensQ, cuSeqlensK, softmaxScale, causal };
}

/** Rows of the forward pass in float64: `out` and `lse`, row-major. */
export function forwardOracle(
  problem: MhaProblem,
  q: Float64Array = problem.q.toFloat64(),
  k: Float64Array = problem.k.toFloat64(),
  v: Float64Array = problem.v.toFloat64(),
): { out: number[]; lse: number[] } {
  const { h, hkv, dqk, dv, lensQ, lensK, causal } = problem.shape;
  const out: number[] = [];
  const lse: number[] = [];
  let [startQ, startK] = [0, 0];
  for (const [r, n] of lensQ.entries()) {
    const keys = lensK[r] as number;
    for (let row = 0; row < n * h; row++) {
      const [i, head] = [Math.floor(row / h), row % h];
      const visible = causal ? Math.max(0, Math.min(keys, keys - n + i + 1)) : keys;
      const at = (startQ + i) * h + head;
      const kv = (j: number): number => (startK + j) * hkv + Math.floor(head / (h / hkv));
      const result = softmaxRow(
        q.subarray(at * dqk, (at + 1) * dqk),
        visible,
        problem.softmaxScale,
        dv,
        (j) => k.subarray(kv(j) * dqk, (kv(j) + 1) * dqk),
        (j) => v.subarray(kv(j) * dv, (kv(j) + 1) * dv),
      );
      out.push(...result.out);
      lse.push(result.lse);
    }
    startQ += n;
    startK += keys;
  }
  return { out, lse };
}

/** Forward and backward into poisoned outputs. */
export function runBoth(
  device: Device,
  problem: MhaProblem,
  options: { readonly dLse?: Tensor; readonly outType?: DType } = {},
): FlashAttnVarlenResult & FlashAttnVarlenGradients {
  const { q, k, v, dOut } = problem;
  const like = (t: Tensor): Tensor => poisoned(t.shape, options.outType ?? t.dtype);
  const [out, lse] = [like(dOut), poisoned(q.shape.slice(0, 2), "f32")];
  flashAttnVarlenFunc(device, { ...problem, out, lse });
  const gradients = { dq: like(q), dk: like(k), dv: like(v) };
  const { dLse } = options;
  const given = { ...problem, out, lse, ...gradients, ...(dLse !== undefined && { dLse }) };
  return { out, lse, ...flashAttnVarlenBackward(device, given) };
}

const reference = new ReferenceDevice();

/** Gradients by the float64 reference, kept as f32. */
export function gradientOracle(problem: MhaProblem, dLse?: Tensor): FlashAttnVarlenGradients {
  const outType = "f32";
  return runBoth(reference, problem, { outType, ...(dLse !== undefined && { dLse }) });
}

/** All bits of a result, by name. */
export function bitsOf(results: object): Record<string, string> {
  return Object.fromEntries(Object.entries(results).map(([name, t]) => [name, bits(t as Tensor)]));
}
