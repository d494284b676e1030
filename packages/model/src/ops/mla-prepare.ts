// Between MLA's projections and its attention: rotary embedding, the latent's norm, the cache
// write.

import { defineKernel, type Operation } from "@open-infra/jit";
import {
  type Dims,
  expectContiguous,
  expectRows,
  expectTensor,
  type Tensor,
} from "@open-infra/tensor";
import { type ActDType, actDTypes, kernelUrl, threadsFor, write } from "./common.ts";

export interface MlaPrepareArgs {
  /** f32 [T, h·(dn + dr)], rows may be strided: per head the plain part, then the rotated one. */
  readonly q: Tensor<"f32">;
  /** f32 [T, r + dr], rows may be strided: the latent, then the shared rotated key. */
  readonly kv: Tensor<"f32">;
  /** f32 [r]: kv_a_layernorm. */
  readonly kvNorm: Tensor<"f32">;
  readonly eps: number;
  /** f32 [P, dr / 2] */
  readonly cos: Tensor<"f32">;
  readonly sin: Tensor<"f32">;
  /** i32 [T], below P: a token's place in its own sequence. */
  readonly positions: Tensor<"i32">;
  /** i32 [T]: a token's row of the cache (block · blockTokens + offset). */
  readonly slots: Tensor<"i32">;
  /** [blocks, blockTokens, 1, r + dr], contiguous. */
  readonly cache: Tensor<ActDType>;
  /** [T, h, dn] */
  readonly qNope: Tensor<ActDType>;
  /** [T, h, r + dr]; only the last dr of each head are written. */
  readonly qLatent: Tensor<ActDType>;
  /** Pairs are neighbours, as DeepSeek trains them; else halves. */
  readonly interleaved: boolean;
}

const name = "mla_prepare";

function check(args: MlaPrepareArgs): void {
  const { q, kv, kvNorm, cos, sin, positions, slots, cache, qNope, qLatent } = args;
  const dims: Dims = {};
  expectTensor(name, "qNope", qNope, actDTypes, ["T", "heads", "nope"], dims);
  expectTensor(name, "qLatent", qLatent, [qNope.dtype], ["T", "heads", "latent"], dims);
  expectTensor(name, "cache", cache, [qNope.dtype], ["blocks", "page", 1, "latent"], dims);
  expectTensor(name, "kvNorm", kvNorm, ["f32"], ["rank"], dims);
  const rope = (dims.latent as number) - (dims.rank as number);
  expectTensor(
    name,
    "q",
    q,
    ["f32"],
    ["T", (dims.heads as number) * ((dims.nope as number) + rope)],
    dims,
  );
  expectTensor(name, "kv", kv, ["f32"], ["T", "latent"], dims);
  expectTensor(name, "cos", cos, ["f32"], ["P", rope / 2], dims);
  expectTensor(name, "sin", sin, ["f32"], ["P", rope / 2], dims);
  expectTensor(name, "positions", positions, ["i32"], ["T"], dims);
  expectTensor(name, "slots", slots, ["i32"], ["T"], dims);
  expectRows(name, "q", q);
  expectRows(name, "kv", kv);
  expectContiguous(name, "cache", cache);
  expectContiguous(name, "qNope", qNope);
  expectContiguous(name, "qLatent", qLatent);
}

function rotated(
  x: Float64Array,
  args: MlaPrepareArgs,
  cos: Float32Array,
  sin: Float32Array,
): Float64Array {
  const half = x.length / 2;
  const out = new Float64Array(x.length);
  for (let i = 0; i < half; i++) {
    const [a, b] = args.interleaved ? [2 * i, 2 * i + 1] : [i, i + half];
    out[a] = x[a]! * cos[i]! - x[b]! * sin[i]!;
    out[b] = x[b]! * cos[i]! + x[a]! * sin[i]!;
  }
  return out;
}

function reference(args: MlaPrepareArgs): void {
  const { q, kv, kvNorm, eps, positions, slots, cache, qNope, qLatent } = args;
  const rank = kvNorm.dim(0);
  const [heads, nope, latent] = [qNope.dim(1), qNope.dim(2), qLatent.dim(2)];
  const norm = kvNorm.toFloat64();
  const rows = cache.reshape([cache.dim(0) * cache.dim(1), latent]);
  for (let t = 0; t < qNope.dim(0); t++) {
    const cos = args.cos.select(0, positions.raw()[t]!).toFloat32();
    const sin = args.sin.select(0, positions.raw()[t]!).toFloat32();
    const slot = rows.select(0, slots.raw()[t]!);
    const key = kv.select(0, t).toFloat64();
    const plain = key.subarray(0, rank);
    const rms = Math.sqrt(plain.reduce((sum, v) => sum + v * v, 0) / rank + eps);
    write(
      slot.slice(0, 0, rank),
      plain.map((v, i) => (v / rms) * norm[i]!),
    );
    write(slot.slice(0, rank, latent), rotated(key.subarray(rank), args, cos, sin));
    const query = q.select(0, t).toFloat64();
    const width = nope + latent - rank;
    for (let head = 0; head < heads; head++) {
      const own = query.subarray(head * width, (head + 1) * width);
      write(qNope.select(0, t).select(0, head), own.subarray(0, nope));
      const target = qLatent.select(0, t).select(0, head).slice(0, rank, latent);
      write(target, rotated(own.subarray(nope), args, cos, sin));
    }
  }
}

/**
 * Splits and rotates the queries, and writes the normalised latent and rotated key to the cache.
 */
export const mlaPrepare: Operation<MlaPrepareArgs> = {
  name,
  check,
  reference,
  kernels: {
    cpu: defineKernel({
      language: "c",
      source: kernelUrl("mla_prepare.c"),
      entry: "mla_prepare",
      params: {
        q: "ptr",
        kv: "ptr",
        kv_norm: "ptr",
        cos: "ptr",
        sin: "ptr",
        position: "ptr",
        slots: "ptr",
        cache: "ptr",
        q_nope: "ptr",
        q_latent: "ptr",
        tokens: "i64",
        heads: "i64",
        nope_dim: "i64",
        rope_dim: "i64",
        rank: "i64",
        q_stride: "i64",
        kv_stride: "i64",
        eps: "f64",
      },
      constants: ({ qNope, interleaved }: MlaPrepareArgs) => ({
        OUT_BF16: qNope.dtype === "bf16" ? 1 : 0,
        INTERLEAVED: interleaved ? 1 : 0,
      }),
      pack: (args) => ({
        q: args.q,
        kv: args.kv,
        kv_norm: args.kvNorm,
        cos: args.cos,
        sin: args.sin,
        position: args.positions,
        slots: args.slots,
        cache: args.cache,
        q_nope: args.qNope,
        q_latent: args.qLatent,
        tokens: args.qNope.dim(0),
        heads: args.qNope.dim(1),
        nope_dim: args.qNope.dim(2),
        rope_dim: args.qLatent.dim(2) - args.kvNorm.dim(0),
        rank: args.kvNorm.dim(0),
        q_stride: args.q.stride(0),
        kv_stride: args.kv.stride(0),
        eps: args.eps,
      }),
      threads: ({ q }, target) => Math.min(q.dim(0), threadsFor(q.size, target)),
    }),
  },
};
