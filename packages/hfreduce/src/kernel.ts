// The native collective (kernels/hfreduce.c) as a kernel of ranks: its parameters and constants.

import { type CommKernel, defineCommKernel } from "@open-infra/ranks";
import { type DType, dtypeBits } from "@open-infra/tensor";

/** What is done with the numbers that meet; NaN wins everywhere. */
export type ReduceOp = "sum" | "avg" | "max" | "min";

/** Collectives by their number in hfreduce_op.h. */
export const kinds = {
  allreduce: 0,
  reduce: 1,
  broadcast: 2,
  reduceScatter: 3,
  allGather: 4,
} as const;
export type Kind = keyof typeof kinds;

/** How ranks of different nodes exchange. */
export const algorithms = { small: 0, tree: 1, ring: 2 } as const;
export type Algorithm = keyof typeof algorithms;

const ops = { sum: 0, avg: 1, max: 2, min: 3, copy: 4 } as const;
export type NativeOp = keyof typeof ops;
export const reduceOps: readonly ReduceOp[] = ["sum", "avg", "max", "min"];

/** Numbers of dtypes in headers; those up to `i64` can be reduced. */
export const dtypeCodes: Readonly<Record<DType, number>> = {
  f32: 0,
  bf16: 1,
  f16: 2,
  e4m3fn: 3,
  e5m2: 4,
  f64: 5,
  i32: 6,
  i64: 7,
  ue8m0: 8,
  u8: 9,
  e2m1: 10,
};
const bytesCode = 8;
const lastReducible = 7;

/** Whether there is arithmetic for a dtype. */
export function isReducible(dtype: DType): boolean {
  return dtypeCodes[dtype] <= lastReducible;
}

export const reducibleDtypes: readonly DType[] = (Object.keys(dtypeCodes) as DType[]).filter(
  isReducible,
);

/** Bytes of what a dtype is added up in: f32 for the small floats, else itself. */
export function accumulatorBytes(dtype: DType): number {
  return Math.max(4, dtypeBits[dtype] / 8);
}

/** Compile-time constants. */
export function kernelConstants(
  dtype: DType,
  op: NativeOp,
  wire: "accumulator" | "dtype",
): Record<string, number> {
  return {
    DTYPE: op === "copy" ? bytesCode : dtypeCodes[dtype],
    OP: ops[op],
    WIRE: wire === "dtype" && op !== "copy" ? 1 : 0,
  };
}

/** See `params_t` in kernels/hfreduce.c. */
export const hfreduceKernel: CommKernel<{
  window: "ptr";
  frame: "ptr";
  lanes: "ptr";
  buffers: "ptr";
  greets: "ptr";
  last: "ptr";
  greet_count: "i64";
  last_count: "i64";
  last_seq: "i64";
  seq: "i64";
  kind: "i64";
  algorithm: "i64";
  count: "i64";
  elements: "i64";
  devices: "i64";
  root: "i64";
  dtype: "i64";
  chunk: "i64";
  lag: "i64";
}> = defineCommKernel({
  name: "hfreduce",
  source: new URL("../kernels/hfreduce.c", import.meta.url),
  entry: "hfreduce",
  params: {
    window: "ptr",
    frame: "ptr",
    lanes: "ptr",
    buffers: "ptr",
    greets: "ptr",
    last: "ptr",
    greet_count: "i64",
    last_count: "i64",
    last_seq: "i64",
    seq: "i64",
    kind: "i64",
    algorithm: "i64",
    count: "i64",
    elements: "i64",
    devices: "i64",
    root: "i64",
    dtype: "i64",
    chunk: "i64",
    lag: "i64",
  },
});
