// Sparse decode: checks and lowers the sparse form of `flash_mla_with_kvcache`, in which each query
// lists its keys. Shapes of q and of the results have been checked by the caller, decode.ts.

import type { Device } from "@open-infra/jit";
import { expectTensor, ShapeError, Tensor } from "@open-infra/tensor";
import { checkedSink, expectChannels, lseScaleOf, mayRound } from "./checks.ts";
import type { FlashMlaWithKvcacheOptions } from "./decode.ts";
import { ArgumentError } from "./errors.ts";
import { formatOf } from "./kv-layout.ts";
import type { SchedMeta } from "./metadata.ts";
import { listLengths, type SparseCall, type SparseScope, sparseProblem } from "./sparse-call.ts";
import { checkLengths, runSparse } from "./sparse-operation.ts";

const operation = "flashMlaWithKvcache";

/** Results in the layout of decode. */
export interface DecodeResults {
  readonly out: Tensor;
  /** `[b, h_q, s_q]`. */
  readonly lse: Tensor;
  readonly maxLogits: Tensor | null;
}

/** Argument names of a scope, for messages. */
interface ScopeNames {
  readonly cache: string;
  readonly indices: string;
  readonly lengths: string;
}

const mainNames: ScopeNames = { cache: "kCache", indices: "indices", lengths: "topkLength" };
const extraNames: ScopeNames = {
  cache: "extraKCache",
  indices: "extraIndicesInKvcache",
  lengths: "extraTopkLength",
};

/** The same length for every token of a request: `[b]` seen as `[b, s]`. */
function perToken(lengths: Tensor, tokens: number): Tensor {
  return new Tensor({
    dtype: lengths.dtype,
    shape: [lengths.dim(0), tokens],
    strides: [lengths.stride(0), 0],
    offset: lengths.offset,
    storage: lengths.storage,
    name: lengths.name,
  });
}

function checkedScope(
  names: ScopeNames,
  q: Tensor,
  cache: Tensor,
  indices: Tensor,
  lengths: Tensor | undefined,
  isFp8: boolean | undefined,
): SparseScope {
  const [b, sq, , d] = q.shape as [number, number, number, number];
  const format = formatOf(operation, names.cache, cache, d, isFp8);
  expectChannels(operation, names.cache, cache);
  if (cache.dim(1) < 1 || cache.dim(2) !== 1) {
    const allowed = "pages of at least one token, and one key head for sparse attention";
    throw new ShapeError(operation, names.cache, `[${cache.shape}]`, allowed);
  }
  const pattern = ["b", "s_q", "topk"];
  expectTensor(operation, names.indices, indices, ["i32"], pattern, { b, s_q: sq });
  if (indices.dim(2) > 0) expectChannels(operation, names.indices, indices);
  if (lengths !== undefined) {
    expectTensor(operation, names.lengths, lengths, ["i32"], ["b"], { b });
  }
  return {
    cache,
    format,
    keys: Math.min(cache.dim(0) * cache.dim(1), 2 ** 31),
    perRequest: false,
    indices,
    lengths: lengths === undefined ? null : perToken(lengths, sq),
  };
}

function checkedScopes(indices: Tensor, options: FlashMlaWithKvcacheOptions): SparseScope[] {
  const { q, kCache, extraKCache, extraIndicesInKvcache } = options;
  if (options.causal === true) {
    throw new ArgumentError(operation, "causal", "true", "false with indices: they say it all");
  }
  const main = checkedScope(
    mainNames,
    q,
    kCache,
    indices,
    options.topkLength,
    options.isFp8Kvcache,
  );
  if (extraKCache === undefined && extraIndicesInKvcache === undefined) {
    if (options.extraTopkLength === undefined) return [main];
    throw new ArgumentError(operation, "extraTopkLength", "given alone", "an extraKCache as well");
  }
  if (extraKCache === undefined || extraIndicesInKvcache === undefined) {
    const [missing, given] =
      extraKCache === undefined
        ? [extraNames.cache, extraNames.indices]
        : [extraNames.indices, extraNames.cache];
    throw new ArgumentError(operation, missing, "missing", `a tensor, as ${given} is given`);
  }
  const lengths = options.extraTopkLength;
  return [
    main,
    checkedScope(extraNames, q, extraKCache, extraIndicesInKvcache, lengths, undefined),
  ];
}

/**
 * Checks, plans and runs sparse decode.
 *
 * @throws ShapeError, DTypeError, ArgumentError or StaleMetadataError before any launch.
 */
export function sparseDecode(
  device: Device,
  indices: Tensor,
  options: FlashMlaWithKvcacheOptions,
  results: DecodeResults,
): void {
  const { q, headDimV } = options;
  const [requests, tokens, headsQ, headDimQk] = q.shape as [number, number, number, number];
  const scopes = checkedScopes(indices, options);
  const call: SparseCall = {
    operation,
    requests,
    tokens,
    headsQ,
    headDimQk,
    headDimV,
    softmaxScale: options.softmaxScale ?? headDimQk ** -0.5,
    scopes,
    q,
    out: results.out,
    lse: results.lse.transpose(1, 2),
    maxLogits: results.maxLogits?.transpose(1, 2) ?? null,
    lseScale: lseScaleOf(operation, options.lseBase),
    roundProbabilities: mayRound(operation, options.probabilities),
    sink: checkedSink(operation, options.attnSink, headsQ),
    plan: null,
  };
  checkLengths(call);
  const { schedMeta } = options;
  runSparse(device, schedMeta === undefined ? call : planned(device, schedMeta, call));
}

/** The call with the plan of its metadata, which must be of the same shapes and lengths. */
function planned(device: Device, schedMeta: SchedMeta, call: SparseCall): SparseCall {
  const [main, extra] = call.scopes as [SparseScope, SparseScope | undefined];
  const config = {
    sparse: 1,
    b: call.requests,
    s_q: call.tokens,
    h_q: call.headsQ,
    h_k: 1,
    d: call.headDimQk,
    headDimV: call.headDimV,
    pageBlockSize: main.cache.dim(1),
    isFp8Kvcache: main.format === "v32" || main.format === "model1" ? 1 : 0,
    topk: main.indices.dim(2),
    extraPageBlockSize: extra?.cache.dim(1) ?? 0,
    extraTopk: extra?.indices.dim(2) ?? 0,
    threads: device.threads,
  };
  const values = {
    topkLength: listLengths(call, main),
    extraTopkLength: extra === undefined ? new Int32Array(0) : listLengths(call, extra),
  };
  const problem = { ...sparseProblem(call), threads: device.threads };
  return { ...call, plan: schedMeta.planFor(operation, config, problem, values) };
}
