// Encoding and decoding of the two FP8 key layouts, byte for byte those of the original's tests and
// of the caches its kernels read, and the step from positions in a sequence to places in a cache.

import {
  type DType,
  decodeInto,
  encodeInto,
  expectTensor,
  HostStorage,
  StorageError,
  Tensor,
} from "@open-infra/tensor";
import { floatTypes } from "./checks.ts";
import { ArgumentError } from "./errors.ts";
import {
  emptyKCache,
  type Fp8KvLayout,
  type Fp8KvLayoutName,
  fp8KvLayouts,
  fp8LayoutOf,
  ROPE_CHANNELS,
} from "./kv-layout.ts";

const E4M3_MAX = 448;
/** log2 of the least scale: 2^-13 is the first power of two from 1e-4 on. */
const LEAST_EXPONENT = -13;
const MOST_EXPONENT = 127;

/** ceil(log2(max(amax / 448, 1e-4))), exactly; amax is finite and not negative. */
function scaleExponent(amax: number): number {
  const ratio = Math.fround(Math.fround(amax) / E4M3_MAX);
  let exponent = LEAST_EXPONENT;
  while (2 ** exponent < ratio && exponent < MOST_EXPONENT) exponent++;
  return exponent;
}

/** The largest magnitude that is a finite number. */
function finiteMax(values: Float64Array): number {
  let most = 0;
  for (const x of values) {
    const size = Math.abs(x);
    if (size > most && size !== Number.POSITIVE_INFINITY) most = size;
  }
  return most;
}

/** The memory of a host tensor from its first element on. */
function bytesFrom(tensor: Tensor): Uint8Array {
  const { storage } = tensor;
  if (!(storage instanceof HostStorage)) {
    throw new StorageError(`${tensor.describe()} lives on a device; copy it to the host first`);
  }
  return storage.bytes.subarray(tensor.byteOffset);
}

/** Byte offsets of a key's row and of its exponents (MODEL1) in a cache. */
function placeOf(layout: Fp8KvLayout, cache: Tensor, slot: number): { row: number; tail: number } {
  const page = cache.dim(1);
  const start = Math.floor(slot / page) * cache.stride(0);
  const at = slot % page;
  const row = start + at * layout.rowBytes;
  return { row, tail: start + page * layout.rowBytes + at * 8 };
}

/** Encodes one key at a place of a cache's bytes. */
class KeyEncoder {
  readonly #layout: Fp8KvLayout;
  readonly #tile: Float64Array;
  readonly #rope: Float64Array = new Float64Array(ROPE_CHANNELS);
  readonly #ropeBits = new Uint16Array(ROPE_CHANNELS);

  constructor(layout: Fp8KvLayout) {
    this.#layout = layout;
    this.#tile = new Float64Array(layout.tile);
  }

