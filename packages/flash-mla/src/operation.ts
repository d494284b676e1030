// The operation behind every public function: a float64 reference and one C kernel, specialised on
// head dimensions and key dtype. The tensors that a device lends to its launches also live here.

import {
  type AnyKernel,
  type Device,
  defineKernel,
  type Operation,
  type Target,
} from "@open-infra/jit";
import type { Tensor } from "@open-infra/tensor";
import { type AttentionCall, attentionWork, formatOfKeys, SPLIT_KEYS } from "./call.ts";
import { BlockTableError } from "./errors.ts";
import { commonType, formatCode } from "./kv-layout.ts";
import { attentionReference } from "./reference.ts";
import {
  arithmeticOf,
  partialsOf,
  planOf,
  scratchBytes,
  typeCode,
  withWorkspace,
} from "./workspace.ts";

/** Block ids are only trusted after this: O(blocks in use), on every launch. */
function checkBlockTable(call: AttentionCall): void {
  const numBlocks = call.k.dim(0);
  const page = call.k.dim(1);
  const columns = call.blockTable.dim(1);
  const ids = call.blockTable.raw() as Int32Array;
  for (let r = 0; r < call.requests; r++) {
    const used = Math.ceil((call.keyLengths[r] as number) / page);
    for (let i = 0; i < used; i++) {
      const id = ids[r * columns + i] as number;
      if (!(id >= 0 && id < numBlocks)) {
        throw new BlockTableError(call.operation, r, i, id, numBlocks);
      }
    }
  }
}

/** Strides of a `[b,s,h,·]` or `[T,h,·]` tensor as (request, token, head). */
function rowStrides(tensor: Tensor): [number, number, number] {
  if (tensor.rank === 3) return [0, tensor.stride(0), tensor.stride(1)];
  return [tensor.stride(0), tensor.stride(1), tensor.stride(2)];
}

function lseStrides(lse: Tensor | null): [number, number, number] {
  if (lse === null) return [0, 0, 0];
  if (lse.rank === 2) return [0, lse.stride(0), lse.stride(1)];
  return [lse.stride(0), lse.stride(2), lse.stride(1)];
}

const cpuKernel: AnyKernel<AttentionCall> = defineKernel({
  language: "c",
  source: new URL("../kernels/attention.c", import.meta.url),
  entry: "attention",
  params: {
    q: "ptr",
    k: "ptr",
    out: "ptr",
    lse: "ptr",
    cu_q: "ptr",
    context: "ptr",
    table: "ptr",
    sink: "ptr",
    max_logits: "ptr",
    items: "ptr",
    merges: "ptr",
    partials: "ptr",
    item_count: "i64",
    merge_count: "i64",
    partial_rows: "i64",
    row_tile: "i64",
    group: "i64",
    tokens: "i64",
    causal: "i64",
    page: "i64",
    table_columns: "i64",
    k_block: "i64",
    k_token: "i64",
    k_head: "i64",
    q_type: "i64",
    q_request: "i64",
    q_token: "i64",
    q_head: "i64",
    out_type: "i64",
    out_request: "i64",
    out_token: "i64",
    out_head: "i64",
    lse_request: "i64",
    lse_token: "i64",
    lse_head: "i64",
    max_request: "i64",
    max_token: "i64",
    max_head: "i64",
    scale: "f64",
    lse_scale: "f64",
  },
  constants: (call: AttentionCall, target: Target) => ({
    ...arithmeticOf(target.isa, call, [formatOfKeys(call)]),
    D: call.headDimQk,
    DV: call.headDimV,
    KV_FORMAT: formatCode[formatOfKeys(call)],
    KV_TYPE: formatCode[commonType([formatOfKeys(call)])],
    SPLIT_KEYS,
  }),
  plan: (call: AttentionCall, target: Target) => planOf(call, target.isa, [formatOfKeys(call)]),
  pack: (call: AttentionCall, _target, plan) => {
    const { k, q, out, lse } = call;
    const [q_request, q_token, q_head] = rowStrides(q);
    const [out_request, out_token, out_head] = rowStrides(out);
    const [lse_request, lse_token, lse_head] = lseStrides(lse);
    const [max_request, max_token, max_head] = lseStrides(call.maxLogits ?? null);
    return {
      q,
      k,
      out,
      lse,
      cu_q: call.cuSeqlensQ,
      context: call.contextLens,
      table: call.blockTable,
      sink: call.sink ?? null,
      max_logits: call.maxLogits ?? null,
      items: plan.items,
      merges: plan.merges,
      partials: partialsOf(call, plan),
      item_count: plan.itemCount,
      merge_count: plan.mergeCount,
      partial_rows: plan.partialRows,
      row_tile: plan.rowTile,
      group: call.headsQ / call.headsK,
      tokens: call.layout === "batched" ? q.dim(1) : 0,
      causal: call.causal ? 1 : 0,
      page: k.dim(1),
      table_columns: call.blockTable.dim(1),
      k_block: k.stride(0),
      k_token: k.stride(1),
      k_head: k.stride(2),
      q_type: typeCode[q.dtype] as number,
      q_request,
      q_token,
      q_head,
      out_type: typeCode[out.dtype] as number,
      out_request,
      out_token,
      out_head,
      lse_request,
      lse_token,
      lse_head,
      max_request,
      max_token,
      max_head,
      scale: call.softmaxScale,
      lse_scale: call.lseScale ?? 1,
    };
  },
  threads: (_call: AttentionCall, _target, plan) => plan.threads,
  scratchBytes: (call: AttentionCall, target, plan) =>
    scratchBytes(target.isa, call, [formatOfKeys(call)], plan.rowTile),
});

/** Attention over paged or packed keys, in the lowered form. */
export const attention: Operation<AttentionCall> = {
  name: "attention",
  check: checkBlockTable,
  reference: attentionReference,
  kernels: { cpu: cpuKernel },
  work: attentionWork,
};

/**
 * Runs a lowered call. Without a plan it makes one. The workspace (split partials, at most 64 MiB)
 * belongs to the device and is freed with it.
 */
export function runAttention(device: Device, call: AttentionCall): void {
  if (device.backend === "reference") device.run(attention, call);
  else device.run(attention, withWorkspace(device, call, call));
}
