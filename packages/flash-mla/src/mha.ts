// Attention of ordinary heads over packed sequences of different lengths: the forward pass of
// `flash_attn_varlen_func`. Keys and values have head dimensions of their own. The backward pass
// is not here.

import type { Device } from "@open-infra/jit";
import { DTypeError, expectTensor, ShapeError, Tensor } from "@open-infra/tensor";
import {
  expectChannels,
  expectGroups,
  expectScale,
  floatTypes,
  lengthsFromCumulative,
} from "./checks.ts";
import { runAttention } from "./operation.ts";

export interface FlashAttnVarlenOptions {
  /** bf16, f16 or f32 `[Tq, H, dqk]`; unit stride in the last dimension, others free. */
  readonly q: Tensor;
  /** bf16, f16 or f32 `[Tkv, Hkv, dqk]`, H a multiple of Hkv. */
  readonly k: Tensor;
  /** `[Tkv, Hkv, dv]`, dtype of k. */
  readonly v: Tensor;
  /** i32 `[b + 1]`: prefix sums from 0 to Tq. */
  readonly cuSeqlensQ: Tensor;
  /** i32 `[b + 1]`: prefix sums from 0 to Tkv. */
  readonly cuSeqlensK: Tensor;
  /** @default dqk ** -0.5 */
  readonly softmaxScale?: number;
  /** Query i of s_q sees keys up to s_k − s_q + i. @default false */
  readonly causal?: boolean;
  /** bf16, f16 or f32 `[Tq, H, dv]`. @default a new tensor of q's dtype */
  readonly out?: Tensor;
  /** f32 `[Tq, H]`. @default a new tensor */
  readonly lse?: Tensor;
}

export interface FlashAttnVarlenResult {
  /** `[Tq, H, dv]`; 0 where a query sees no key. */
  readonly out: Tensor;
  /** f32 `[Tq, H]`, natural logarithm; +inf where a query sees no key. */
  readonly lse: Tensor;
}

/**
 * Attention over packed sequences (`flash_attn_varlen_func`, forward).
 *
 * @throws ShapeError, DTypeError or ArgumentError before any launch.
 */
export function flashAttnVarlenFunc(
  device: Device,
  options: FlashAttnVarlenOptions,
): FlashAttnVarlenResult {
  const operation = "flashAttnVarlenFunc";
  const { q, k, v, cuSeqlensQ, cuSeqlensK } = options;
  const dims: Record<string, number> = {};
  expectTensor(operation, "q", q, floatTypes, ["Tq", "H", "dqk"], dims);
  expectTensor(operation, "k", k, floatTypes, ["Tkv", "Hkv", "dqk"], dims);
  expectTensor(operation, "v", v, floatTypes, ["Tkv", "Hkv", "dv"], dims);
  if (v.dtype !== k.dtype) throw new DTypeError(operation, "v", v.dtype, `${k.dtype}, as k`);
  for (const [name, tensor] of Object.entries({ q, k, v })) expectChannels(operation, name, tensor);
  const { Tq, Tkv, H, Hkv, dqk, dv } = dims as Record<
    "Tq" | "Tkv" | "H" | "Hkv" | "dqk" | "dv",
    number
  >;
  expectGroups(operation, H, Hkv);
  const softmaxScale = options.softmaxScale ?? dqk ** -0.5;
  expectScale(operation, softmaxScale);
  const queryLengths = lengthsFromCumulative(operation, "cuSeqlensQ", cuSeqlensQ, Tq);
  const keyLengths = lengthsFromCumulative(operation, "cuSeqlensK", cuSeqlensK, Tkv);
  if (keyLengths.length !== queryLengths.length) {
    throw new ShapeError(
      operation,
      "cuSeqlensK",
      `[${cuSeqlensK.shape}]`,
      `[${cuSeqlensQ.shape}], as cuSeqlensQ`,
    );
  }
  const out = options.out ?? Tensor.empty([Tq, H, dv], q.dtype, "out");
  const lse = options.lse ?? Tensor.empty([Tq, H], "f32", "lse");
  expectTensor(operation, "out", out, floatTypes, ["Tq", "H", "dv"], dims);
  expectChannels(operation, "out", out);
  expectTensor(operation, "lse", lse, ["f32"], ["Tq", "H"], dims);
  runAttention(device, {
    operation,
    layout: "ragged",
    requests: queryLengths.length,
    headsQ: H,
    headsK: Hkv,
    headDimQk: dqk,
    headDimV: dv,
    softmaxScale,
    causal: options.causal ?? false,
    queryLengths,
    keyLengths,
    q,
    out,
    lse,
    cuSeqlensQ,
    k,
    v,
    blockTable: null,
    cuSeqlensK,
    contextLens: null,
    plan: null,
    partials: null,
  });
  return { out, lse };
}
