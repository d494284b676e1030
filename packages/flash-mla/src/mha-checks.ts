// The argument rule of attention of ordinary heads, shared by the forward and the backward pass.

import { type DType, DTypeError, expectTensor, ShapeError, type Tensor } from "@open-infra/tensor";
import {
  expectChannels,
  expectGroups,
  expectScale,
  floatTypes,
  lengthsFromCumulative,
} from "./checks.ts";
import { ArgumentError } from "./errors.ts";
import type { FlashAttnVarlenInputs } from "./mha.ts";
import type { MhaCall } from "./mha-call.ts";

/** Channels of a head, at most: what a thread's scratch is laid out for. */
export const HEAD_DIM_MAX = 1024;

/** Sizes that the arguments of a call agree on. */
export interface MhaDims extends Record<string, number> {
  Tq: number;
  Tkv: number;
  H: number;
  Hkv: number;
  dqk: number;
  dv: number;
}

/** Checks dtype, shape and unit stride of one tensor; an lse may have any strides. */
export function expectRowsOf(
  operation: string,
  argument: string,
  tensor: Tensor,
  allowed: readonly DType[],
  pattern: readonly string[],
  dims: Record<string, number>,
): void {
  expectTensor(operation, argument, tensor, allowed, pattern, dims);
  if (pattern.length === 3) expectChannels(operation, argument, tensor);
}

function expectHeadDim(operation: string, argument: string, tensor: Tensor): void {
  if (tensor.dim(2) <= HEAD_DIM_MAX) return;
  throw new ShapeError(
    operation,
    argument,
    `[${tensor.shape}]`,
    `at most ${HEAD_DIM_MAX} channels`,
  );
}

function expectLongest(
  operation: string,
  argument: string,
  longest: number | undefined,
  lengths: Int32Array,
): void {
  if (longest === undefined) return;
  const needed = lengths.reduce((a, b) => Math.max(a, b), 0);
  if (Number.isSafeInteger(longest) && longest >= needed) return;
  throw new ArgumentError(operation, argument, `${longest}`, `an integer of at least ${needed}`);
}

/**
 * Checks all inputs of a call.
 *
 * @throws ShapeError, DTypeError or ArgumentError.
 */
export function checkInputs(
  operation: string,
  options: FlashAttnVarlenInputs,
): Omit<MhaCall, "out" | "lse"> & { readonly dims: MhaDims } {
  const { q, k, v, cuSeqlensQ, cuSeqlensK, dropoutP = 0, probabilities = "f32" } = options;
  const dims = {} as MhaDims;
  expectRowsOf(operation, "q", q, floatTypes, ["Tq", "H", "dqk"], dims);
  expectRowsOf(operation, "k", k, floatTypes, ["Tkv", "Hkv", "dqk"], dims);
  expectRowsOf(operation, "v", v, floatTypes, ["Tkv", "Hkv", "dv"], dims);
  if (v.dtype !== k.dtype) throw new DTypeError(operation, "v", v.dtype, `${k.dtype}, as k`);
  expectHeadDim(operation, "q", q);
  expectHeadDim(operation, "v", v);
  const { Tq, Tkv, H, Hkv, dqk, dv } = dims;
  expectGroups(operation, H, Hkv);
  const softmaxScale = options.softmaxScale ?? dqk ** -0.5;
  expectScale(operation, softmaxScale);
  if (dropoutP !== 0) throw new ArgumentError(operation, "dropoutP", `${dropoutP}`, "0");
  if (probabilities !== "f32" && probabilities !== "bf16") {
    throw new ArgumentError(operation, "probabilities", `${probabilities}`, "'f32' or 'bf16'");
  }
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
  expectLongest(operation, "maxSeqlenQ", options.maxSeqlenQ, queryLengths);
  expectLongest(operation, "maxSeqlenK", options.maxSeqlenK, keyLengths);
  return {
    operation,
    headsQ: H,
    headsK: Hkv,
    headDimQk: dqk,
    headDimV: dv,
    softmaxScale,
    causal: options.causal ?? false,
    roundProbabilities: probabilities === "bf16",
    queryLengths,
    keyLengths,
    cuSeqlensQ,
    cuSeqlensK,
    q,
    k,
    v,
    dims,
  };
}
