// Attention over packed sequences whose queries, keys and values, or keys and values, are channels
// of one tensor: `flash_attn_varlen_qkvpacked_func`, `flash_attn_varlen_kvpacked_func` and their
// gradients. Nothing is copied: the parts are slices, and gradients are written as slices too.

import type { Device } from "@open-infra/jit";
import { expectTensor, Tensor } from "@open-infra/tensor";
import { expectChannels, floatTypes } from "./checks.ts";
import { ArgumentError } from "./errors.ts";
import {
  type FlashAttnVarlenInputs,
  type FlashAttnVarlenOptions,
  type FlashAttnVarlenResult,
  forward,
} from "./mha.ts";
import { backward, type FlashAttnVarlenBackwardOptions } from "./mha-backward.ts";

/** What calls with one packed tensor share. */
export interface FlashAttnVarlenQkvpackedInputs
  extends Pick<
    FlashAttnVarlenInputs,
    "softmaxScale" | "causal" | "probabilities" | "dropoutP" | "deterministic"
  > {
  /** bf16, f16 or f32 `[T, H, dqk + dqk + dv]`: query, key, value; unit stride last. */
  readonly qkv: Tensor;
  /** i32 `[b + 1]`: prefix sums from 0 to T. */
  readonly cuSeqlens: Tensor;
  /** The longest sequence, if you know it: it is checked and needed for nothing. */
  readonly maxSeqlen?: number;
  /** dqk; what is left of the channels is dv. */
  readonly headDimQk: number;
}

export interface FlashAttnVarlenQkvpackedOptions
  extends FlashAttnVarlenQkvpackedInputs,
    Pick<FlashAttnVarlenOptions, "out" | "lse"> {}

/** What calls with packed keys and values share. */
export interface FlashAttnVarlenKvpackedInputs extends Omit<FlashAttnVarlenInputs, "k" | "v"> {
  /** bf16, f16 or f32 `[Tkv, Hkv, dqk + dv]`: key, value; unit stride last. */
  readonly kv: Tensor;
  /** dqk; what is left of the channels is dv. */
  readonly headDimQk: number;
}

export interface FlashAttnVarlenKvpackedOptions
  extends FlashAttnVarlenKvpackedInputs,
    Pick<FlashAttnVarlenOptions, "out" | "lse"> {}

/** Slices of the last dimension: `parts - 1` of headDimQk channels, and the rest. */
function split(
  operation: string,
  argument: string,
  packed: Tensor,
  headDimQk: number,
  parts: 2 | 3,
): Tensor[] {
  expectTensor(operation, argument, packed, floatTypes, ["T", "H", "channels"], {});
  expectChannels(operation, argument, packed);
  const channels = packed.dim(2);
  const most = Math.floor((channels - 1) / (parts - 1));
  if (!Number.isSafeInteger(headDimQk) || headDimQk < 1 || headDimQk > most) {
    throw new ArgumentError(
      operation,
      "headDimQk",
      `${headDimQk}`,
      `an integer in 1..${most}, ${argument} having ${channels} channels`,
    );
  }
  return Array.from({ length: parts }, (_, i) =>
    packed.slice(2, i * headDimQk, i < parts - 1 ? (i + 1) * headDimQk : channels),
  );
}

function unpackQkv(
  operation: string,
  options: FlashAttnVarlenQkvpackedInputs,
): FlashAttnVarlenInputs {
  const { qkv, cuSeqlens, maxSeqlen, headDimQk, ...rest } = options;
  const [q, k, v] = split(operation, "qkv", qkv, headDimQk, 3) as [Tensor, Tensor, Tensor];
  const longest = maxSeqlen === undefined ? {} : { maxSeqlenQ: maxSeqlen, maxSeqlenK: maxSeqlen };
  return { ...rest, ...longest, q, k, v, cuSeqlensQ: cuSeqlens, cuSeqlensK: cuSeqlens };
}

function unpackKv(
  operation: string,
  options: FlashAttnVarlenKvpackedInputs,
): FlashAttnVarlenInputs {
  const { kv, headDimQk, ...rest } = options;
  const [k, v] = split(operation, "kv", kv, headDimQk, 2) as [Tensor, Tensor];
  return { ...rest, k, v };
}

