// The oracle: attention in float64, one row at a time, rounded once at the end. Not for speed.

import { encodeInto, type Tensor } from "@open-infra/tensor";
import { type AttentionCall, formatOfKeys, visibleKeys } from "./call.ts";
import type { KvFormat } from "./kv-layout.ts";
import { dequantizeKCache } from "./quantize.ts";

/** First element of the row (request, token, head) in a dense `[b,s,h,·]` or `[T,h,·]` tensor. */
function rowIndex(call: AttentionCall, r: number, token: number, head: number): number {
  const start =
    call.cuSeqlensQ === null
      ? r * (call.queryLengths[0] as number)
      : (call.cuSeqlensQ.raw()[r] as number);
  return (start + token) * call.headsQ + head;
}

/** Index of key `j` of request `r`, in tokens of the cache. */
function keyIndex(call: AttentionCall, table: Int32Array, r: number, j: number): number {
  const page = call.k.dim(1);
  const columns = call.blockTable.dim(1);
  return (table[r * columns + Math.floor(j / page)] as number) * page + (j % page);
}

/** One row's results. */
export interface Row {
  readonly out: Float64Array;
  /** Natural logarithm of Σ e^score; +inf for a row without keys. */
  readonly lse: number;
  /** Largest score; −inf for a row without keys. */
  readonly max: number;
}

/** All numbers of a cache, in row-major order. */
export function cacheValues(cache: Tensor, format: KvFormat): Float64Array {
  const fp8 = format === "v32" || format === "model1";
  return (fp8 ? dequantizeKCache(cache) : cache).toFloat64();
}

/**
 * Softmax-weighted values of one query row. A row without keys is 0 with lse +inf. A sink takes its
 * share of the softmax and nothing else.
 */
export function attendRow(
  scores: Float64Array,
  value: (key: number, channel: number) => number,
  dv: number,
  sink: number = Number.NEGATIVE_INFINITY,
): Row {
  const out = new Float64Array(dv);
  let max = Number.NEGATIVE_INFINITY;
  for (const s of scores) max = Math.max(max, s);
  if (max === Number.NEGATIVE_INFINITY) return { out, lse: Number.POSITIVE_INFINITY, max };
  let sum = 0;
  for (const s of scores) sum += Math.exp(s - max);
  const lse = max + Math.log(sum);
  const share = 1 / (1 + Math.exp(sink - lse));
  if (share === 0) return { out, lse, max };
  for (let j = 0; j < scores.length; j++) {
    const p = (Math.exp((scores[j] as number) - max) / sum) * share;
    for (let c = 0; c < dv; c++) out[c] = (out[c] as number) + p * value(j, c);
  }
  return { out, lse, max };
}

/** Writes dense row-major `values` into a tensor that may be strided. */
export function store(tensor: Tensor, values: Float64Array): void {
  if (tensor.size === 0) return;
  if (tensor.isContiguous) {
    encodeInto(tensor.dtype, values, tensor.raw());
    return;
  }
  if (tensor.rank === 1) {
    for (let i = 0; i < tensor.dim(0); i++) {
      encodeInto(tensor.dtype, values.subarray(i, i + 1), tensor.slice(0, i, i + 1).raw());
    }
    return;
  }
  const chunk = values.length / tensor.dim(0);
  for (let i = 0; i < tensor.dim(0); i++) {
    store(tensor.select(0, i), values.subarray(i * chunk, (i + 1) * chunk));
  }
}

/** Computes a call in float64 and stores `out` and `lse`. */
export function attentionReference(call: AttentionCall): void {
  const { headsQ, headsK, headDimQk: d, headDimV: dv } = call;
  const q = call.q.toFloat64();
  const k = cacheValues(call.k, formatOfKeys(call));
  const table = call.blockTable.contiguous().raw() as Int32Array;
  const out = new Float64Array(call.out.size);
  const lse = new Float64Array(call.lse?.size ?? 0);
  const maxLogits = new Float64Array(call.maxLogits?.size ?? 0);
  const sink = call.sink?.toFloat64();
  for (let r = 0; r < call.requests; r++) {
    const tokens = call.queryLengths[r] as number;
    const rows = Array.from({ length: call.keyLengths[r] as number }, (_, j) =>
      keyIndex(call, table, r, j),
    );
    for (let i = 0; i < tokens; i++) {
      for (let h = 0; h < headsQ; h++) {
        const kvHead = Math.floor((h * headsK) / headsQ);
        const at = rowIndex(call, r, i, h);
        const scores = new Float64Array(visibleKeys(call, r, i));
        for (let j = 0; j < scores.length; j++) {
          const key = ((rows[j] as number) * headsK + kvHead) * d;
          let dot = 0;
          for (let c = 0; c < d; c++) dot += (q[at * d + c] as number) * (k[key + c] as number);
          scores[j] = dot * call.softmaxScale;
        }
        const value = (j: number, c: number): number =>
          k[((rows[j] as number) * headsK + kvHead) * d + c] as number;
        const row = attendRow(scores, value, dv, sink?.[h]);
        out.set(row.out, at * dv);
        const lseAt = call.layout === "ragged" ? at : (r * headsQ + h) * tokens + i;
        if (call.lse !== null) lse[lseAt] = row.lse * (call.lseScale ?? 1);
        if (call.maxLogits) maxLogits[lseAt] = row.max;
      }
    }
  }
  store(call.out, out);
  if (call.lse !== null) store(call.lse, lse);
  if (call.maxLogits) store(call.maxLogits, maxLogits);
}
