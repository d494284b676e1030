// Products of few rows and few columns over a long K, cut along K for many threads. Cuts are at
// multiples of 512, whatever M is, and parts are added in their order: a row still does not know
// its batch. Where vectors multiply, that is how they add up their blocks anyway, and no bit
// changes; matrix tiles sum all of K in one chain otherwise.

import { type Device, defineKernel, type Operation } from "@open-infra/jit";
import { type DType, Tensor } from "@open-infra/tensor";
import { checkCall, type GemmCall, sizesOf } from "./call.ts";
import { ArgumentError } from "./errors.ts";
import { run } from "./gemm.ts";
import { defaultGrains, isScaled } from "./operand.ts";

/** k of a part: a block of the kernels' own sums, whatever M, N and K are. */
export const SPLIT_K = 512;

interface AddCall {
  /** f32 [parts, M, N] */
  readonly parts: Tensor;
  readonly c: Tensor | null;
  /** [M,N] */
  readonly d: Tensor;
}

const outputs: readonly DType[] = ["f32", "bf16", "f16", "e4m3fn"];

const addOperation: Operation<AddCall> = {
  name: "addParts",
  check: () => {},
  reference({ parts, c, d }) {
    const [count, m, n] = parts.shape as [number, number, number];
    const sums = new Float64Array(m * n);
    for (let i = 0; i < count; i++) {
      const part = parts.select(0, i).toFloat64();
      for (let j = 0; j < sums.length; j++) sums[j] = (sums[j] as number) + (part[j] as number);
    }
    const added = c?.toFloat64();
    if (added !== undefined)
      for (const [j, x] of added.entries()) sums[j] = (sums[j] as number) + x;
    d.copyFrom(Tensor.from(sums, [m, n], d.dtype));
  },
  kernels: {
    cpu: defineKernel({
      language: "c",
      source: new URL("../kernels/add_parts.c", import.meta.url),
      entry: "add_parts",
      params: {
        parts: "ptr",
        c: "ptr",
        d: "ptr",
        count: "i64",
        m: "i64",
        n: "i64",
        c_row: "i64",
        d_row: "i64",
      },
      constants: ({ d }: AddCall) => ({ D_TYPE: outputs.indexOf(d.dtype) }),
      pack: ({ parts, c, d }) => ({
        parts,
        c,
        d,
        count: parts.dim(0),
        m: parts.dim(1),
        n: parts.dim(2),
        c_row: c?.stride(0) ?? 0,
        d_row: d.stride(0),
      }),
      threads: ({ parts }) => Math.max(1, Math.floor(parts.size / 32768)),
    }),
  },
  work: ({ parts, d }) => ({ flops: parts.size, bytes: parts.byteLength + d.byteLength }),
};

/** Whether blocks of scales end where parts do. */
function scalesEndWithParts({ a, b, grains }: GemmCall): boolean {
  const { a: grainA, b: grainB } = grains ?? defaultGrains;
  const fits = (scaled: boolean, k: number): boolean => !scaled || SPLIT_K % k === 0;
  const same = !isScaled(a) || !isScaled(b) || grainA.k === grainB.k;
  return same && fits(isScaled(a), grainA.k) && fits(isScaled(b), grainB.k);
}

/**
 * Runs a dense product in parts along K.
 *
 * @throws what the product itself does; ArgumentError for a call that cannot be cut.
 */
export function runSplit(device: Device, call: GemmCall): void {
  const { operation, kind, c, d, epilogue, heads, dScales } = call;
  checkCall(call);
  const refuse = (got: string, allowed: string): never => {
    throw new ArgumentError(operation, "splitK", `true ${got}`, allowed);
  };
  if (kind !== "dense") refuse("of groups", "false, or one product of a and b");
  if (epilogue !== undefined || dScales !== undefined || heads !== undefined) {
    refuse("with an epilogue", "a plain d, without one");
  }
  if (!scalesEndWithParts(call)) {
    refuse("with this recipe", `scales for a divisor of ${SPLIT_K} k, the same of a and b`);
  }
  const { m, n, k } = sizesOf(call);
  // The reference is the oracle of both.
  if (k <= SPLIT_K || m === 0 || n === 0 || device.backend === "reference") {
    run(device, call);
    return;
  }
  const count = Math.ceil(k / SPLIT_K);
  const sizes = Array.from({ length: count }, (_, i) => Math.min(SPLIT_K, k - i * SPLIT_K));
  const parts = Tensor.empty([count, m, n], "f32", "parts");
  const index = Tensor.from(sizes, [count], "i32", "ks");
  run(device, { ...call, kind: "k-sizes", index, c: null, d: parts });
  device.run(addOperation, { parts, c, d });
}
