// Gradients of attention over packed sequences: the backward pass of `flash_attn_varlen_func`. The
// original reaches it through PyTorch's autograd and refuses grouped heads; here it is a function
// of its own and sums over the query heads of a key head.

import type { Device } from "@open-infra/jit";
import { Tensor } from "@open-infra/tensor";
import { floatTypes } from "./checks.ts";
import type { FlashAttnVarlenInputs } from "./mha.ts";
import { checkInputs, expectRowsOf } from "./mha-checks.ts";
import { runMhaBackward } from "./mha-operation.ts";

export interface FlashAttnVarlenBackwardOptions extends FlashAttnVarlenInputs {
  /** Gradient of `out`: bf16, f16 or f32 `[Tq, H, dv]`, unit stride in the last dimension. */
  readonly dOut: Tensor;
  /** What the forward pass returned. */
  readonly out: Tensor;
  /** What the forward pass returned, f32 `[Tq, H]`. */
  readonly lse: Tensor;
  /** Gradient of `lse`, f32 `[Tq, H]`, which the original ignores. @default zeros */
  readonly dLse?: Tensor;
  /** `[Tq, H, dqk]`. @default a new tensor of q's dtype */
  readonly dq?: Tensor;
  /** `[Tkv, Hkv, dqk]`. @default a new tensor of k's dtype */
  readonly dk?: Tensor;
  /** `[Tkv, Hkv, dv]`. @default a new tensor of v's dtype */
  readonly dv?: Tensor;
}

export interface FlashAttnVarlenGradients {
  /** 0 where a query sees no key. */
  readonly dq: Tensor;
  /** 0 where no query sees a key. */
  readonly dk: Tensor;
  readonly dv: Tensor;
}

/**
 * Gradients of {@link flashAttnVarlenFunc}. Every sum is taken in one order, so results are the
 * same to the last bit again and again, alone or in a batch, on any number of threads. Beside its
 * outputs it needs an f32 row of dqk channels for each query of the sequences being computed.
 *
 * @throws ShapeError, DTypeError or ArgumentError before any launch.
 */
export function flashAttnVarlenBackward(
  device: Device,
  options: FlashAttnVarlenBackwardOptions,
): FlashAttnVarlenGradients {
  return backward("flashAttnVarlenBackward", device, options);
}

/** {@link flashAttnVarlenBackward} under the name that its errors give. */
export function backward(
  operation: string,
  device: Device,
  options: FlashAttnVarlenBackwardOptions,
): FlashAttnVarlenGradients {
  const { dims, ...inputs } = checkInputs(operation, options);
  const { Tq, Tkv, H, Hkv, dqk } = dims;
  const { out, lse, dOut } = options;
  const dLse = options.dLse ?? null;
  const rows = (name: string, tensor: Tensor, pattern: readonly string[]): void =>
    expectRowsOf(operation, name, tensor, floatTypes, pattern, dims);
  rows("out", out, ["Tq", "H", "dv"]);
  rows("dOut", dOut, ["Tq", "H", "dv"]);
  expectRowsOf(operation, "lse", lse, ["f32"], ["Tq", "H"], dims);
  if (dLse !== null) expectRowsOf(operation, "dLse", dLse, ["f32"], ["Tq", "H"], dims);
  const dq = options.dq ?? Tensor.empty([Tq, H, dqk], inputs.q.dtype, "dq");
  const dk = options.dk ?? Tensor.empty([Tkv, Hkv, dqk], inputs.k.dtype, "dk");
  const dv = options.dv ?? Tensor.empty([Tkv, Hkv, dims.dv], inputs.v.dtype, "dv");
  rows("dq", dq, ["Tq", "H", "dqk"]);
  rows("dk", dk, ["Tkv", "Hkv", "dqk"]);
  rows("dv", dv, ["Tkv", "Hkv", "dv"]);
  runMhaBackward(device, { ...inputs, out, lse, dOut, dLse, dq, dk, dv });
  return { dq, dk, dv };
}
