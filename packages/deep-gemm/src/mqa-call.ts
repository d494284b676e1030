// What a call of the indexer's logits is, in one form for keys in rows and keys in pages, and its
// rules. The public functions lower to it; the reference and the kernel know nothing else.

import {
  type DType,
  DTypeError,
  expectContiguous,
  expectRows,
  expectTensor,
  ShapeError,
  type Tensor,
} from "@open-infra/tensor";
import { ArgumentError } from "./errors.ts";
import { isScaled, type ScaledTensor } from "./operand.ts";

/** e2m1 codes that share a ue8m0 scale; four scales fill the int32 of a row. */
export const FP4_GROUP = 32;

/** e4m3 codes without scales, or e2m1 codes with four ue8m0 scales in each row's int32. */
export type MqaQuery = Tensor | ScaledTensor;

/** Keys one after another: codes [N,D], and f32 [N] (e4m3) or packed ue8m0 int32 [N] (e2m1). */
export interface KeyRows {
  readonly kind: "rows";
  readonly data: Tensor;
  readonly scales: Tensor;
}

/** Keys in pages of a cache whose pages hold codes first and scales behind them. */
export interface KeyPages {
  readonly kind: "pages";
  /** u8 [pages, keys of a page, 1, bytes of a key with its scale]; pages may be apart. */
  readonly cache: Tensor;
  /**
   * i32 [B, pages of a sequence]; entries beyond the sequence are never looked at. With `runs` a row
   * for each token, and tokens of a sequence name the same pages.
   */
  readonly table: Tensor;
  /** i32 [parts + 1, 2]. */
  readonly schedule: Tensor;
  /**
   * i32 [sequences + 1]: sequence s is the rows runs[s] … runs[s + 1] of q, which is [B,1,H,D] then.
   * @default sequence b is row b of q, with T tokens
   */
  readonly runs?: Tensor | undefined;
}

/**
 * A lowered call. Tokens of all sequences are counted through: token t of sequence b is b · T + t.
 */
export interface MqaCall {
  readonly operation: string;
  /** [B,T,H,D]; scales i32 [B,T,H]. */
  readonly q: MqaQuery;
  readonly keys: KeyRows | KeyPages;
  /** f32 or bf16 [B · T, H]. */
  readonly weights: Tensor;
  /** First key of each token, i32 [B · T]; null: 0. */
  readonly starts: Tensor | null;
  /** Key after each token's last, i32 [B · T]. */
  readonly ends: Tensor;
  /** f32 or bf16 [B · T, width]. */
  readonly out: Tensor;
  /** Column j is key start + j, not key j. */
  readonly compressed: boolean;
  /** Columns outside a window become −∞; else they are left alone. */
  readonly clean: boolean;
  readonly threads: number | undefined;
}

/** Sizes of a call. */
export interface MqaDims {
  readonly sequences: number;
  /** Tokens of each sequence, and of all; where sequences are runs, tokens is all of them. */
  readonly tokens: number;
  readonly allTokens: number;
  readonly heads: number;
  readonly dim: number;
  /** Keys that windows are clamped to. */
  readonly keys: number;
}

/** The codes of a query. */
export function queryData(q: MqaQuery): Tensor {
  return isScaled(q) ? q.data : q;
}

/** Type of the keys' codes; in pages it is the query's. */
export function keyType({ q, keys }: MqaCall): DType {
  return keys.kind === "rows" ? keys.data.dtype : queryData(q).dtype;
}

/** Bytes of the codes of one key or head. */
export function codeBytes(dtype: DType, dim: number): number {
  return dtype === "e2m1" ? dim / 2 : dim;
}

/** Sizes of a checked call. */
export function dimsOf({ q, keys }: MqaCall): MqaDims {
  const [batch, next, heads, dim] = queryData(q).shape as [number, number, number, number];
  const count = keys.kind === "rows" ? keys.data.dim(0) : keys.table.dim(1) * keys.cache.dim(1);
  const runs = keys.kind === "pages" ? keys.runs : undefined;
  const sequences = runs === undefined ? batch : runs.size - 1;
  const tokens = runs === undefined ? next : batch;
  return { sequences, tokens, allTokens: batch * next, heads, dim, keys: count };
}

/** Tokens [from, to) of sequence `b`. */
export function tokensOf(call: MqaCall, b: number): readonly [from: number, to: number] {
  const runs = call.keys.kind === "pages" ? call.keys.runs?.raw() : undefined;
  if (runs !== undefined) return [runs[b] as number, runs[b + 1] as number];
  const tokens = queryData(call.q).dim(1);
  return [b * tokens, (b + 1) * tokens];
}

