// Attention over a paged latent cache: `flash_mla_with_kvcache` of the original, and a ragged form
// that serves decode, chunked prefill and recompute in one launch. Values are the first headDimV
// channels of the keys.

import type { Device } from "@open-infra/jit";
import { expectTensor, ShapeError, Tensor } from "@open-infra/tensor";
import type { AttentionCall } from "./call.ts";
import {
  checkedSink,
  expectChannels,
  expectGroups,
  expectHeadDimV,
  expectScale,
  floatTypes,
  type LseBase,
  lengthsFromCumulative,
  lseScaleOf,
  mayRound,
  type Probabilities,
  pagedLengths,
} from "./checks.ts";
import { ArgumentError } from "./errors.ts";
import { formatOf, type KvFormat } from "./kv-layout.ts";
import type { SchedMeta } from "./metadata.ts";
import { runAttention } from "./operation.ts";
import { sparseDecode } from "./sparse-decode.ts";

export interface FlashMlaWithKvcacheOptions {
  /** bf16, f16 or f32 `[b, s_q, h_q, d]`; unit stride in the last dimension, others free. */
  readonly q: Tensor;
  /**
   * bf16, f16 or f32 `[numBlocks, page, h_k, d]`, any page size, its dtype free of q's; or FP8, u8
   * or e4m3fn `[numBlocks, page, 1, 656 (d = 576) | 584 (d = 512)]`, see {@link quantizeKCache}.
   */
  readonly kCache: Tensor;
  /**
   * i32 `[b, maxBlocks]`. Entries past a sequence's last block are never read. Dense only.
   */
  readonly blockTable?: Tensor;
  /** i32 `[b]`: tokens in the cache, 0 allowed. Dense only. */
  readonly cacheSeqlens?: Tensor;
  /** The first so many channels of a key are its value. */
  readonly headDimV: number;
  /** From {@link getMlaMetadata}; share it between the layers of a step. */
  readonly schedMeta?: SchedMeta;
  /** @default d ** -0.5 */
  readonly softmaxScale?: number;
  /** Query i of s_q sees keys up to s_k − s_q + i. Dense only. @default false */
  readonly causal?: boolean;
  /** Whether kCache holds FP8 bytes; a contradiction is refused. @default what its dtype says */
  readonly isFp8Kvcache?: boolean;
  /**
   * i32 `[b, s_q, topk]`, makes attention sparse: the keys of each query, as page × page size +
   * offset. −1, and whatever else lies outside the cache, is no key. A key named twice counts
   * twice.
   */
  readonly indices?: Tensor;
  /** i32 `[b]`: how many leading indices count. @default all */
  readonly topkLength?: Tensor;
  /** A second cache, softmaxed jointly with the first; own page size and format. Sparse only. */
  readonly extraKCache?: Tensor;
  /** i32 `[b, s_q, extraTopk]`, as `indices`. */
  readonly extraIndicesInKvcache?: Tensor;
  /** i32 `[b]`. @default all */
  readonly extraTopkLength?: Tensor;
  /**
   * f32 `[h_q]`: out is multiplied by e^lse ÷ (e^lse + e^sink). −inf changes nothing, +inf gives
   * zeros; lse is without it.
   */
  readonly attnSink?: Tensor;
  /** bf16, f16 or f32 `[b, s_q, h_q, headDimV]`. @default a new tensor of q's dtype */
  readonly out?: Tensor;
  /** f32 `[b, h_q, s_q]`. @default a new tensor */
  readonly lse?: Tensor;
  /** f32 `[b, h_q, s_q]` to be filled with each row's largest score; −inf without a key. */
  readonly maxLogits?: Tensor;
  /** @default "e" */
  readonly lseBase?: LseBase;
  /**
   * `bf16` lets the kernels multiply bf16 as it is, probabilities rounded to it as the original's
   * are, where the processor gains by it; `f32` never rounds them. @default "bf16"
   */
  readonly probabilities?: Probabilities;
}

export interface FlashMlaResult {
  /** `[b, s_q, h_q, headDimV]`; 0 where a query sees no key. */
  readonly out: Tensor;
  /** f32 `[b, h_q, s_q]`: natural logarithm of Σ e^score; +inf where a query sees no key. */
  readonly softmaxLse: Tensor;
}

/** Checks what both forms share and returns how the cache stores its keys. */
function checkCache(
  operation: string,
  kCache: Tensor,
  headsQ: number,
  d: number,
  isFp8?: boolean,
): KvFormat {
  const format = formatOf(operation, "kCache", kCache, d, isFp8);
  expectChannels(operation, "kCache", kCache);
  if (kCache.dim(1) < 1) {
    throw new ShapeError(operation, "kCache", `[${kCache.shape}]`, "a page of at least one token");
  }
  expectGroups(operation, headsQ, kCache.dim(2));
  return format;
}

