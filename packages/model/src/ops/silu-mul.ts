// The gate of SwiGLU.

import { defineKernel, type Operation } from "@open-infra/jit";
import { expectContiguous, expectRows, expectTensor, type Tensor } from "@open-infra/tensor";
import { type ActDType, actDTypes, kernelUrl, threadsFor, write } from "./common.ts";

export interface SiluMulArgs {
  /** f32 [M, ≥ upOffset + I]: the gate's columns from 0, the up projection's from `upOffset`. */
  readonly x: Tensor<"f32">;
  readonly upOffset: number;
  /** f32 or bf16 [M, I] */
  readonly out: Tensor<ActDType>;
}

/** out = silu(gate) · up. */
export const siluMul: Operation<SiluMulArgs> = {
  name: "silu_mul",
  check({ x, upOffset, out }) {
    expectTensor("silu_mul", "out", out, actDTypes, ["M", "I"], {});
    expectContiguous("silu_mul", "out", out);
    const width = Math.max(x.shape[1] ?? 0, upOffset + out.dim(1));
    expectTensor("silu_mul", "x", x, ["f32"], [out.dim(0), width], {});
    expectRows("silu_mul", "x", x);
  },
  reference({ x, upOffset, out }) {
    const width = out.dim(1);
    for (let m = 0; m < out.dim(0); m++) {
      const row = x.select(0, m).toFloat64();
      const y = row
        .subarray(0, width)
        .map((gate, i) => (gate / (1 + Math.exp(-gate))) * row[upOffset + i]!);
      write(out.select(0, m), y);
    }
  },
  kernels: {
    cpu: defineKernel({
      language: "c",
      source: kernelUrl("silu_mul.c"),
      entry: "silu_mul",
      params: {
        x: "ptr",
        out: "ptr",
        rows: "i64",
        n: "i64",
        x_stride: "i64",
        up_offset: "i64",
      },
      constants: ({ out }: SiluMulArgs) => ({ OUT_BF16: out.dtype === "bf16" ? 1 : 0 }),
      pack: ({ x, out, upOffset }) => ({
        x,
        out,
        rows: out.dim(0),
        n: out.dim(1),
        x_stride: x.stride(0),
        up_offset: upOffset,
      }),
      threads: ({ out }, target) => threadsFor(out.size * 4, target),
    }),
  },
};
