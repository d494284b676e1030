// The operation behind the indexer's logits: its float64 reference and the CPU kernel's parameters.

import { defineKernel, type Operation, type Target } from "@open-infra/jit";
import { decodeInto, dtypeBits, encodeInto, type Tensor, ue8m0ToNumber } from "@open-infra/tensor";
import { dotProductPays } from "./dot-product.ts";
import {
  checkMqa,
  codeBytes,
  dimsOf,
  FP4_GROUP,
  type KeyPages,
  keyType,
  longestOf,
  type MqaCall,
  queryData,
  tableRowOf,
  tokensOf,
  windowOf,
} from "./mqa-call.ts";
import { SPLIT_KEYS } from "./mqa-metadata.ts";
import { isScaled } from "./operand.ts";

/** Values of rows of e2m1 codes with their packed scales applied. */
function applyPacked(values: Float64Array, scales: Int32Array, dim: number): Float64Array {
  return values.map((value, i) => {
    const packed = scales[Math.floor(i / dim)] as number;
    const code = (packed >>> (8 * Math.floor((i % dim) / FP4_GROUP))) & 0xff;
    return value * ue8m0ToNumber(code);
  });
}

function queryValues({ q }: MqaCall): Float64Array {
  const values = queryData(q).toFloat64();
  if (!isScaled(q)) return values;
  return applyPacked(values, q.scales.contiguous().raw() as Int32Array, q.data.dim(-1));
}

/** The first `count` keys of sequence `b`, [count, dim], scales applied. */
function keyValues(call: MqaCall, b: number, count: number, dim: number): Float64Array {
  const { keys } = call;
  if (keys.kind === "pages") return pagedValues(call, keys, b, count);
  const values = keys.data.slice(0, 0, count).toFloat64();
  const scales = keys.scales.slice(0, 0, count);
  if (keys.data.dtype === "e2m1") {
    return applyPacked(values, scales.contiguous().raw() as Int32Array, dim);
  }
  const factors = scales.toFloat64();
  return values.map((value, i) => value * (factors[Math.floor(i / dim)] as number));
}

function pagedValues(call: MqaCall, pages: KeyPages, b: number, count: number): Float64Array {
  const { dim } = dimsOf(call);
  const { cache, table } = pages;
  const perPage = cache.dim(1);
  const type = keyType(call);
  const bytes = codeBytes(type, dim);
  const out = new Float64Array(count * dim);
  const row = table.select(0, tableRowOf(call, b));
  for (let first = 0; first < count; first += perPage) {
    const page = row.slice(0, first / perPage, first / perPage + 1).raw()[0] as number;
    const memory = cache.select(0, page).bytes();
    const scales = new DataView(memory.buffer, memory.byteOffset + perPage * bytes, 4 * perPage);
    for (let i = 0; i < Math.min(perPage, count - first); i++) {
      const values = out.subarray((first + i) * dim, (first + i + 1) * dim);
      decodeInto(type, memory.subarray(i * bytes, (i + 1) * bytes), values);
      if (type === "e2m1") {
        values.set(applyPacked(values, Int32Array.of(scales.getInt32(4 * i, true)), dim));
      } else {
        const factor = scales.getFloat32(4 * i, true);
        for (let d = 0; d < dim; d++) values[d] = (values[d] as number) * factor;
      }
    }
  }
  return out;
}

function store(row: Tensor, from: number, values: Float64Array): void {
  const part = row.slice(0, from, from + values.length);
  encodeInto(part.dtype, values, part.raw());
}

function mqaReference(call: MqaCall): void {
  const { sequences, heads, dim, keys } = dimsOf(call);
  const q = queryValues(call);
  const weights = call.weights.toFloat64();
  for (let b = 0; b < sequences; b++) {
    const [first, last] = tokensOf(call, b);
    const count = call.keys.kind === "rows" ? keys : longestOf(call.ends, first, last);
    const k = keyValues(call, b, count, dim);
    for (let t = first; t < last; t++) {
      const { from, to, origin } = windowOf(call, t, keys);
      const logits = new Float64Array(to - from);
      for (let j = from; j < to; j++) {
        let sum = 0;
        for (let h = 0; h < heads; h++) {
          let dot = 0;
          const at = (t * heads + h) * dim;
          for (let d = 0; d < dim; d++) {
            dot += (q[at + d] as number) * (k[j * dim + d] as number);
          }
          sum += (weights[t * heads + h] as number) * Math.max(0, dot);
        }
        logits[j - from] = sum;
      }
      const row = call.out.select(0, t);
      if (call.clean) row.fill(Number.NEGATIVE_INFINITY);
      if (to > from) store(row, from - origin, logits);
    }
  }
}

