// How a cache stores its keys: plain bf16, f16 or f32, or one of FlashMLA's two FP8 byte layouts.
// Knows where the bytes of a key lie; encoding them is in quantize.ts.

import {
  type DType,
  dtypeBits,
  expectTensor,
  HostStorage,
  ShapeError,
  Tensor,
} from "@open-infra/tensor";
import { ArgumentError } from "./errors.ts";

/** The original's `V32_FP8Sparse` and `MODEL1_FP8Sparse`. */
export type Fp8KvLayoutName = "v32" | "model1";

/**
 * An FP8 layout. A key is `codes` e4m3 numbers, a scale for every `tile` of them, and 64 bf16
 * (RoPE) that are never quantised. V32 keeps all of it together: codes, f32 scales, bf16. MODEL1
 * keeps codes and bf16 in rows, and behind all rows of a page 8 bytes a key: seven biased exponents
 * and one unused.
 */
export interface Fp8KvLayout {
  readonly name: Fp8KvLayoutName;
  /** Channels of a key: `codes` + 64. */
  readonly headDim: number;
  readonly codes: number;
  /** Channels that share a scale. */
  readonly tile: number;
  /** Bytes of a key, scales included: the last dimension of a cache. */
  readonly bytesPerToken: number;
  /** Bytes from one key of a page to the next. */
  readonly rowBytes: number;
  /** Where the bf16 channels begin in a row. */
  readonly ropeOffset: number;
  /** A page's bytes are padded to a multiple of this. */
  readonly pageAlignment: number;
}

/** 656 bytes a key: 512 codes | 4 f32 scales | 64 bf16 (V3, V3.1, V3.2). */
export const v32Layout: Fp8KvLayout = {
  name: "v32",
  headDim: 576,
  codes: 512,
  tile: 128,
  bytesPerToken: 656,
  rowBytes: 656,
  ropeOffset: 528,
  pageAlignment: 1,
};

/** 584 bytes a key: rows of 448 codes | 64 bf16, then 8 bytes of exponents a key (MODEL1). */
export const model1Layout: Fp8KvLayout = {
  name: "model1",
  headDim: 512,
  codes: 448,
  tile: 64,
  bytesPerToken: 584,
  rowBytes: 576,
  ropeOffset: 448,
  pageAlignment: 576,
};

/** Both FP8 layouts by name. */
export const fp8KvLayouts: Readonly<Record<Fp8KvLayoutName, Fp8KvLayout>> = {
  v32: v32Layout,
  model1: model1Layout,
};

/** Channels of bf16 at the end of an FP8 key. */
export const ROPE_CHANNELS = 64;

/** How keys are stored; a plain dtype or an FP8 layout. */
export type KvFormat = "f32" | "bf16" | "f16" | Fp8KvLayoutName;

/** The numbers by which kernels know formats. */
export const formatCode: Readonly<Record<KvFormat, number>> = {
  f32: 0,
  bf16: 1,
  f16: 2,
  v32: 3,
  model1: 4,
};

/** Dtypes whose bytes an FP8 cache may be given as. */
export const byteTypes: readonly DType[] = ["u8", "e4m3fn"];
const plainTypes: readonly DType[] = ["bf16", "f16", "f32"];

/** Bytes of a page of `page` keys, padded. */
export function pageBytes(layout: Fp8KvLayout, page: number): number {
  const bytes = page * layout.bytesPerToken;
  return Math.ceil(bytes / layout.pageAlignment) * layout.pageAlignment;
}

/**
 * An empty FP8 cache: u8 `[numBlocks, page, 1, bytesPerToken]`, its pages padded as the layout asks
 * (so it may be strided). Its bytes are zero.
 */
