// Attention of ordinary heads over packed sequences of different lengths: the forward pass of
// `flash_attn_varlen_func`. Keys and values have head dimensions of their own. The backward pass is
// in mha-backward.ts, packed inputs in mha-packed.ts.

import type { Device } from "@open-infra/jit";
import { Tensor } from "@open-infra/tensor";
import { floatTypes } from "./checks.ts";
import { checkInputs, expectRowsOf } from "./mha-checks.ts";
import { runMha } from "./mha-operation.ts";

/** What forward and backward pass take alike. */
export interface FlashAttnVarlenInputs {
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
  /** The longest sequence of queries, if you know it: it is checked and needed for nothing. */
  readonly maxSeqlenQ?: number;
  /** The longest sequence of keys, likewise. */
  readonly maxSeqlenK?: number;
  /** @default dqk ** -0.5 */
  readonly softmaxScale?: number;
  /** Query i of s_q sees keys up to s_k − s_q + i. @default false */
  readonly causal?: boolean;
  /**
   * `bf16` lets the kernels round probabilities, and backward the gradients of scores, to bf16 as
   * the original does. It changes something only where all inputs are bf16 and the processor's bf16
   * dot product is faster than its float arithmetic. @default "f32"
   */
  readonly probabilities?: "f32" | "bf16";
  /** Only 0, as in the original. @default 0 */
  readonly dropoutP?: number;
  /** Results are always the same to the last bit; accepted for the original's sake. */
  readonly deterministic?: boolean;
}

export interface FlashAttnVarlenOptions extends FlashAttnVarlenInputs {
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
 * Attention over packed sequences (`flash_attn_varlen_func`, forward), for any head dimensions up
 * to 1024; the original's are 192/128 and 128/128. A sequence's result is the same to the last bit
 * alone or in a batch, on any number of threads.
 *
 * @throws ShapeError, DTypeError or ArgumentError before any launch.
 */
export function flashAttnVarlenFunc(
  device: Device,
  options: FlashAttnVarlenOptions,
): FlashAttnVarlenResult {
  return forward("flashAttnVarlenFunc", device, options);
}

/** {@link flashAttnVarlenFunc} under the name that its errors give. */
export function forward(
  operation: string,
  device: Device,
  options: FlashAttnVarlenOptions,
): FlashAttnVarlenResult {
  const { dims, ...inputs } = checkInputs(operation, options);
  const { Tq, H, dv } = dims;
  const out = options.out ?? Tensor.empty([Tq, H, dv], inputs.q.dtype, "out");
  const lse = options.lse ?? Tensor.empty([Tq, H], "f32", "lse");
  expectRowsOf(operation, "out", out, floatTypes, ["Tq", "H", "dv"], dims);
  expectRowsOf(operation, "lse", lse, ["f32"], ["Tq", "H"], dims);
  runMha(device, { ...inputs, out, lse });
  return { out, lse };
}