/**
 * Self-attention of packed queries, keys and values (`flash_attn_varlen_qkvpacked_func`).
 *
 * @throws ShapeError, DTypeError or ArgumentError before any launch.
 */
export function flashAttnVarlenQkvpackedFunc(
  device: Device,
  options: FlashAttnVarlenQkvpackedOptions,
): FlashAttnVarlenResult {
  const operation = "flashAttnVarlenQkvpackedFunc";
  return forward(operation, device, unpackQkv(operation, options));
}

/**
 * Attention with packed keys and values (`flash_attn_varlen_kvpacked_func`).
 *
 * @throws ShapeError, DTypeError or ArgumentError before any launch.
 */
export function flashAttnVarlenKvpackedFunc(
  device: Device,
  options: FlashAttnVarlenKvpackedOptions,
): FlashAttnVarlenResult {
  const operation = "flashAttnVarlenKvpackedFunc";
  return forward(operation, device, unpackKv(operation, options));
}

export interface FlashAttnVarlenQkvpackedBackwardOptions
  extends FlashAttnVarlenQkvpackedInputs,
    Pick<FlashAttnVarlenBackwardOptions, "dOut" | "out" | "lse" | "dLse"> {
  /** In the shape of qkv. @default a new tensor of qkv's dtype */
  readonly dQkv?: Tensor;
}

/**
 * Gradients of {@link flashAttnVarlenQkvpackedFunc}, packed as its input.
 *
 * @throws ShapeError, DTypeError or ArgumentError before any launch.
 */
export function flashAttnVarlenQkvpackedBackward(
  device: Device,
  options: FlashAttnVarlenQkvpackedBackwardOptions,
): { readonly dQkv: Tensor } {
  const operation = "flashAttnVarlenQkvpackedBackward";
  const { dQkv: given, dOut, out, lse, dLse, ...inputs } = options;
  const unpacked = unpackQkv(operation, inputs);
  const { shape, dtype } = inputs.qkv;
  const dQkv = given ?? Tensor.empty(shape, dtype, "dQkv");
  expectTensor(operation, "dQkv", dQkv, floatTypes, shape, {});
  const parts = split(operation, "dQkv", dQkv, inputs.headDimQk, 3);
  const [dq, dk, dv] = parts as [Tensor, Tensor, Tensor];
  const extra = dLse === undefined ? {} : { dLse };
  backward(operation, device, { ...unpacked, dOut, out, lse, ...extra, dq, dk, dv });
  return { dQkv };
}

export interface FlashAttnVarlenKvpackedBackwardOptions
  extends FlashAttnVarlenKvpackedInputs,
    Pick<FlashAttnVarlenBackwardOptions, "dOut" | "out" | "lse" | "dLse" | "dq"> {
  /** In the shape of kv. @default a new tensor of kv's dtype */
  readonly dKv?: Tensor;
}

/**
 * Gradients of {@link flashAttnVarlenKvpackedFunc}, packed as its inputs.
 *
 * @throws ShapeError, DTypeError or ArgumentError before any launch.
 */
export function flashAttnVarlenKvpackedBackward(
  device: Device,
  options: FlashAttnVarlenKvpackedBackwardOptions,
): { readonly dq: Tensor; readonly dKv: Tensor } {
  const operation = "flashAttnVarlenKvpackedBackward";
  const { dKv: given, dOut, out, lse, dLse, dq: dqGiven, ...inputs } = options;
  const unpacked = unpackKv(operation, inputs);
  const { shape, dtype } = inputs.kv;
  const dKv = given ?? Tensor.empty(shape, dtype, "dKv");
  expectTensor(operation, "dKv", dKv, floatTypes, shape, {});
  const [dk, dv] = split(operation, "dKv", dKv, inputs.headDimQk, 2) as [Tensor, Tensor];
  const extra = {
    ...(dLse !== undefined && { dLse }),
    ...(dqGiven !== undefined && { dq: dqGiven }),
  };
  const { dq } = backward(operation, device, { ...unpacked, dOut, out, lse, ...extra, dk, dv });
  return { dq, dKv };
}
