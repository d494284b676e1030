// Sparse attention problems: caches in any format whose unlisted keys are all NaN, lists with every
// kind of index that is no key, and an oracle in float64 that decodes the caches byte by byte,
// written apart from the package.

import { type DType, Tensor } from "@open-infra/tensor";
import type { Random } from "@open-infra/testing";
import { emptyKCache, writeKCache } from "../src/index.ts";
import { drawn, poisoned } from "./problems.ts";

export type Format = "v32" | "model1" | "bf16" | "f16" | "f32";

/** What stands for no key in lists: the original's set. */
export const noKeys = (keys: number): number[] => [
  -(2 ** 31),
  -123456,
  -1,
  keys,
  keys + 114514,
  2147480000,
  2 ** 31 - 1,
];

export interface ScopeShape {
  readonly format: Format;
  readonly page: number;
  readonly numBlocks: number;
  readonly topk: number;
  /** Per request; null for the whole list. */
  readonly lengths?: readonly number[] | null;
  /** Fraction of the list that names no key. @default 0.1 */
  readonly holes?: number;
}

export interface SparseShape {
  readonly b: number;
  readonly sq: number;
  readonly hq: number;
  readonly d: number;
  readonly dv: number;
  readonly dtype: DType;
  readonly main: ScopeShape;
  readonly extra?: ScopeShape;
  readonly sink?: readonly number[];
  readonly scale?: number;
}

export interface Scope {
  readonly cache: Tensor;
  readonly indices: Tensor<"i32">;
  readonly lengths: Tensor<"i32"> | undefined;
  /** The keys that query (r, i) sees, repeated if listed twice. */
  listed(r: number, i: number): Float64Array[];
}

export interface SparseProblem extends SparseShape {
  readonly q: Tensor;
  readonly scopes: readonly Scope[];
  row(r: number, i: number, h: number): { out: Float64Array; lse: number; max: number };
}

/** e4m3fn by its definition. */
export function e4m3(code: number): number {
  const sign = code & 0x80 ? -1 : 1;
  const exponent = (code >> 3) & 15;
  const fraction = code & 7;
  if (exponent === 15 && fraction === 7) return Number.NaN;
  return sign * (exponent === 0 ? fraction * 2 ** -9 : (1 + fraction / 8) * 2 ** (exponent - 7));
}

/** One key of an FP8 cache, decoded from its bytes as kernels.md describes them. */
export function decodeFp8(cache: Tensor, format: "v32" | "model1", index: number): Float64Array {
  const page = cache.dim(1);
  const bytes = cache.select(0, Math.floor(index / page)).bytes();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const t = index % page;
  const [row, codes, tile, rope] =
    format === "v32" ? [t * 656, 512, 128, 528] : [t * 576, 448, 64, 448];
  const key = new Float64Array(codes + 64);
  for (let c = 0; c < codes; c++) {
    const group = Math.floor(c / tile);
    const scale =
      format === "v32"
        ? view.getFloat32(row + 512 + group * 4, true)
        : 2 ** (view.getUint8(page * 576 + t * 8 + group) - 127);
    key[c] = e4m3(view.getUint8(row + c)) * scale;
  }
  const word = new DataView(new ArrayBuffer(4));
  for (let c = 0; c < 64; c++) {
    word.setUint32(0, view.getUint16(row + rope + c * 2, true) << 16);
    key[codes + c] = word.getFloat32(0);
  }
  return key;
}

function makeCache(random: Random, shape: ScopeShape, d: number, used: Set<number>): Tensor {
  const { format, page, numBlocks } = shape;
  const slots = [...used];
  const keys = drawn(random, slots.length * d);
  if (format === "v32" || format === "model1") {
    const cache = emptyKCache(format, numBlocks, page);
    // Every byte 255: codes, scales and bf16 are all NaN until written.
    for (let block = 0; block < numBlocks; block++) cache.select(0, block).bytes().fill(255);
    const all = Tensor.from(keys, [slots.length, d], "bf16");
    writeKCache(cache, Tensor.from(slots, [slots.length], "i32"), all);
    return cache;
  }
  const cache = poisoned([numBlocks, page, 1, d], format);
  slots.forEach((slot, i) => {
    const row = cache.reshape([numBlocks * page, d]).slice(0, slot, slot + 1);
    row.copyFrom(Tensor.from(keys.subarray(i * d, (i + 1) * d), [1, d], format));
  });
  return cache;
}

