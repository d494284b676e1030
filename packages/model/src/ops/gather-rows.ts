// Copies rows by index: tokens to the rows of their experts.

import { defineKernel, type Operation } from "@open-infra/jit";
import {
  byteSize,
  type Dims,
  expectContiguous,
  expectTensor,
  type Tensor,
} from "@open-infra/tensor";
import { kernelUrl, threadsFor } from "./common.ts";

export interface GatherRowsArgs {
  /** i32 [N], each below T. */
  readonly index: Tensor<"i32">;
  /** [T, C] of any dtype of whole bytes. */
  readonly rows: Tensor;
  /** [N, C], same dtype. */
  readonly out: Tensor;
  /** A second table with the same index (scales of FP8 rows). */
  readonly second?: { readonly rows: Tensor; readonly out: Tensor } | undefined;
}

function checkPair(rows: Tensor, out: Tensor, index: Tensor<"i32">): void {
  const dims: Dims = { N: index.dim(0) };
  expectTensor("gather_rows", "rows", rows, [rows.dtype], ["T", "C"], dims);
  expectTensor("gather_rows", "out", out, [rows.dtype], ["N", "C"], dims);
  expectContiguous("gather_rows", "rows", rows);
  expectContiguous("gather_rows", "out", out);
}

/** out[i] = rows[index[i]] */
export const gatherRows: Operation<GatherRowsArgs> = {
  name: "gather_rows",
  check({ index, rows, out, second }) {
    expectTensor("gather_rows", "index", index, ["i32"], ["N"], {});
    checkPair(rows, out, index);
    if (second !== undefined) checkPair(second.rows, second.out, index);
  },
  reference({ index, rows, out, second }) {
    const pairs = second === undefined ? [{ rows, out }] : [{ rows, out }, second];
    for (const pair of pairs) {
      index.raw().forEach((t, i) => {
        pair.out.select(0, i).bytes().set(pair.rows.select(0, t).bytes());
      });
    }
  },
  kernels: {
    cpu: defineKernel({
      language: "c",
      source: kernelUrl("gather_rows.c"),
      entry: "gather_rows",
      params: {
        index: "ptr",
        rows: "ptr",
        out: "ptr",
        second: "ptr",
        second_out: "ptr",
        count: "i64",
        row_bytes: "i64",
        second_bytes: "i64",
      },
      constants: () => ({}),
      pack: ({ index, rows, out, second }: GatherRowsArgs) => ({
        index,
        rows,
        out,
        second: second?.rows ?? null,
        second_out: second?.out ?? null,
        count: index.dim(0),
        row_bytes: byteSize(rows.dtype, rows.dim(1)),
        second_bytes: second === undefined ? 0 : byteSize(second.rows.dtype, second.rows.dim(1)),
      }),
      threads: ({ out }, target) => threadsFor(out.size, target),
    }),
  },
};
