// Sparse prefill: `flash_mla_sparse_fwd` of the original, with a batch dimension as an option.
// Every query lists its keys in an unpaged bf16, f16 or f32 tensor.

import type { Device } from "@open-infra/jit";
import { expectTensor, ShapeError, Tensor } from "@open-infra/tensor";
import { SPLIT_KEYS } from "./call.ts";
import {
  checkedSink,
  expectChannels,
  expectHeadDimV,
  expectScale,
  floatTypes,
  type LseBase,
  lseScaleOf,
  mayRound,
  type Probabilities,
} from "./checks.ts";
import { ArgumentError } from "./errors.ts";
import type { KvFormat } from "./kv-layout.ts";
import { checkLengths, runSparse } from "./sparse-operation.ts";

const operation = "flashMlaSparseFwd";

/** All tensors may have a batch dimension in front, or none of them. */
export interface FlashMlaSparseFwdOptions {
  /** bf16, f16 or f32 `[s_q, h_q, d]`; unit stride in the last dimension, others free. */
  readonly q: Tensor;
  /** bf16, f16 or f32 `[s_kv, 1, d]`. */
  readonly kv: Tensor;
  /**
   * i32 `[s_q, 1, topk]`: each query's keys. What is negative or s_kv and more is no key. A key
   * named twice counts twice.
   */
  readonly indices: Tensor;
  readonly smScale: number;
  /** The first so many channels of a key are its value. @default 512 */
  readonly dV?: number;
  /** f32 `[h_q]`; see {@link FlashMlaWithKvcacheOptions.attnSink}. */
  readonly attnSink?: Tensor;
  /** i32 `[s_q]`: how many leading indices count. @default all */
  readonly topkLength?: Tensor;
  /** bf16, f16 or f32 `[s_q, h_q, dV]`. @default a new tensor of q's dtype */
  readonly out?: Tensor;
  /** f32 `[s_q, h_q]`. @default a new tensor */
  readonly maxLogits?: Tensor;
  /** f32 `[s_q, h_q]`. @default a new tensor */
  readonly lse?: Tensor;
  /**
   * A positive multiple of 256: also wanted is the logarithm over the first so many places of each
   * list, which the indexer's loss needs in training. 0 for none. @default 0
   */
  readonly indexerTopk?: number;
  /** f32 `[s_q, h_q]`; only with `indexerTopk`. @default a new tensor */
  readonly lseIndexer?: Tensor;
  /** @default "e" */
  readonly lseBase?: LseBase;
  /**
   * `bf16` lets the kernels multiply bf16 as it is, probabilities rounded to it as the original's
   * are, where the processor gains by it; `f32` never rounds them. @default "bf16"
   */
  readonly probabilities?: Probabilities;
}

export interface FlashMlaSparseFwdResult {
  /** `[s_q, h_q, dV]`; 0 for a query without keys. */
  readonly out: Tensor;
  /** f32 `[s_q, h_q]`: largest score; −inf for a query without keys. */
  readonly maxLogits: Tensor;
  /** f32 `[s_q, h_q]`: logarithm of Σ e^score, without the sink; +inf for a query without keys. */
  readonly lse: Tensor;
  /**
   * f32 `[s_q, h_q]`, with `indexerTopk`: as `lse`, over those of the first `indexerTopk` places of
   * each list that count and name a key.
   */
  readonly lseIndexer?: Tensor;
}

/** The tensor with a batch dimension of one in front. */
function batched(tensor: Tensor): Tensor {
  const { dtype, shape, strides, offset, storage, name } = tensor;
  return new Tensor({
    dtype,
    shape: [1, ...shape],
    strides: [(shape[0] ?? 1) * (strides[0] ?? 1), ...strides],
    offset,
    storage,
    name,
  });
}

/** The dimensions of a call as they are checked, and those in front of every tensor. */
interface Dims {
  readonly batch: readonly string[];
  readonly sizes: Record<string, number>;
}

/** Results of each head that are f32 `[s_q, h_q]`: the one given, or a new one. */
function perHead({ batch, sizes }: Dims, name: string, given: Tensor | undefined): Tensor {
  const { b = 1, s_q, h_q } = sizes as Record<"s_q" | "h_q", number> & { b?: number };
  const front = batch.length === 0 ? [] : [b];
  const tensor = given ?? Tensor.empty([...front, s_q, h_q], "f32", name);
  expectTensor(operation, name, tensor, ["f32"], [...batch, "s_q", "h_q"], sizes);
  return tensor;
}