/** The row of the block table that names all pages of the tokens [from, to) of sequence `b`. */
export function tableRowOf(call: MqaCall, b: number): number {
  if (call.keys.kind !== "pages" || call.keys.runs === undefined) return b;
  const [from, to] = tokensOf(call, b);
  const lengths = call.ends.raw();
  let row = from;
  for (let t = from; t < to; t++) {
    if ((lengths[t] as number) > (lengths[row] as number)) row = t;
  }
  return row;
}

/** Keys [from, to) of a token, clamped to those there are; `origin` is the key of column 0. */
export interface Window {
  readonly from: number;
  readonly to: number;
  readonly origin: number;
}

/** The window of token `t`. */
export function windowOf(call: MqaCall, t: number, keys: number): Window {
  const start = call.starts === null ? 0 : (call.starts.raw()[t] as number);
  const from = Math.max(0, start);
  const to = Math.max(from, Math.min(keys, call.ends.raw()[t] as number));
  return { from, to, origin: call.compressed ? start : 0 };
}

/**
 * Checks a call completely: types, shapes, strides, windows, pages in use, and the schedule's
 * shape.
 */
export function checkMqa(call: MqaCall): void {
  const { operation, q, keys, weights, starts, ends, out } = call;
  checkQuery(call);
  const [sequences, tokens, heads, dim] = queryData(q).shape as [number, number, number, number];
  const rows = sequences * tokens;
  const dims = { H: heads, D: dim, T: rows };
  if (keys.kind === "rows") checkRows(call, keys, dims);
  else checkPages(call, keys, sequences, dim);
  expectTensor(operation, "weights", weights, ["f32", "bf16"], ["T", "H"], dims);
  expectRows(operation, "weights", weights);
  const [first, last] = windowNames(call);
  for (const [name, index] of [[first, starts] as const, [last, ends] as const]) {
    if (index === null) continue;
    expectTensor(operation, name, index, ["i32"], ["T"], dims);
    expectContiguous(operation, name, index);
  }
  expectTensor(operation, "out", out, ["f32", "bf16"], ["T", "width"], dims);
  expectRows(operation, "out", out);
  checkWindows(call);
}

/** The names of starts and ends in the public functions. */
function windowNames({ keys }: MqaCall): [string, string] {
  return keys.kind === "rows" ? ["cuSeqLenKStart", "cuSeqLenKEnd"] : ["", "contextLens"];
}

function checkQuery({ operation, q }: MqaCall): void {
  const data = queryData(q);
  const name = isScaled(q) ? "q.data" : "q";
  const wanted: DType = isScaled(q) ? "e2m1" : "e4m3fn";
  if (data.dtype !== wanted) {
    const allowed = "e4m3fn, or {data: e2m1, scales: i32}";
    throw new DTypeError(operation, name, data.dtype, allowed);
  }
  const dims = {};
  expectTensor(operation, name, data, [wanted], ["B", "T", "H", "D"], dims);
  checkCodes(operation, name, data);
  if (!isScaled(q)) return;
  expectTensor(operation, "q.scales", q.scales, ["i32"], ["B", "T", "H"], dims);
}

/** Rows of codes: adjacent along D, and of e2m1 an even number that begins on a byte. */
function checkCodes(operation: string, name: string, data: Tensor): void {
  expectRows(operation, name, data);
  const dim = data.dim(-1);
  if (dim === 0) throw new ShapeError(operation, name, `[${data.shape}]`, "at least one channel");
  if (data.dtype !== "e2m1") return;
  if (dim % 2 !== 0 || dim > 4 * FP4_GROUP) {
    const allowed = `an even number of channels up to ${4 * FP4_GROUP}`;
    throw new ShapeError(operation, name, `[${data.shape}]`, allowed);
  }
  const odd = data.strides.some((s, i) => i < data.rank - 1 && data.dim(i) > 1 && s % 2 !== 0);
  if (odd || data.offset % 2 !== 0) {
    const got = `strides [${data.strides}] from element ${data.offset}`;
    throw new ShapeError(operation, name, got, "rows that begin at even elements, two to a byte");
  }
}