export function emptyKCache(
  layout: Fp8KvLayoutName,
  numBlocks: number,
  page: number,
): Tensor<"u8"> {
  const form = fp8KvLayouts[layout];
  const stride = pageBytes(form, page);
  return new Tensor({
    dtype: "u8",
    shape: [numBlocks, page, 1, form.bytesPerToken],
    strides: [stride, form.bytesPerToken, form.bytesPerToken, 1],
    storage: HostStorage.allocate(numBlocks * stride),
    name: `kCache (${layout})`,
  });
}

/**
 * The FP8 layout of a cache of bytes `[numBlocks, page, 1, 656 | 584]`. Keys of a page must be
 * packed; pages may be padded.
 *
 * @throws DTypeError or ShapeError naming the argument.
 */
export function fp8LayoutOf(operation: string, argument: string, cache: Tensor): Fp8KvLayout {
  expectTensor(operation, argument, cache, byteTypes, ["numBlocks", "page", 1, "bytes"], {});
  const layout = [v32Layout, model1Layout].find((form) => form.bytesPerToken === cache.dim(3));
  if (layout === undefined) {
    throw new ShapeError(
      operation,
      argument,
      `[${cache.shape}]`,
      "656 (V32) or 584 (MODEL1) bytes in the last dimension",
    );
  }
  const { bytesPerToken } = layout;
  const [blockStride, tokenStride, , byteStride] = cache.strides as [
    number,
    number,
    number,
    number,
  ];
  const packed =
    byteStride === 1 &&
    (cache.dim(1) === 1 || tokenStride === bytesPerToken) &&
    (cache.dim(0) === 1 || blockStride >= cache.dim(1) * bytesPerToken);
  if (cache.size > 0 && !packed) {
    throw new ShapeError(
      operation,
      argument,
      `strides [${cache.strides}]`,
      `keys of ${bytesPerToken} bytes one after the other in pages that do not overlap`,
    );
  }
  return layout;
}

/**
 * The format of a cache whose keys must have `d` channels.
 *
 * @param isFp8 What the caller says it is; left out, the dtype decides.
 * @throws DTypeError, ShapeError or ArgumentError.
 */
export function formatOf(
  operation: string,
  argument: string,
  cache: Tensor,
  d: number,
  isFp8?: boolean,
): KvFormat {
  // Keys that are e4m3 without scales are no layout, but a dtype that is not taken.
  const bare = cache.dtype === "e4m3fn" && cache.shape.at(-1) === d && isFp8 !== true;
  const bytes = byteTypes.includes(cache.dtype) && !bare;
  if (isFp8 !== undefined && isFp8 !== bytes) {
    throw new ArgumentError(
      operation,
      "isFp8Kvcache",
      `${isFp8} with ${argument} of dtype ${cache.dtype}`,
      isFp8 ? "a cache of u8 or e4m3fn bytes" : "a cache of bf16, f16 or f32",
    );
  }
  if (bytes) {
    const layout = fp8LayoutOf(operation, argument, cache);
    if (layout.headDim === d) return layout.name;
    throw new ShapeError(
      operation,
      argument,
      `[${cache.shape}], keys of ${layout.headDim} channels`,
      `keys of ${d} channels, as q`,
    );
  }
  const pattern = ["numBlocks", "page", "h_k", "d"];
  expectTensor(operation, argument, cache, plainTypes, pattern, { d });
  return cache.dtype as "bf16" | "f16" | "f32";
}

/** Bytes of one key of one head that a kernel must read. */
export function bytesPerKey(format: KvFormat, d: number): number {
  if (format === "v32" || format === "model1") return fp8KvLayouts[format].bytesPerToken;
  return (d * dtypeBits[format]) / 8;
}

/** The element type that kernels compute with when a call's keys come in these formats. */
export function commonType(formats: readonly KvFormat[]): "f32" | "bf16" | "f16" {
  const plain = new Set(formats.map((f) => (f === "v32" || f === "model1" ? "bf16" : f)));
  return plain.size === 1 ? ([...plain][0] as "f32" | "bf16" | "f16") : "f32";
}