function makeScope(random: Random, shape: SparseShape, scope: ScopeShape): Scope {
  const { b, sq, d } = shape;
  const { topk, page, numBlocks, format, holes = 0.1 } = scope;
  const keys = page * numBlocks;
  const list = new Int32Array(b * sq * topk);
  const none = noKeys(keys);
  const used = new Set<number>();
  for (let at = 0; at < list.length; at++) {
    // Past the list's length, half the indices would be good and name NaN.
    const place = at % topk;
    const length = scope.lengths?.[Math.floor(at / (sq * topk))] ?? topk;
    const hole = random.next() < holes;
    list[at] = hole ? random.pick(none) : random.int(0, keys);
    if (!hole && place < length) used.add(list[at] as number);
  }
  const cache = makeCache(random, scope, d, used);
  const decoded = new Map<number, Float64Array>();
  const plain = format === "v32" || format === "model1" ? null : cache.toFloat64();
  const key = (index: number): Float64Array => {
    let found = decoded.get(index);
    if (found === undefined) {
      found =
        plain === null
          ? decodeFp8(cache, format as "v32" | "model1", index)
          : plain.subarray(index * d, (index + 1) * d);
      decoded.set(index, found);
    }
    return found;
  };
  return {
    cache,
    indices: Tensor.from(list, [b, sq, topk], "i32"),
    lengths: scope.lengths ? Tensor.from(scope.lengths, [b], "i32") : undefined,
    listed: (r, i) => {
      const from = (r * sq + i) * topk;
      const length = scope.lengths?.[r] ?? topk;
      return Array.from(list.subarray(from, from + length))
        .filter((index) => index >= 0 && index < keys)
        .map(key);
    },
  };
}

export function sparseProblem(random: Random, shape: SparseShape): SparseProblem {
  const { b, sq, hq, d, dv, dtype } = shape;
  const scopes = [makeScope(random, shape, shape.main)];
  if (shape.extra !== undefined) scopes.push(makeScope(random, shape, shape.extra));
  const q = Tensor.from(
    Float64Array.from({ length: b * sq * hq * d }, () =>
      Math.max(-1, Math.min(1, random.normal())),
    ),
    [b, sq, hq, d],
    dtype,
    "q",
  );
  const queries = q.toFloat64();
  const scale = shape.scale ?? d ** -0.55;
  return {
    ...shape,
    q,
    scopes,
    row: (r, i, h) => {
      const at = ((r * sq + i) * hq + h) * d;
      const keys = scopes.flatMap((scope) => scope.listed(r, i));
      return jointRow(queries.subarray(at, at + d), keys, scale, dv, shape.sink?.[h]);
    },
  };
}

/** Softmax over all keys at once, and the sink's share taken off afterwards. */
export function jointRow(
  q: Float64Array,
  keys: readonly Float64Array[],
  scale: number,
  dv: number,
  sink = Number.NEGATIVE_INFINITY,
): { out: Float64Array; lse: number; max: number } {
  const out = new Float64Array(dv);
  const scores = keys.map((k) => {
    let dot = 0;
    for (let c = 0; c < q.length; c++) dot += (k[c] as number) * (q[c] as number);
    return dot * scale;
  });
  const max = scores.reduce((a, x) => Math.max(a, x), Number.NEGATIVE_INFINITY);
  if (keys.length === 0) return { out, lse: Number.POSITIVE_INFINITY, max };
  const lse = max + Math.log(scores.reduce((sum, s) => sum + Math.exp(s - max), 0));
  const share = sink === Number.POSITIVE_INFINITY ? 0 : 1 / (1 + Math.exp(sink - lse));
  keys.forEach((key, j) => {
    const p = Math.exp((scores[j] as number) - lse) * share;
    for (let c = 0; c < dv; c++) out[c] = (out[c] as number) + p * (key[c] as number);
  });
  return { out, lse, max };
}