/** What only sparse attention takes must not be given to dense attention. */
function refuseSparse(operation: string, options: FlashMlaWithKvcacheOptions): void {
  const names = ["topkLength", "extraKCache", "extraIndicesInKvcache", "extraTopkLength"] as const;
  for (const name of names) {
    if (options[name] === undefined) continue;
    throw new ArgumentError(operation, name, "given without indices", "sparse attention only");
  }
}

function needed(operation: string, name: string, tensor: Tensor | undefined): Tensor {
  if (tensor !== undefined) return tensor;
  throw new ArgumentError(operation, name, "missing", "a tensor, as there are no indices");
}

/**
 * Decode attention with a paged cache (`flash_mla_with_kvcache`): dense, over the keys of each
 * request, or with `indices` sparse, over the keys that each query lists.
 *
 * @throws ShapeError, DTypeError, ArgumentError, BlockTableError or StaleMetadataError before any
 * launch.
 */
export function flashMlaWithKvcache(
  device: Device,
  options: FlashMlaWithKvcacheOptions,
): FlashMlaResult {
  const operation = "flashMlaWithKvcache";
  const { q, headDimV } = options;
  expectTensor(operation, "q", q, floatTypes, ["b", "s_q", "h_q", "d"], {});
  expectChannels(operation, "q", q);
  const [b, sq, headsQ, d] = q.shape as [number, number, number, number];
  expectHeadDimV(operation, headDimV, d);
  expectScale(operation, options.softmaxScale ?? d ** -0.5);
  const out = options.out ?? Tensor.empty([b, sq, headsQ, headDimV], q.dtype, "out");
  const lse = options.lse ?? Tensor.empty([b, headsQ, sq], "f32", "softmaxLse");
  const maxLogits = options.maxLogits ?? null;
  const dims = { b, s_q: sq, h_q: headsQ, headDimV };
  expectTensor(operation, "out", out, floatTypes, ["b", "s_q", "h_q", "headDimV"], dims);
  expectChannels(operation, "out", out);
  expectTensor(operation, "lse", lse, ["f32"], ["b", "h_q", "s_q"], dims);
  if (maxLogits !== null) {
    expectTensor(operation, "maxLogits", maxLogits, ["f32"], ["b", "h_q", "s_q"], dims);
  }
  const results = { out, lse, maxLogits };
  if (options.indices !== undefined) sparseDecode(device, options.indices, options, results);
  else denseDecode(device, options, results);
  return { out, softmaxLse: lse };
}

function denseDecode(
  device: Device,
  options: FlashMlaWithKvcacheOptions,
  results: { readonly out: Tensor; readonly lse: Tensor; readonly maxLogits: Tensor | null },
): void {
  const operation = "flashMlaWithKvcache";
  const { q, kCache } = options;
  const [b, sq, headsQ, d] = q.shape as [number, number, number, number];
  refuseSparse(operation, options);
  const blockTable = needed(operation, "blockTable", options.blockTable);
  const contextLens = needed(operation, "cacheSeqlens", options.cacheSeqlens);
  const kFormat = checkCache(operation, kCache, headsQ, d, options.isFp8Kvcache);
  const page = kCache.dim(1);
  const keyLengths = pagedLengths(operation, "cacheSeqlens", contextLens, b, blockTable, page);
  run(device, options.schedMeta, {
    operation,
    layout: "batched",
    requests: b,
    headsQ,
    headsK: kCache.dim(2),
    headDimQk: d,
    headDimV: options.headDimV,
    softmaxScale: options.softmaxScale ?? d ** -0.5,
    causal: options.causal ?? false,
    queryLengths: new Int32Array(b).fill(sq),
    keyLengths,
    q,
    ...results,
    lseScale: lseScaleOf(operation, options.lseBase),
    sink: checkedSink(operation, options.attnSink, headsQ),
    roundProbabilities: mayRound(operation, options.probabilities),
    cuSeqlensQ: null,
    k: kCache,
    kFormat,
    blockTable,
    contextLens,
    plan: null,
  });
}

export interface FlashMlaVarlenOptions {
  /** bf16, f16 or f32 `[T, h_q, d]`; unit stride in the last dimension, others free. */
  readonly q: Tensor;
  /** As of {@link flashMlaWithKvcache}, FP8 layouts included. */
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
  /**
   * `bf16` lets the kernels multiply bf16 as it is, probabilities rounded to it as the original's
   * are, where the processor gains by it; `f32` never rounds them. @default "bf16"
   */
  readonly probabilities?: Probabilities;
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
  const kFormat = checkCache(operation, kCache, headsQ, d);
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
    roundProbabilities: mayRound(operation, options.probabilities),
    cuSeqlensQ,
    k: kCache,
    kFormat,
    blockTable,
    contextLens,
    plan: null,
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
    sparse: 0,
    b: requests,
    h_q: headsQ,
    h_k: headsK,
    d: headDimQk,
    headDimV,
    pageBlockSize: call.k.dim(1),
    isFp8Kvcache: call.kFormat === "v32" || call.kFormat === "model1" ? 1 : 0,
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
  const plan = schedMeta.planFor(call.operation, config, problem);
  runAttention(device, { ...call, plan });
}