/**
 * What an indexer wants beside the rest, if it does.
 *
 * @throws ArgumentError for places that are no multiple of a split, or a result without places.
 */
function indexerPart(
  dims: Dims,
  options: FlashMlaSparseFwdOptions,
): { readonly places: number; readonly lse: Tensor } | undefined {
  const { indexerTopk: places = 0, lseIndexer } = options;
  if (!Number.isSafeInteger(places) || places < 0 || places % SPLIT_KEYS !== 0) {
    const allowed = `0 or a positive multiple of ${SPLIT_KEYS}`;
    throw new ArgumentError(operation, "indexerTopk", `${places}`, allowed);
  }
  if (places > 0) return { places, lse: perHead(dims, "lseIndexer", lseIndexer) };
  if (lseIndexer === undefined) return undefined;
  throw new ArgumentError(operation, "lseIndexer", "given alone", "a positive indexerTopk as well");
}

/**
 * Attention of each query over the keys it lists (`flash_mla_sparse_fwd`).
 *
 * @throws ShapeError, DTypeError or ArgumentError before any launch.
 */
export function flashMlaSparseFwd(
  device: Device,
  options: FlashMlaSparseFwdOptions,
): FlashMlaSparseFwdResult {
  const { q, kv, indices, topkLength } = options;
  const batch = q.rank === 4 ? ["b"] : [];
  const dims: Record<string, number> = {};
  expectTensor(operation, "q", q, floatTypes, [...batch, "s_q", "h_q", "d_qk"], dims);
  expectTensor(operation, "kv", kv, floatTypes, [...batch, "s_kv", 1, "d_qk"], dims);
  expectTensor(operation, "indices", indices, ["i32"], [...batch, "s_q", 1, "topk"], dims);
  const {
    s_q,
    h_q,
    d_qk,
    s_kv,
    b = 1,
  } = dims as Record<"s_q" | "h_q" | "d_qk" | "s_kv", number> & { b?: number };
  expectChannels(operation, "q", q);
  expectChannels(operation, "kv", kv);
  if (indices.dim(-1) > 0) expectChannels(operation, "indices", indices);
  const dV = options.dV ?? 512;
  expectHeadDimV(operation, dV, d_qk, "dV");
  expectScale(operation, options.smScale, "smScale");
  if (h_q < 1) throw new ShapeError(operation, "q", `[${q.shape}]`, "at least one head");
  if (topkLength !== undefined) {
    expectTensor(operation, "topkLength", topkLength, ["i32"], [...batch, "s_q"], dims);
  }
  const front = batch.length === 0 ? [] : [b];
  const out = options.out ?? Tensor.empty([...front, s_q, h_q, dV], q.dtype, "out");
  expectTensor(operation, "out", out, floatTypes, [...batch, "s_q", "h_q", "dV"], { ...dims, dV });
  expectChannels(operation, "out", out);
  const lse = perHead({ batch, sizes: dims }, "lse", options.lse);
  const maxLogits = perHead({ batch, sizes: dims }, "maxLogits", options.maxLogits);
  const indexer = indexerPart({ batch, sizes: dims }, options);
  const full = (tensor: Tensor): Tensor => (batch.length === 0 ? batched(tensor) : tensor);
  const call = {
    operation,
    requests: b,
    tokens: s_q,
    headsQ: h_q,
    headDimQk: d_qk,
    headDimV: dV,
    softmaxScale: options.smScale,
    scopes: [
      {
        cache: full(kv),
        format: kv.dtype as KvFormat,
        keys: Math.min(s_kv, 2 ** 31),
        perRequest: true,
        indices: full(indices).select(2, 0),
        lengths: topkLength === undefined ? null : full(topkLength),
      },
    ],
    q: full(q),
    out: full(out),
    lse: full(lse),
    maxLogits: full(maxLogits),
    ...(indexer !== undefined && { prefix: { ...indexer, lse: full(indexer.lse) } }),
    lseScale: lseScaleOf(operation, options.lseBase),
    roundProbabilities: mayRound(operation, options.probabilities),
    sink: checkedSink(operation, options.attnSink, h_q),
    plan: null,
  };
  checkLengths(call);
  runSparse(device, call);
  return { out, maxLogits, lse, ...(indexer !== undefined && { lseIndexer: indexer.lse }) };
}
