// The element types of the project: names, widths and the typed array that holds their bits.
// Conversions between them live in convert.ts.

/**
 * Element types. `e4m3fn` (finite, NaN 0x7f/0xff, max 448), `e5m2` (IEEE-like, max 57344), `ue8m0`
 * (power-of-two scale, value 2^(code-127), 0xff NaN) and `e2m1` (FP4, two per byte, even element in
 * the low nibble) follow the OCP micro-scaling formats.
 */
export type DType =
  | "f64"
  | "f32"
  | "f16"
  | "bf16"
  | "e4m3fn"
  | "e5m2"
  | "ue8m0"
  | "e2m1"
  | "i32"
  | "i64"
  | "u8";

/** Bits per element. `e2m1` is the only type smaller than a byte. */
export const dtypeBits: Readonly<Record<DType, number>> = {
  f64: 64,
  f32: 32,
  f16: 16,
  bf16: 16,
  e4m3fn: 8,
  e5m2: 8,
  ue8m0: 8,
  e2m1: 4,
  i32: 32,
  i64: 64,
  u8: 8,
};

export const dtypes: readonly DType[] = Object.keys(dtypeBits) as DType[];

/** Bytes that `count` elements of `dtype` take when packed densely. */
export function byteSize(dtype: DType, count: number): number {
  return Math.ceil((dtypeBits[dtype] * count) / 8);
}

/**
 * The typed array whose elements are the raw bits (or values) of a dtype; `e2m1` shows its bytes.
 */
export interface RawArrays {
  f64: Float64Array;
  f32: Float32Array;
  f16: Uint16Array;
  bf16: Uint16Array;
  e4m3fn: Uint8Array;
  e5m2: Uint8Array;
  ue8m0: Uint8Array;
  e2m1: Uint8Array;
  i32: Int32Array;
  i64: BigInt64Array;
  u8: Uint8Array;
}

export type RawArray = RawArrays[DType];

const constructors = {
  f64: Float64Array,
  f32: Float32Array,
  f16: Uint16Array,
  bf16: Uint16Array,
  e4m3fn: Uint8Array,
  e5m2: Uint8Array,
  ue8m0: Uint8Array,
  e2m1: Uint8Array,
  i32: Int32Array,
  i64: BigInt64Array,
  u8: Uint8Array,
} as const;

/**
 * A raw view of `byteLength` bytes at `byteOffset`; the offset must be a multiple of the element
 * size.
 */
export function rawView<D extends DType>(
  dtype: D,
  buffer: ArrayBufferLike,
  byteOffset: number,
  byteLength: number,
): RawArrays[D] {
  const Raw = constructors[dtype];
  return new Raw(
    buffer as ArrayBuffer,
    byteOffset,
    byteLength / Raw.BYTES_PER_ELEMENT,
  ) as RawArrays[D];
}

/** Whether `raw` is of the array type that holds `dtype`. */
export function isRawOf(dtype: DType, raw: RawArray): boolean {
  return raw instanceof constructors[dtype];
}
