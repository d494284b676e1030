// Attention over a paged latent cache: `flash_mla_with_kvcache` of the original, and a ragged form
// that serves decode, chunked prefill and recompute in one launch. Values are the first headDimV
// channels of the keys.

import type { Device } from "@open-infra/jit";
import { expectTensor, ShapeError, Tensor } from "@open-infra/tensor";
import type { AttentionCall } from "./call.ts";
import {
  expectChannels,
  expectGroups,
  expectHeadDimV,
  expectScale,
  floatTypes,
  lengthsFromCumulative,
  pagedLengths,
} from "./checks.ts";
import type { SchedMeta } from "./metadata.ts";
import { runAttention } from "./operation.ts";

export interface FlashMlaWithKvcacheOptions {
  /** bf16, f16 or f32 `[b, s_q, h_q, d]`; unit stride in the last dimension, others free. */
  readonly q: Tensor;
  /** bf16, f16 or f32 `[numBlocks, page, h_k, d]`, any page size; may differ from q's dtype. */
  readonly kCache: Tensor;
  /** i32 `[b, maxBlocks]`. Entries past a sequence's last block are never read. */
  readonly blockTable: Tensor;
  /** i32 `[b]`: tokens in the cache, 0 allowed. */
  readonly cacheSeqlens: Tensor;
  /** The first so many channels of a key are its value. */
  readonly headDimV: number;
  /** From {@link getMlaMetadata}; share it between the layers of a step. */
  readonly schedMeta?: SchedMeta;
  /** @default d ** -0.5 */
  readonly softmaxScale?: number;
  /** Query i of s_q sees keys up to s_k − s_q + i. @default false */
  readonly causal?: boolean;
  /** bf16, f16 or f32 `[b, s_q, h_q, headDimV]`. @default a new tensor of q's dtype */
  readonly out?: Tensor;
  /** f32 `[b, h_q, s_q]`. @default a new tensor */
  readonly lse?: Tensor;
}

export interface FlashMlaResult {
  /** `[b, s_q, h_q, headDimV]`; 0 where a query sees no key. */
  readonly out: Tensor;
  /** f32 `[b, h_q, s_q]`: natural logarithm of Σ e^score; +inf where a query sees no key. */
  readonly softmaxLse: Tensor;
}

/** Checks what both forms share and returns the cache's dimensions. */
function checkCache(operation: string, kCache: Tensor, headsQ: number, d: number): void {
  expectTensor(operation, "kCache", kCache, floatTypes, ["numBlocks", "page", "h_k", "d"], { d });
  expectChannels(operation, "kCache", kCache);
  if (kCache.dim(1) < 1) {
    throw new ShapeError(operation, "kCache", `[${kCache.shape}]`, "a page of at least one token");
  }
  expectGroups(operation, headsQ, kCache.dim(2));
}

/**
 * Decode attention with a paged cache (`flash_mla_with_kvcache`, dense).
 *
 * @throws ShapeError, DTypeError, ArgumentError, BlockTableError or StaleMetadataError before any
 * launch.
 */
export function flashMlaWithKvcache(
  device: Device,
  options: FlashMlaWithKvcacheOptions,
): FlashMlaResult {
  const operation = "flashMlaWithKvcache";
  const { q, kCache, blockTable, cacheSeqlens, headDimV } = options;
  expectTensor(operation, "q", q, floatTypes, ["b", "s_q", "h_q", "d"], {});
  expectChannels(operation, "q", q);
  const [b, sq, headsQ, d] = q.shape as [number, number, number, number];
  checkCache(operation, kCache, headsQ, d);
  expectHeadDimV(operation, headDimV, d);
  const softmaxScale = options.softmaxScale ?? d ** -0.5;
  expectScale(operation, softmaxScale);
  const page = kCache.dim(1);
  const keyLengths = pagedLengths(operation, "cacheSeqlens", cacheSeqlens, b, blockTable, page);
  const out = options.out ?? Tensor.empty([b, sq, headsQ, headDimV], q.dtype, "out");
  const lse = options.lse ?? Tensor.empty([b, headsQ, sq], "f32", "softmaxLse");
  const dims = { b, s_q: sq, h_q: headsQ, headDimV };
  expectTensor(operation, "out", out, floatTypes, ["b", "s_q", "h_q", "headDimV"], dims);
  expectChannels(operation, "out", out);
  expectTensor(operation, "lse", lse, ["f32"], ["b", "h_q", "s_q"], dims);
  run(device, options.schedMeta, {
    operation,
    layout: "batched",
    requests: b,
    headsQ,
    headsK: kCache.dim(2),
    headDimQk: d,
    headDimV,
    softmaxScale,
    causal: options.causal ?? false,
    queryLengths: new Int32Array(b).fill(sq),
    keyLengths,
    q,
    out,
    lse,
    cuSeqlensQ: null,
    k: kCache,
    v: null,
    blockTable,
    cuSeqlensK: null,
    contextLens: cacheSeqlens,
    plan: null,
    partials: null,
  });
  return { out, softmaxLse: lse };
}

