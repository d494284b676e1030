// The row operations around the products of a mixture of experts: their float64 references and
// their kernels' parameters. How they are put together is in mega-moe.ts.

import { defineKernel, type Operation } from "@open-infra/jit";
import { Tensor } from "@open-infra/tensor";
import { swiglu } from "./epilogue.ts";

/** Rows of a tensor by index. */
interface GatherCall {
  /** [T, columns], rows may be apart, two or more elements to a byte only if whole bytes. */
  readonly x: Tensor;
  /** i32 [R] */
  readonly tokens: Tensor;
  /** [R, columns] */
  readonly out: Tensor;
}

/** Gates and values of rows, weighted. */
interface GateCall {
  /** f32 [R, 2n]: gates, then values. */
  readonly x: Tensor;
  /** f32 [R] */
  readonly weights: Tensor;
  /** f32 or bf16 [R, n] */
  readonly out: Tensor;
  readonly clamp: number;
}

/** Sums of rows. */
interface CombineCall {
  /** f32 [R, n] */
  readonly x: Tensor;
  /** i32 [T, k]: rows of x, or −1. */
  readonly rows: Tensor;
  /** bf16 [T, n], rows may be apart. */
  readonly out: Tensor;
}

const source = new URL("../kernels/moe_rows.c", import.meta.url);
const params = {
  x: "ptr",
  tokens: "ptr",
  out: "ptr",
  rows: "i64",
  bytes: "i64",
  x_row: "i64",
  out_row: "i64",
  clamp: "f64",
} as const;

/** Below this many elements a thread, waking it costs more than it saves. */
const elementsPerThread = 16384;

const threadsFor = (size: number): number => Math.max(1, Math.floor(size / elementsPerThread));

/** out[r] = x[tokens[r]]. */
export const gatherRows: Operation<GatherCall> = {
  name: "gatherRows",
  check: () => {},
  reference({ x, tokens, out }) {
    for (const [r, t] of (tokens.raw() as Int32Array).entries()) {
      out.slice(0, r, r + 1).copyFrom(x.slice(0, t, t + 1));
    }
  },
  kernels: {
    cpu: defineKernel({
      language: "c",
      source,
      entry: "gather_rows",
      params,
      constants: () => ({ OUT_BF16: 0 }),
      pack({ x, tokens, out }: GatherCall) {
        const bytes = out.size === 0 ? 0 : out.byteLength / out.dim(0);
        const row = x.dim(1) === 0 ? 0 : (bytes / x.dim(1)) * x.stride(0);
        const sizes = { rows: out.dim(0), bytes, x_row: row, out_row: 0, clamp: 0 };
        return { x, tokens, out, ...sizes };
      },
      threads: ({ out }) => threadsFor(out.size / 4),
    }),
  },
  work: ({ out }) => ({ flops: 0, bytes: 2 * out.byteLength }),
};

/** out = weight · silu(min(gate, clamp)) · value, values within ± clamp. */
export const gateRows: Operation<GateCall> = {
  name: "gateRows",
  check: () => {},
  reference({ x, weights, out, clamp }) {
    const n = out.dim(1);
    const values = x.toFloat64();
    const factors = weights.toFloat64();
    const result = Float64Array.from({ length: out.size }, (_, i) => {
      const [r, j] = [Math.floor(i / n), i % n];
      const at = 2 * n * r + j;
      return swiglu(values[at] as number, values[at + n] as number, clamp) * (factors[r] as number);
    });
    out.copyFrom(Tensor.from(result, out.shape, out.dtype));
  },
  kernels: {
    cpu: defineKernel({
      language: "c",
      source,
      entry: "gate_rows",
      params,
      constants: ({ out }: GateCall) => ({ OUT_BF16: out.dtype === "bf16" ? 1 : 0 }),
      pack: ({ x, weights, out, clamp }) => ({
        x,
        tokens: weights,
        out,
        rows: out.dim(0),
        bytes: out.dim(1),
        x_row: 0,
        out_row: 0,
        clamp,
      }),
      threads: ({ out }) => threadsFor(out.size),
    }),
  },
  work: ({ x, out }) => ({ flops: 8 * out.size, bytes: x.byteLength + out.byteLength }),
};

/** out[t] = Σ over k of x[rows[t, k]], in order. */
export const combineRows: Operation<CombineCall> = {
  name: "combineRows",
  check: () => {},
  reference({ x, rows, out }) {
    const [tokens, topk] = rows.shape as [number, number];
    const n = out.dim(1);
    const values = x.toFloat64();
    const places = rows.raw() as Int32Array;
    const sums = new Float64Array(tokens * n);
    for (let i = 0; i < tokens * topk; i++) {
      const row = places[i] as number;
      const to = Math.floor(i / topk) * n;
      for (let j = 0; row >= 0 && j < n; j++) {
        sums[to + j] = (sums[to + j] as number) + (values[row * n + j] as number);
      }
    }
    out.copyFrom(Tensor.from(sums, out.shape, "bf16"));
  },
  kernels: {
    cpu: defineKernel({
      language: "c",
      source,
      entry: "combine_rows",
      params,
      constants: () => ({ OUT_BF16: 0 }),
      pack: ({ x, rows, out }: CombineCall) => ({
        x,
        tokens: rows,
        out,
        rows: out.dim(0),
        bytes: out.dim(1),
        x_row: rows.dim(1),
        out_row: out.stride(0),
        clamp: 0,
      }),
      threads: ({ x }) => threadsFor(x.size),
    }),
  },
  work: ({ x, out }) => ({ flops: x.size, bytes: x.byteLength + out.byteLength }),
};