  encode(key: Float64Array, bytes: Uint8Array, place: { row: number; tail: number }): void {
    const { codes, tile, ropeOffset, name } = this.#layout;
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    for (let t = 0; t * tile < codes; t++) {
      const part = key.subarray(t * tile, (t + 1) * tile);
      const exponent = scaleExponent(finiteMax(part));
      for (let i = 0; i < tile; i++) this.#tile[i] = (part[i] as number) / 2 ** exponent;
      const at = place.row + t * tile;
      encodeInto("e4m3fn", this.#tile, bytes.subarray(at, at + tile));
      if (name === "v32") view.setFloat32(place.row + codes + t * 4, 2 ** exponent, true);
      else bytes[place.tail + t] = exponent + 127;
    }
    if (name === "model1") bytes[place.tail + codes / tile] = 0;
    this.#rope.set(key.subarray(codes));
    encodeInto("bf16", this.#rope, this.#ropeBits);
    for (let i = 0; i < ROPE_CHANNELS; i++) {
      view.setUint16(place.row + ropeOffset + i * 2, this.#ropeBits[i] as number, true);
    }
  }
}

/**
 * Quantises a whole cache of keys (the original's `quantize_k_cache`): each tile of channels by
 * scale 2^ceil(log2(max(amax / 448, 1e-4))), codes to the nearest e4m3, ties to even; the last 64
 * channels stay bf16. NaN and infinities become the NaN code and do not enter amax.
 *
 * @param kCache bf16, f16 or f32 `[numBlocks, page, 1, 576 (v32) | 512 (model1)]`.
 * @returns u8 `[numBlocks, page, 1, 656 | 584]`; pages of model1 are padded to 576 bytes.
 * @throws DTypeError or ShapeError.
 */
export function quantizeKCache(kCache: Tensor, layout: Fp8KvLayoutName): Tensor<"u8"> {
  const { headDim } = fp8KvLayouts[layout];
  const pattern = ["numBlocks", "page", 1, headDim];
  expectTensor("quantizeKCache", "kCache", kCache, floatTypes, pattern, {});
  const out = emptyKCache(layout, kCache.dim(0), kCache.dim(1));
  encodeKeys(kCache.toFloat64(), out, fp8KvLayouts[layout], null);
  return out;
}

/** Encodes the given tokens of `keys`, each at its slot of the cache. */
function encodeKeys(
  keys: Float64Array,
  cache: Tensor,
  layout: Fp8KvLayout,
  slots: Int32Array | null,
): void {
  const bytes = bytesFrom(cache);
  const encoder = new KeyEncoder(layout);
  for (let token = 0; token < keys.length / layout.headDim; token++) {
    const slot = slots === null ? token : (slots[token] as number);
    if (slot < 0) continue;
    const key = keys.subarray(token * layout.headDim, (token + 1) * layout.headDim);
    encoder.encode(key, bytes, placeOf(layout, cache, slot));
  }
}

/**
 * Quantises keys into chosen places of an FP8 cache: what a server does with the keys of new
 * tokens. Other places keep their bytes.
 *
 * @param kCache u8 or e4m3fn `[numBlocks, page, 1, 656 | 584]`.
 * @param slots i32 `[T]`: page × page size + offset; −1 skips a token.
 * @param keys bf16, f16 or f32 `[T, 576 | 512]`.
 * @throws DTypeError, ShapeError, or ArgumentError naming a slot outside the cache.
 */
export function writeKCache(kCache: Tensor, slots: Tensor, keys: Tensor): void {
  const operation = "writeKCache";
  const layout = fp8LayoutOf(operation, "kCache", kCache);
  expectTensor(operation, "keys", keys, floatTypes, ["T", layout.headDim], {});
  expectTensor(operation, "slots", slots, ["i32"], ["T"], { T: keys.dim(0) });
  const places = slots.contiguous().raw() as Int32Array;
  const most = kCache.dim(0) * kCache.dim(1);
  for (let token = 0; token < places.length; token++) {
    const slot = places[token] as number;
    if (slot < -1 || slot >= most) {
      throw new ArgumentError(operation, `slots[${token}]`, `${slot}`, `-1 or 0..${most - 1}`);
    }
  }
  encodeKeys(keys.toFloat64(), kCache, layout, places);
}

/** The channels of one encoded key as bf16 numbers. */
function decodeKey(
  layout: Fp8KvLayout,
  bytes: Uint8Array,
  place: { row: number; tail: number },
  out: Float64Array,
): void {
  const { codes, tile, ropeOffset, name } = layout;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  decodeInto("e4m3fn", bytes.subarray(place.row, place.row + codes), out.subarray(0, codes));
  for (let t = 0; t * tile < codes; t++) {
    const code = bytes[place.tail + t] as number;
    const exponent = code === 255 ? Number.NaN : 2 ** (code - 127);
    const scale = name === "v32" ? view.getFloat32(place.row + codes + t * 4, true) : exponent;
    for (let i = t * tile; i < (t + 1) * tile; i++) {
      out[i] = Math.fround((out[i] as number) * scale);
    }
  }
  const rope = Uint16Array.from({ length: ROPE_CHANNELS }, (_, i) =>
    view.getUint16(place.row + ropeOffset + i * 2, true),
  );
  decodeInto("bf16", rope, out.subarray(codes));
}

/**
 * The keys of an FP8 cache as the attention kernels see them (`dequantize_k_cache`): code × scale,
 * rounded to bf16.
 *
 * @param kCache u8 or e4m3fn `[numBlocks, page, 1, 656 | 584]`.
 * @returns `[numBlocks, page, 1, 576 | 512]`.
 * @throws DTypeError or ShapeError.
 */
export function dequantizeKCache<D extends DType = "bf16">(
  kCache: Tensor,
  dtype: D = "bf16" as D,
): Tensor<D> {
  const layout = fp8LayoutOf("dequantizeKCache", "kCache", kCache);
  const [numBlocks, page] = kCache.shape as [number, number];
  const out = Tensor.empty([numBlocks, page, 1, layout.headDim], "bf16", "kCache");
  const raw = out.raw();
  const bytes = bytesFrom(kCache);
  const key = new Float64Array(layout.headDim);
  for (let slot = 0; slot < numBlocks * page; slot++) {
    decodeKey(layout, bytes, placeOf(layout, kCache, slot), key);
    encodeInto("bf16", key, raw.subarray(slot * layout.headDim, (slot + 1) * layout.headDim));
  }
  return (out.dtype === dtype ? out : out.to(dtype)) as unknown as Tensor<D>;
}

/**
 * Positions in sequences to indices in a paged cache (`abs_indices2indices_in_kvcache`): position t
 * becomes blockTable[b, t ÷ page] × page + t mod page. A position that is negative, or beyond what
 * the row of the table can name, becomes −1.
 *
 * @param absIndices i32 `[b, s_q, topk]`.
 * @param blockTable i32 `[b, maxBlocks]`.
 * @param page Tokens of a block.
 * @throws DTypeError, ShapeError or ArgumentError.
 */
export function absIndicesToIndicesInKvcache(
  absIndices: Tensor,
  blockTable: Tensor,
  page: number,
): Tensor<"i32"> {
  const operation = "absIndicesToIndicesInKvcache";
  const dims: Record<string, number> = {};
  expectTensor(operation, "absIndices", absIndices, ["i32"], ["b", "s_q", "topk"], dims);
  expectTensor(operation, "blockTable", blockTable, ["i32"], ["b", "maxBlocks"], dims);
  if (!Number.isSafeInteger(page) || page < 1) {
    throw new ArgumentError(operation, "page", `${page}`, "a positive integer");
  }
  const { b, maxBlocks } = dims as Record<"b" | "maxBlocks", number>;
  const positions = absIndices.contiguous().raw() as Int32Array;
  const table = blockTable.contiguous().raw() as Int32Array;
  const out = Tensor.empty(absIndices.shape, "i32", "indicesInKvcache");
  const indices = out.raw();
  const perRequest = positions.length / Math.max(1, b);
  for (let i = 0; i < positions.length; i++) {
    const t = positions[i] as number;
    const column = Math.floor(t / page);
    const row = Math.floor(i / perRequest) * maxBlocks;
    const known = t >= 0 && column < maxBlocks;
    const block = known ? (table[row + column] as number) : -1;
    const index = block * page + (t % page);
    indices[i] = block >= 0 && index <= 0x7fffffff ? index : -1;
  }
  return out;
}