function checkRows(call: MqaCall, keys: KeyRows, dims: Record<string, number>): void {
  const { operation } = call;
  const { data, scales } = keys;
  expectTensor(operation, "kv.data", data, ["e4m3fn", "e2m1"], ["N", "D"], dims);
  checkCodes(operation, "kv.data", data);
  const type = data.dtype === "e2m1" ? "i32" : "f32";
  expectTensor(operation, "kv.scales", scales, [type], ["N"], dims);
}

function checkPages(call: MqaCall, keys: KeyPages, sequences: number, dim: number): void {
  const { operation } = call;
  const { cache, table, schedule } = keys;
  const bytes = codeBytes(keyType(call), dim) + 4;
  expectTensor(operation, "kvCache", cache, ["u8"], ["pages", "blockKv", 1, bytes], {});
  const packed =
    (cache.dim(3) <= 1 || cache.stride(3) === 1) &&
    (cache.dim(1) <= 1 || cache.stride(1) === bytes);
  if (!packed || cache.dim(1) === 0) {
    const got = `[${cache.shape}] with strides [${cache.strides}]`;
    throw new ShapeError(operation, "kvCache", got, "pages of at least one key, dense inside");
  }
  expectTensor(operation, "blockTable", table, ["i32"], [sequences, "pages of a sequence"], {});
  expectRows(operation, "blockTable", table);
  expectTensor(operation, "scheduleMeta", schedule, ["i32"], ["parts + 1", 2], {});
  expectContiguous(operation, "scheduleMeta", schedule);
}

function checkWindows(call: MqaCall): void {
  const { operation, keys, out, compressed } = call;
  const { allTokens, keys: count } = dimsOf(call);
  const width = out.dim(1);
  for (let t = 0; t < allTokens; t++) {
    const { from, to, origin } = windowOf(call, t, count);
    if (keys.kind === "pages") {
      const length = call.ends.raw()[t] as number;
      if (length >= 0 && length <= Math.min(count, width)) continue;
      const allowed = `0 to ${Math.min(count, width)}, the lesser of block table and out`;
      throw new ArgumentError(operation, `contextLens[${t}]`, `${length}`, allowed);
    }
    if (to > from && to - origin > width) {
      const what = compressed ? "maxSeqlenK" : "out's columns";
      const got = `${to - origin} columns wide`;
      throw new ArgumentError(operation, `window ${t}`, got, `at most ${width}, ${what}`);
    }
  }
  if (keys.kind === "pages") checkTable(call, keys);
}

/** The pages that sequences really use must exist, and be the same for all tokens of a run. */
function checkTable(call: MqaCall, { cache, table, runs }: KeyPages): void {
  const pages = cache.dim(0);
  const perPage = cache.dim(1);
  const dense = table.isContiguous ? table : table.contiguous();
  const [entries, width] = [dense.raw() as Int32Array, table.dim(1)];
  const { sequences } = dimsOf(call);
  for (let b = 0; b < sequences; b++) {
    const [from, to] = tokensOf(call, b);
    const row = tableRowOf(call, b);
    const used = Math.ceil(longestOf(call.ends, from, to) / perPage);
    for (let i = 0; i < used; i++) {
      const page = entries[row * width + i] as number;
      if (page >= 0 && page < pages) continue;
      const argument = `blockTable[${row}, ${i}]`;
      throw new ArgumentError(call.operation, argument, `${page}`, `0 to ${pages - 1}`);
    }
    if (runs === undefined) continue;
    for (let t = from; t < to; t++) expectSamePages(call, entries, width, { t, row, perPage });
  }
}

/** The pages that token `t` uses must be those of another row of the table. */
function expectSamePages(
  { operation, ends }: MqaCall,
  entries: Int32Array,
  width: number,
  { t, row, perPage }: { readonly t: number; readonly row: number; readonly perPage: number },
): void {
  const used = Math.ceil((ends.raw()[t] as number) / perPage);
  for (let i = 0; i < used; i++) {
    const [page, want] = [entries[t * width + i], entries[row * width + i]];
    if (page === want) continue;
    const allowed = `${want}, as in row ${row} of the same sequence`;
    throw new ArgumentError(operation, `blockTable[${t}, ${i}]`, `${page}`, allowed);
  }
}

/** The longest of the lengths of tokens [from, to). */
export function longestOf(ends: Tensor, from: number, to: number): number {
  const lengths = ends.raw() as Int32Array;
  let longest = 0;
  for (let t = from; t < to; t++) longest = Math.max(longest, lengths[t] as number);
  return longest;
}
