// Argument checks shared by the public functions. They run before anything is planned or launched.

import {
  type DType,
  expectContiguous,
  expectTensor,
  ShapeError,
  type Tensor,
} from "@open-infra/tensor";
import { ArgumentError } from "./errors.ts";

/** Dtypes of queries, keys, values and outputs. */
export const floatTypes: readonly DType[] = ["bf16", "f16", "f32"];

/** Requires a head count divisible by another. */
export function expectGroups(operation: string, headsQ: number, headsK: number): void {
  if (headsQ > 0 && headsK > 0 && headsQ % headsK === 0) return;
  throw new ShapeError(
    operation,
    "q",
    `${headsQ} heads for ${headsK} key heads`,
    "a positive multiple of the number of key heads",
  );
}

/** Requires unit stride in the last dimension and at least one channel. */
export function expectChannels(operation: string, argument: string, tensor: Tensor): void {
  const channels = tensor.dim(-1);
  if (channels < 1) {
    throw new ShapeError(operation, argument, `[${tensor.shape}]`, "at least one channel");
  }
  if (tensor.size > 0 && channels > 1 && tensor.stride(-1) !== 1) {
    throw new ShapeError(
      operation,
      argument,
      `strides [${tensor.strides}]`,
      "stride 1 in the last dimension",
    );
  }
}

/** Requires a finite softmax scale. */
export function expectScale(operation: string, scale: number, name = "softmaxScale"): void {
  if (Number.isFinite(scale)) return;
  throw new ArgumentError(operation, name, `${scale}`, "a finite number");
}

/** Requires `1 ≤ headDimV ≤ d`, d being the channels of a key. */
export function expectHeadDimV(
  operation: string,
  headDimV: number,
  d: number,
  name = "headDimV",
): void {
  if (Number.isSafeInteger(headDimV) && headDimV >= 1 && headDimV <= d) return;
  throw new ArgumentError(operation, name, `${headDimV}`, `an integer in 1..${d}`);
}

/**
 * Lengths from prefix sums: i32 `[b + 1]` from 0 to `total`, never falling.
 *
 * @throws ArgumentError naming the first entry that breaks the rule.
 */
export function lengthsFromCumulative(
  operation: string,
  argument: string,
  cu: Tensor,
  total: number,
): Int32Array {
  expectTensor(operation, argument, cu, ["i32"], ["requests + 1"], {});
  expectContiguous(operation, argument, cu);
  const sums = cu.raw() as Int32Array;
  if (sums.length === 0) throw new ShapeError(operation, argument, "[0]", "[requests + 1]");
  const lengths = new Int32Array(sums.length - 1);
  if (sums[0] !== 0) throw new ArgumentError(operation, `${argument}[0]`, `${sums[0]}`, "0");
  for (let r = 0; r < lengths.length; r++) {
    const from = sums[r] as number;
    const to = sums[r + 1] as number;
    if (to < from) {
      throw new ArgumentError(operation, `${argument}[${r + 1}]`, `${to}`, `at least ${from}`);
    }
    lengths[r] = to - from;
  }
  if (sums.at(-1) !== total) {
    throw new ArgumentError(
      operation,
      `${argument}[${lengths.length}]`,
      `${sums.at(-1)}`,
      `the number of tokens, ${total}`,
    );
  }
  return lengths;
}

/** Key lengths of paged requests, each within what its row of the block table can name. */
export function pagedLengths(
  operation: string,
  argument: string,
  lens: Tensor,
  requests: number,
  blockTable: Tensor,
  page: number,
): Int32Array {
  expectTensor(operation, argument, lens, ["i32"], ["requests"], { requests });
  expectContiguous(operation, argument, lens);
  expectTensor(operation, "blockTable", blockTable, ["i32"], ["requests", "maxBlocks"], {
    requests,
  });
  expectContiguous(operation, "blockTable", blockTable);
  const most = blockTable.dim(1) * page;
  const lengths = lens.raw() as Int32Array;
  for (let r = 0; r < requests; r++) {
    const n = lengths[r] as number;
    if (n < 0 || n > most) {
      throw new ArgumentError(
        operation,
        `${argument}[${r}]`,
        `${n}`,
        `0..${most} (${blockTable.dim(1)} blocks of ${page} tokens)`,
      );
    }
  }
  return lengths;
}

/** Requires `attnSink` to be f32 `[h_q]`; null if there is none. */
export function checkedSink(
  operation: string,
  sink: Tensor | undefined,
  headsQ: number,
): Tensor | null {
  if (sink === undefined) return null;
  expectTensor(operation, "attnSink", sink, ["f32"], ["h_q"], { h_q: headsQ });
  return sink.contiguous();
}

/** What an lse is given in: natural logarithms as the original, or base 2. */
export type LseBase = "e" | "2";

/** The factor that brings a natural logarithm to the base asked for. */
export function lseScaleOf(operation: string, base: LseBase = "e"): number {
  if (base === "e") return 1;
  if (base === "2") return Math.LOG2E;
  throw new ArgumentError(operation, "lseBase", `${base}`, "e or 2");
}

/** How probabilities enter their product with the values. */
export type Probabilities = "f32" | "bf16";

/** Whether probabilities may be rounded to bf16; they may unless asked otherwise. */
export function mayRound(operation: string, probabilities: Probabilities = "bf16"): boolean {
  if (probabilities === "bf16" || probabilities === "f32") return probabilities === "bf16";
  throw new ArgumentError(operation, "probabilities", `${probabilities}`, "f32 or bf16");
}