/** Multiply-adds of all windows. */
function windowSum(call: MqaCall): number {
  const { allTokens, keys } = dimsOf(call);
  let sum = 0;
  for (let t = 0; t < allTokens; t++) {
    const { from, to } = windowOf(call, t, keys);
    sum += to - from;
  }
  return sum;
}

/** Flops and least memory traffic of a call: keys are read once a sequence. */
export function mqaWork(call: MqaCall): { flops: number; bytes: number } {
  const { sequences, allTokens, heads, dim, keys } = dimsOf(call);
  const logits = windowSum(call);
  const type = keyType(call);
  let rows = keys;
  if (call.keys.kind === "pages") {
    rows = 0;
    for (let b = 0; b < sequences; b++) rows += longestOf(call.ends, ...tokensOf(call, b));
  }
  const query = allTokens * heads * codeBytes(queryData(call.q).dtype, dim);
  return {
    flops: 2 * logits * heads * dim,
    bytes: rows * (codeBytes(type, dim) + 4) + query + (logits * dtypeBits[call.out.dtype]) / 8,
  };
}

/**
 * Keys of a block: its panel stays in a core's second cache, and is packed once for many tokens.
 */
const blockKeysOfRows = 480;
const mostTokensOfBlock = 32;

/** Work below this is done before a second thread would have woken. */
const flopsPerThread = 1_000_000;

/** Units per thread that even out what threads are slowed down by others. */
const unitsPerThread = 6;

interface MqaPlan {
  readonly blockKeys: number;
  readonly blockTokens: number;
  readonly parts: number;
  readonly threads: number;
}

function planOf(call: MqaCall, target: Target): MqaPlan {
  const { tokens, heads, dim, keys } = dimsOf(call);
  const most = Math.min(target.threads, call.threads ?? target.threads);
  if (call.keys.kind === "pages") {
    const useful = Math.floor((2 * windowSum(call) * heads * dim) / flopsPerThread);
    const threads = Math.max(1, Math.min(most, useful));
    const parts = call.keys.schedule.dim(0) - 1;
    return { blockKeys: SPLIT_KEYS, blockTokens: tokens, parts, threads };
  }
  const useful = Math.floor((2 * tokens * keys * heads * dim) / flopsPerThread);
  const threads = Math.max(1, Math.min(most, useful));
  let blockKeys = blockKeysOfRows;
  let blockTokens = Math.min(mostTokensOfBlock, Math.max(1, tokens));
  const count = (): number => Math.ceil(keys / blockKeys) * Math.ceil(tokens / blockTokens);
  if (threads > 1) {
    while (count() < threads * unitsPerThread && blockTokens > 8) {
      blockTokens = Math.ceil(blockTokens / 2);
    }
    while (count() < threads * unitsPerThread && blockKeys > 96) blockKeys -= 96;
  }
  return { blockKeys, blockTokens, parts: count(), threads };
}

/** k that a row's panel has room for: one kernel serves all dimensions up to 128. */
function rowWords(dim: number): number {
  return Math.max(128, Math.ceil(dim / 32) * 32);
}

/** Bytes of a thread's panels, if a word is one k (a word of two k takes half). */
function scratchBytes(call: MqaCall, _target: Target, plan: MqaPlan): number {
  const { heads, dim } = dimsOf(call);
  const row = rowWords(dim) + 2;
  // A tile of keys and of heads may be begun.
  return 4 * row * (plan.blockKeys + 64 + heads + 8);
}

const codeTypes: Readonly<Record<string, number>> = { e4m3fn: 3, e2m1: 4 };

/** Strides of codes in bytes. */
function byteStride(tensor: Tensor, dimension: number): number {
  return tensor.dtype === "e2m1" ? tensor.stride(dimension) / 2 : tensor.stride(dimension);
}

