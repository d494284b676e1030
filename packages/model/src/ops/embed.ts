// The embedding lookup.

import { defineKernel, type Operation } from "@open-infra/jit";
import { type Dims, expectContiguous, expectTensor, type Tensor } from "@open-infra/tensor";
import { kernelUrl, threadsFor, write } from "./common.ts";

export interface EmbedArgs {
  /** i32 [T], each below V (the caller checks). */
  readonly ids: Tensor<"i32">;
  /** f32, bf16 or f16 [V, H] */
  readonly table: Tensor;
  /** f32 [T, H] */
  readonly out: Tensor<"f32">;
}

const tableKinds: Readonly<Record<string, number>> = { f32: 0, bf16: 1, f16: 2 };

/** out[t] = table[ids[t]], widened to f32. */
export const embed: Operation<EmbedArgs> = {
  name: "embed",
  check({ ids, table, out }) {
    const dims: Dims = {};
    expectTensor("embed", "ids", ids, ["i32"], ["T"], dims);
    expectTensor("embed", "table", table, ["f32", "bf16", "f16"], ["V", "H"], dims);
    expectTensor("embed", "out", out, ["f32"], ["T", "H"], dims);
    for (const [name, tensor] of Object.entries({ ids, table, out })) {
      expectContiguous("embed", name, tensor);
    }
  },
  reference({ ids, table, out }) {
    ids.raw().forEach((id, t) => {
      write(out.select(0, t), table.select(0, id).toFloat32());
    });
  },
  kernels: {
    cpu: defineKernel({
      language: "c",
      source: kernelUrl("embed.c"),
      entry: "embed",
      params: { ids: "ptr", table: "ptr", out: "ptr", tokens: "i64", hidden: "i64" },
      constants: ({ table }: EmbedArgs) => ({ TABLE: tableKinds[table.dtype] as number }),
      pack: ({ ids, table, out }) => ({
        ids,
        table,
        out,
        tokens: out.dim(0),
        hidden: out.dim(1),
      }),
      threads: ({ out }, target) => threadsFor(out.size, target),
    }),
  },
};
