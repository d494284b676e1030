// The operation behind sparse decode and sparse prefill: the float64 reference and one C kernel,
// specialised on head dimensions and on how the one or two caches store their keys.

import {
  type AnyKernel,
  type Device,
  defineKernel,
  type Operation,
  type Target,
} from "@open-infra/jit";
import type { Tensor } from "@open-infra/tensor";
import { SPLIT_KEYS } from "./call.ts";
import { ArgumentError } from "./errors.ts";
import { byteTypes, commonType, formatCode, type KvFormat } from "./kv-layout.ts";
import type { Plan } from "./plan.ts";
import { type SparseCall, type SparseScope, sparseProblem, sparseWork } from "./sparse-call.ts";
import { sparseReference } from "./sparse-reference.ts";
import {
  arithmeticOf,
  partialsOf,
  planOf,
  scratchBytes,
  typeCode,
  withWorkspace,
} from "./workspace.ts";

/**
 * Lists must not be longer than their indices; O(queries), on every launch.
 *
 * @throws ArgumentError naming the first length that is not in 0..topk.
 */
export function checkLengths(call: SparseCall): void {
  call.scopes.forEach((scope, s) => {
    if (scope.lengths === null) return;
    const topk = scope.indices.dim(2);
    const name = s === 0 ? "topkLength" : "extraTopkLength";
    const lengths = scope.lengths.contiguous().raw() as Int32Array;
    const at = lengths.findIndex((n) => n < 0 || n > topk);
    if (at < 0) return;
    // Lengths of a request repeat for its tokens, those of prefill do not.
    const query = scope.lengths.stride(1) === 0 ? Math.floor(at / call.tokens) : at;
    throw new ArgumentError(call.operation, `${name}[${query}]`, `${lengths[at]}`, `0..${topk}`);
  });
}

const elementBytes = (tensor: Tensor): number =>
  byteTypes.includes(tensor.dtype) ? 1 : tensor.dtype === "f32" ? 4 : 2;

/** The fields of a scope under the names of the kernel's parameters. */
function scopeParams(scope: SparseScope | undefined) {
  if (scope === undefined) {
    return { k: null, indices: null, lengths: null, ...noStrides };
  }
  const { cache, indices, lengths } = scope;
  const bytes = elementBytes(cache);
  return {
    k: cache,
    indices,
    lengths,
    k_request: scope.perRequest ? cache.stride(0) * bytes : 0,
    k_block: scope.perRequest ? 0 : cache.stride(0) * bytes,
    k_token: cache.stride(1) * bytes,
    page: Math.max(1, cache.dim(1)),
    keys: scope.keys,
    topk: indices.dim(2),
    index_request: indices.stride(0),
    index_token: indices.stride(1),
    length_request: lengths?.stride(0) ?? 0,
    length_token: lengths?.stride(1) ?? 0,
  };
}

const noStrides = {
  k_request: 0,
  k_block: 0,
  k_token: 0,
  page: 1,
  keys: 0,
  topk: 0,
  index_request: 0,
  index_token: 0,
  length_request: 0,
  length_token: 0,
};

/** Strides of a `[b, s, h, …]` tensor under a prefix. */
function rows<P extends string>(prefix: P, tensor: Tensor | null) {
  return {
    [`${prefix}_request`]: tensor?.stride(0) ?? 0,
    [`${prefix}_token`]: tensor?.stride(1) ?? 0,
    [`${prefix}_head`]: tensor?.stride(2) ?? 0,
  } as Record<`${P}_request` | `${P}_token` | `${P}_head`, number>;
}

const formatsOf = (call: SparseCall): KvFormat[] => call.scopes.map((scope) => scope.format);

