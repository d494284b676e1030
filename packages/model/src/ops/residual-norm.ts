// The residual step and the RMS norm after it, in one pass over the row.

import { defineKernel, type Operation } from "@open-infra/jit";
import {
  type Dims,
  expectContiguous,
  expectRows,
  expectTensor,
  type Tensor,
} from "@open-infra/tensor";
import { type ActDType, actDTypes, kernelUrl, threadsFor, write } from "./common.ts";

/** Rows of routed experts to add, weighted, per token. */
export interface ExpertRows {
  /** f32 [T·K, H], sorted by expert. */
  readonly rows: Tensor<"f32">;
  /** i32 [T, K]: the row of a token's j-th expert. */
  readonly positions: Tensor<"i32">;
  /** f32 [T, K] */
  readonly weights: Tensor<"f32">;
}

export interface ResidualNormArgs {
  /** f32 [T, H], updated in place; rows may be strided where nothing is added. */
  readonly h: Tensor<"f32">;
  /** f32 [T, H] added to h. */
  readonly delta?: Tensor<"f32"> | undefined;
  readonly experts?: ExpertRows | undefined;
  /** f32 [H] */
  readonly weight: Tensor<"f32">;
  readonly eps: number;
  /** i32 [N]: only these rows of h, each at most once; all T (= N) where left out. */
  readonly rows?: Tensor<"i32"> | undefined;
  /** f32 or bf16 [N, H] */
  readonly out: Tensor<ActDType>;
  /** f32 [N, H]: the same before rounding, for the router. */
  readonly outF32?: Tensor<"f32"> | undefined;
}

const name = "residual_norm";

function check(args: ResidualNormArgs): void {
  const { h, delta, experts, weight, rows, out, outF32 } = args;
  const dims: Dims = {};
  expectTensor(name, "h", h, ["f32"], ["T", "H"], dims);
  expectRows(name, "h", h);
  if (rows !== undefined) expectTensor(name, "rows", rows, ["i32"], ["N"], dims);
  else dims.N = h.dim(0);
  expectTensor(name, "weight", weight, ["f32"], ["H"], dims);
  expectTensor(name, "out", out, actDTypes, ["N", "H"], dims);
  expectContiguous(name, "out", out);
  if (outF32 !== undefined) {
    expectTensor(name, "outF32", outF32, ["f32"], ["N", "H"], dims);
    expectContiguous(name, "outF32", outF32);
  }
  if (delta !== undefined) {
    expectTensor(name, "delta", delta, ["f32"], ["T", "H"], dims);
    expectContiguous(name, "delta", delta);
  }
  if (experts !== undefined) {
    expectTensor(name, "experts.positions", experts.positions, ["i32"], ["T", "K"], dims);
    expectTensor(name, "experts.weights", experts.weights, ["f32"], ["T", "K"], dims);
    expectTensor(name, "experts.rows", experts.rows, ["f32"], ["R", "H"], dims);
    for (const [key, tensor] of Object.entries(experts)) {
      expectContiguous(name, `experts.${key}`, tensor);
    }
  }
}

function reference(args: ResidualNormArgs): void {
  const { h, delta, experts, weight, eps, rows, out, outF32 } = args;
  const width = h.dim(1);
  const chosen = rows?.raw() ?? Int32Array.from({ length: h.dim(0) }, (_, t) => t);
  const scale = weight.toFloat64();
  chosen.forEach((t, i) => {
    const row = h.select(0, t);
    const x = row.toFloat64();
    const added = delta?.select(0, t).toFloat64();
    if (added !== undefined) for (let c = 0; c < width; c++) x[c]! += added[c]!;
    if (experts !== undefined) {
      const positions = experts.positions.select(0, t).raw();
      experts.weights
        .select(0, t)
        .raw()
        .forEach((weightOfExpert, j) => {
          const expert = experts.rows.select(0, positions[j]!).toFloat64();
          for (let c = 0; c < width; c++) x[c]! += weightOfExpert * expert[c]!;
        });
    }
    if (delta !== undefined || experts !== undefined) write(row, x);
    const meanSquare = x.reduce((sum, v) => sum + v * v, 0) / width;
    const normed = x.map((v, c) => (v / Math.sqrt(meanSquare + eps)) * scale[c]!);
    write(out.select(0, i), normed);
    if (outF32 !== undefined) write(outF32.select(0, i), normed);
  });
}

/** h += delta + Σ weights · experts; out = h / rms(h) · weight (DeepseekV2RMSNorm). */
export const residualNorm: Operation<ResidualNormArgs> = {
  name,
  check,
  reference,
  kernels: {
    cpu: defineKernel({
      language: "c",
      source: kernelUrl("residual_norm.c"),
      entry: "residual_norm",
      params: {
        h: "ptr",
        delta: "ptr",
        expert_rows: "ptr",
        positions: "ptr",
        expert_weights: "ptr",
        weight: "ptr",
        rows: "ptr",
        out: "ptr",
        out_f32: "ptr",
        count: "i64",
        dim: "i64",
        h_stride: "i64",
        top_k: "i64",
        eps: "f64",
      },
      constants: ({ out }: ResidualNormArgs) => ({ OUT_BF16: out.dtype === "bf16" ? 1 : 0 }),
      pack: ({ h, delta, experts, weight, rows, out, outF32, eps }) => ({
        h,
        delta: delta ?? null,
        expert_rows: experts?.rows ?? null,
        positions: experts?.positions ?? null,
        expert_weights: experts?.weights ?? null,
        weight,
        rows: rows ?? null,
        out,
        out_f32: outF32 ?? null,
        count: out.dim(0),
        dim: out.dim(1),
        h_stride: h.stride(0),
        top_k: experts?.positions.dim(1) ?? 0,
        eps,
      }),
      threads: ({ out, experts }, target) =>
        Math.min(out.dim(0), threadsFor(out.size * (2 + (experts?.positions.dim(1) ?? 0)), target)),
    }),
  },
};