const cpuKernel = defineKernel({
  language: "c",
  source: new URL("../kernels/mqa.c", import.meta.url),
  entry: "mqa_logits",
  params: {
    q: "ptr",
    q_scales: "ptr",
    kv: "ptr",
    kv_scales: "ptr",
    weights: "ptr",
    starts: "ptr",
    ends: "ptr",
    table: "ptr",
    schedule: "ptr",
    runs: "ptr",
    out: "ptr",
    sequences: "i64",
    tokens: "i64",
    keys: "i64",
    heads: "i64",
    dim: "i64",
    q_sequence: "i64",
    q_token: "i64",
    q_head: "i64",
    qs_sequence: "i64",
    qs_token: "i64",
    qs_head: "i64",
    kv_row: "i64",
    kv_scale_row: "i64",
    page_bytes: "i64",
    page_keys: "i64",
    table_row: "i64",
    weight_row: "i64",
    out_row: "i64",
    width: "i64",
    compressed: "i64",
    clean: "i64",
    block_keys: "i64",
    block_tokens: "i64",
    parts: "i64",
  },
  constants: (call: MqaCall, target) => {
    return {
      DOT_PAYS: dotProductPays(target.isa) ? 1 : 0,
      Q_TYPE: codeTypes[queryData(call.q).dtype] as number,
      KV_TYPE: codeTypes[keyType(call)] as number,
      WEIGHT_BF16: call.weights.dtype === "bf16" ? 1 : 0,
      OUT_BF16: call.out.dtype === "bf16" ? 1 : 0,
      MOST_K: rowWords(dimsOf(call).dim),
      PAGED: call.keys.kind === "pages" ? 1 : 0,
    };
  },
  plan: planOf,
  pack(call, _target, plan) {
    const { keys } = call;
    const data = queryData(call.q);
    const scales = isScaled(call.q) ? call.q.scales : null;
    const dims = dimsOf(call);
    const rows = keys.kind === "rows" ? keys : null;
    const pages = keys.kind === "pages" ? keys : null;
    // Tokens of runs are the rows of q.
    const tokenDim = pages?.runs === undefined ? 1 : 0;
    return {
      q: data,
      q_scales: scales,
      kv: rows?.data ?? (pages as KeyPages).cache,
      kv_scales: rows?.scales ?? null,
      weights: call.weights,
      starts: call.starts,
      ends: call.ends,
      table: pages?.table ?? null,
      schedule: pages?.schedule ?? null,
      runs: pages?.runs ?? null,
      out: call.out,
      sequences: dims.sequences,
      tokens: dims.tokens,
      keys: dims.keys,
      heads: dims.heads,
      dim: dims.dim,
      q_sequence: byteStride(data, 0),
      q_token: byteStride(data, tokenDim),
      q_head: byteStride(data, 2),
      qs_sequence: scales?.stride(0) ?? 0,
      qs_token: scales?.stride(tokenDim) ?? 0,
      qs_head: scales?.stride(2) ?? 0,
      kv_row: rows === null ? codeBytes(keyType(call), dims.dim) : byteStride(rows.data, 0),
      kv_scale_row: rows?.scales.stride(0) ?? 0,
      page_bytes: pages?.cache.stride(0) ?? 0,
      page_keys: pages?.cache.dim(1) ?? 0,
      table_row: pages?.table.stride(0) ?? 0,
      weight_row: call.weights.stride(0),
      out_row: call.out.stride(0),
      width: call.out.dim(1),
      compressed: call.compressed ? 1 : 0,
      clean: call.clean ? 1 : 0,
      block_keys: plan.blockKeys,
      block_tokens: plan.blockTokens,
      parts: plan.parts,
    };
  },
  threads: (_call, _target, plan) => plan.threads,
  scratchBytes,
});

const operations = new Map<string, Operation<MqaCall>>();

/** The operation under a public function's name, so that traces and errors show that name. */
export function mqaOperation(name: string): Operation<MqaCall> {
  let operation = operations.get(name);
  if (operation === undefined) {
    operation = {
      name,
      check: checkMqa,
      reference: mqaReference,
      kernels: { cpu: cpuKernel },
      work: mqaWork,
    };
    operations.set(name, operation);
  }
  return operation;
}