function packCall(call: SparseCall, _target: Target, plan: Plan) {
  const extra = scopeParams(call.scopes[1]);
  return {
    ...scopeParams(call.scopes[0]),
    extra_k: extra.k,
    extra_indices: extra.indices,
    extra_lengths: extra.lengths,
    extra_k_request: extra.k_request,
    extra_k_block: extra.k_block,
    extra_k_token: extra.k_token,
    extra_page: extra.page,
    extra_keys: extra.keys,
    extra_topk: extra.topk,
    extra_index_request: extra.index_request,
    extra_index_token: extra.index_token,
    extra_length_request: extra.length_request,
    extra_length_token: extra.length_token,
    q: call.q,
    out: call.out,
    lse: call.lse,
    max_logits: call.maxLogits,
    prefix_lse: call.prefix?.lse ?? null,
    sink: call.sink,
    items: plan.items,
    merges: plan.merges,
    partials: partialsOf(call, plan),
    item_count: plan.itemCount,
    merge_count: plan.mergeCount,
    partial_rows: plan.partialRows,
    row_tile: plan.rowTile,
    tokens: call.tokens,
    q_type: typeCode[call.q.dtype] as number,
    out_type: typeCode[call.out.dtype] as number,
    ...rows("q", call.q),
    ...rows("out", call.out),
    ...rows("lse", call.lse),
    ...rows("max", call.maxLogits),
    ...rows("prefix", call.prefix?.lse ?? null),
    prefix_splits: (call.prefix?.places ?? 0) / SPLIT_KEYS,
    scale: call.softmaxScale,
    lse_scale: call.lseScale,
  };
}

const cpuKernel: AnyKernel<SparseCall> = defineKernel({
  language: "c",
  source: new URL("../kernels/sparse.c", import.meta.url),
  entry: "sparse_attention",
  params: {
    k: "ptr",
    indices: "ptr",
    lengths: "ptr",
    k_request: "i64",
    k_block: "i64",
    k_token: "i64",
    page: "i64",
    keys: "i64",
    topk: "i64",
    index_request: "i64",
    index_token: "i64",
    length_request: "i64",
    length_token: "i64",
    extra_k: "ptr",
    extra_indices: "ptr",
    extra_lengths: "ptr",
    extra_k_request: "i64",
    extra_k_block: "i64",
    extra_k_token: "i64",
    extra_page: "i64",
    extra_keys: "i64",
    extra_topk: "i64",
    extra_index_request: "i64",
    extra_index_token: "i64",
    extra_length_request: "i64",
    extra_length_token: "i64",
    q: "ptr",
    out: "ptr",
    lse: "ptr",
    max_logits: "ptr",
    prefix_lse: "ptr",
    sink: "ptr",
    items: "ptr",
    merges: "ptr",
    partials: "ptr",
    item_count: "i64",
    merge_count: "i64",
    partial_rows: "i64",
    row_tile: "i64",
    tokens: "i64",
    q_type: "i64",
    out_type: "i64",
    q_request: "i64",
    q_token: "i64",
    q_head: "i64",
    out_request: "i64",
    out_token: "i64",
    out_head: "i64",
    lse_request: "i64",
    lse_token: "i64",
    lse_head: "i64",
    max_request: "i64",
    max_token: "i64",
    max_head: "i64",
    prefix_request: "i64",
    prefix_token: "i64",
    prefix_head: "i64",
    prefix_splits: "i64",
    scale: "f64",
    lse_scale: "f64",
  },
  constants: (call: SparseCall, target: Target) => {
    const formats = formatsOf(call);
    return {
      ...arithmeticOf(target.isa, call, formats),
      D: call.headDimQk,
      DV: call.headDimV,
      KV_FORMAT: formatCode[formats[0] as "bf16"],
      EXTRA_FORMAT: formats[1] === undefined ? -1 : formatCode[formats[1]],
      KV_TYPE: formatCode[commonType(formats)],
      SPLIT_KEYS,
    };
  },
  plan: (call: SparseCall, target: Target) => planOf(call, target.isa, formatsOf(call)),
  pack: packCall,
  threads: (_call: SparseCall, _target, plan) => plan.threads,
  scratchBytes: (call: SparseCall, target, plan) =>
    scratchBytes(target.isa, call, formatsOf(call), plan.rowTile),
});

/** Attention of queries over lists of keys, in the lowered form. */
export const sparseAttention: Operation<SparseCall> = {
  name: "sparse_attention",
  check: checkLengths,
  reference: sparseReference,
  kernels: { cpu: cpuKernel },
  work: sparseWork,
};

/** Runs a lowered call. Without a plan it makes one. */
export function runSparse(device: Device, call: SparseCall): void {
  if (device.backend === "reference") device.run(sparseAttention, call);
  else device.run(sparseAttention, withWorkspace(device, call, sparseProblem(call)));
}