export interface FlashMlaVarlenOptions {
  /** bf16, f16 or f32 `[T, h_q, d]`; unit stride in the last dimension, others free. */
  readonly q: Tensor;
  /** bf16, f16 or f32 `[numBlocks, page, h_k, d]`. */
  readonly kCache: Tensor;
  /** i32 `[B, maxBlocks]`. */
  readonly blockTable: Tensor;
  /** i32 `[B + 1]`: prefix sums of the query tokens per request, from 0 to T. */
  readonly cuSeqlensQ: Tensor;
  /** i32 `[B]`: tokens in the cache of each request, the queries' own among them. */
  readonly contextLens: Tensor;
  readonly headDimV: number;
  /** @default d ** -0.5 */
  readonly softmaxScale?: number;
  /** bf16, f16 or f32 `[T, h_q, headDimV]`; unit stride in the last dimension. */
  readonly out: Tensor;
  /** f32 `[T, h_q]`; not computed if left out. */
  readonly lse?: Tensor;
  /** From {@link getMlaMetadata}; share it between the layers of a step. */
  readonly schedMeta?: SchedMeta;
}

/**
 * Causal attention of ragged queries over a paged cache: query i of n in a request sees the keys up
 * to context − n + i. One launch serves decode (n = 1), chunks of a prompt, and recompute; a
 * token's result does not depend on which of these it came in.
 *
 * @throws ShapeError, DTypeError, ArgumentError, BlockTableError or StaleMetadataError before any
 * launch.
 */
export function flashMlaVarlen(device: Device, options: FlashMlaVarlenOptions): void {
  const operation = "flashMlaVarlen";
  const { q, kCache, blockTable, cuSeqlensQ, contextLens, headDimV, out } = options;
  const lse = options.lse ?? null;
  expectTensor(operation, "q", q, floatTypes, ["T", "h_q", "d"], {});
  expectChannels(operation, "q", q);
  const [total, headsQ, d] = q.shape as [number, number, number];
  checkCache(operation, kCache, headsQ, d);
  expectHeadDimV(operation, headDimV, d);
  const softmaxScale = options.softmaxScale ?? d ** -0.5;
  expectScale(operation, softmaxScale);
  const queryLengths = lengthsFromCumulative(operation, "cuSeqlensQ", cuSeqlensQ, total);
  const requests = queryLengths.length;
  const page = kCache.dim(1);
  const keyLengths = pagedLengths(
    operation,
    "contextLens",
    contextLens,
    requests,
    blockTable,
    page,
  );
  const dims = { T: total, h_q: headsQ, headDimV };
  expectTensor(operation, "out", out, floatTypes, ["T", "h_q", "headDimV"], dims);
  expectChannels(operation, "out", out);
  if (lse !== null) expectTensor(operation, "lse", lse, ["f32"], ["T", "h_q"], dims);
  run(device, options.schedMeta, {
    operation,
    layout: "ragged",
    requests,
    headsQ,
    headsK: kCache.dim(2),
    headDimQk: d,
    headDimV,
    softmaxScale,
    causal: true,
    queryLengths,
    keyLengths,
    q,
    out,
    lse,
    cuSeqlensQ,
    k: kCache,
    v: null,
    blockTable,
    cuSeqlensK: null,
    contextLens,
    plan: null,
    partials: null,
  });
}

function run(device: Device, schedMeta: SchedMeta | undefined, call: AttentionCall): void {
  if (schedMeta === undefined) {
    runAttention(device, call);
    return;
  }
  const { requests, headsQ, headsK, headDimV, headDimQk, queryLengths, keyLengths, causal } = call;
  const config = {
    layout: call.layout,
    b: requests,
    h_q: headsQ,
    h_k: headsK,
    d: headDimQk,
    headDimV,
    pageBlockSize: call.k.dim(1),
    causal: causal ? 1 : 0,
    threads: device.threads,
  };
  const problem = {
    queryLengths,
    keyLengths,
    headsQ,
    headsK,
    headDimV,
    causal,
    threads: device.threads,
  };
  runAttention(device, { ...call, plan: schedMeta.planFor(call.operation, config, problem) });
}
