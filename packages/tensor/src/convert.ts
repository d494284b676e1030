// Whole arrays to and from the bits of each dtype. It agrees with the one-number functions of
// minifloat.ts to the bit (the tests hold it to that over every code) and is fast enough for a
// checkpoint: 8-bit codes come from tables, f16 from the engine's own Float16Array.

import { type DType, isRawOf, type RawArray } from "./dtype.ts";
import { ConversionError, DTypeError, ShapeError } from "./errors.ts";
import {
  e2m1FromNumber,
  e2m1ToNumber,
  e4m3FromNumber,
  e4m3ToNumber,
  e5m2FromNumber,
  e5m2ToNumber,
  type ScaleRounding,
  ue8m0FromNumber,
  ue8m0ToNumber,
} from "./minifloat.ts";

/** How values that a dtype cannot hold are encoded. */
export interface EncodeOptions {
  /**
   * For `e4m3fn` and `e5m2`: values beyond the largest finite one become it, infinities too.
   * Otherwise they become NaN (`e4m3fn`) or infinity (`e5m2`). @default false
   */
  readonly saturate?: boolean;
  /**
   * For `ue8m0`: whether other numbers than powers of two are errors or rounded up.
   * @default "exact"
   */
  readonly scaleRounding?: ScaleRounding;
}

/** Elements converted through a small buffer at a time, where no direct path exists. */
const chunkElements = 4096;

type Bits16 = Uint16Array;
type Bits8 = Uint8Array;

/** Elements of the raw array that hold `count` elements of `dtype`. */
function rawLength(dtype: DType, count: number): number {
  return dtype === "e2m1" ? Math.ceil(count / 2) : count;
}

function check(where: string, dtype: DType, raw: RawArray, count: number): void {
  if (!isRawOf(dtype, raw)) {
    throw new DTypeError(where, "raw array", raw.constructor.name, `the raw array of ${dtype}`);
  }
  if (raw.length !== rawLength(dtype, count)) {
    throw new ShapeError(
      where,
      "raw array",
      `${raw.length} elements long`,
      `${rawLength(dtype, count)} for ${count} values of ${dtype}`,
    );
  }
}

const decoders = {
  e4m3fn: e4m3ToNumber,
  e5m2: e5m2ToNumber,
  ue8m0: ue8m0ToNumber,
  e2m1: e2m1ToNumber,
} as const;

const decodeTables = new Map<keyof typeof decoders, Float32Array>();

/** The values of all 256 codes (16 for `e2m1`), computed on first use. */
function decodeTable(dtype: keyof typeof decoders): Float32Array {
  let table = decodeTables.get(dtype);
  if (table === undefined) {
    const codes = dtype === "e2m1" ? 16 : 256;
    table = Float32Array.from({ length: codes }, (_, code) => decoders[dtype](code));
    decodeTables.set(dtype, table);
  }
  return table;
}

/**
 * Decodes raw elements to numbers, `out.length` of them. Exact, except where an f64, a 32-bit
 * or a 64-bit integer does not fit the float asked for, which is then rounded to nearest even.
 *
 * @throws DTypeError, ShapeError if `raw` is not the raw array of that many `dtype` elements.
 */
export function decodeInto(dtype: DType, raw: RawArray, out: Float32Array | Float64Array): void {
  check("decodeInto", dtype, raw, out.length);
  switch (dtype) {
    case "f64":
    case "f32":
    case "i32":
    case "u8":
      out.set(raw as Float64Array | Float32Array | Int32Array | Uint8Array);
      return;
    case "f16":
      out.set(new Float16Array(raw.buffer as ArrayBuffer, raw.byteOffset, raw.length));
      return;
    case "bf16":
      decodeBf16(raw as Bits16, out);
      return;
    case "i64":
      for (let i = 0; i < out.length; i++) out[i] = Number(raw[i]);
      return;
    case "e2m1":
      decodeE2m1(raw as Bits8, out);
      return;
    default: {
      const table = decodeTable(dtype);
      const codes = raw as Bits8;
      for (let i = 0; i < codes.length; i++) out[i] = table[codes[i] as number] as number;
    }
  }
}

function decodeBf16(raw: Bits16, out: Float32Array | Float64Array): void {
  if (out instanceof Float32Array) {
    const bits = new Uint32Array(out.buffer, out.byteOffset, out.length);
    for (let i = 0; i < raw.length; i++) bits[i] = (raw[i] as number) << 16;
    return;
  }
  const chunk = new Float32Array(Math.min(chunkElements, raw.length));
  for (let at = 0; at < raw.length; at += chunk.length) {
    const count = Math.min(chunk.length, raw.length - at);
    decodeBf16(raw.subarray(at, at + count), chunk.subarray(0, count));
    out.set(chunk.subarray(0, count), at);
  }
}

function decodeE2m1(raw: Bits8, out: Float32Array | Float64Array): void {
  const table = decodeTable("e2m1");
  for (let i = 0; i < out.length; i++) {
    const byte = raw[i >>> 1] as number;
    out[i] = table[i & 1 ? byte >>> 4 : byte & 0xf] as number;
  }
}

/**
 * Encodes numbers as raw elements. `f64` is the number itself. Other floats: number → float32 →
 * dtype, each rounded to nearest even, as torch casts a float32 tensor. Integers: truncated toward
 * zero, as a C cast does, but a value out of range is an error. `e2m1` fills the low nibble of a
 * byte first; the high nibble of an odd last byte is zero.
 *
 * @throws ConversionError naming the index of a value that `dtype` cannot hold: NaN, infinity or
 *   beyond its range for integers, NaN for `e2m1`, no power of two for `ue8m0`.
 * @throws DTypeError, ShapeError if `raw` is not the raw array for that many `dtype` elements.
 */
export function encodeInto(
  dtype: DType,
  values: ArrayLike<number>,
  raw: RawArray,
  options: EncodeOptions = {},
): void {
  check("encodeInto", dtype, raw, values.length);
  switch (dtype) {
    case "f64":
    case "f32":
      (raw as Float64Array | Float32Array).set(values);
      return;
    case "i32":
    case "u8":
    case "i64":
      encodeIntegers(dtype, values, raw);
      return;
    default:
      forEachF32(values, (floats, at) => encodeFloats(dtype, floats, raw, at, options));
  }
}

/**
 * Calls `visit` with all values as float32, at once if they are, else in chunks; chunks start even.
 */
function forEachF32(
  values: ArrayLike<number>,
  visit: (floats: Float32Array, at: number) => void,
): void {
  if (values instanceof Float32Array) {
    visit(values, 0);
    return;
  }
  const chunk = new Float32Array(Math.min(chunkElements, values.length));
  for (let at = 0; at < values.length; at += chunkElements) {
    const count = Math.min(chunkElements, values.length - at);
    for (let i = 0; i < count; i++) chunk[i] = values[at + i] as number;
    visit(chunk.subarray(0, count), at);
  }
}

type SmallFloat = "f16" | "bf16" | "e4m3fn" | "e5m2" | "ue8m0" | "e2m1";

function encodeFloats(
  dtype: SmallFloat,
  floats: Float32Array,
  raw: RawArray,
  at: number,
  options: EncodeOptions,
): void {
  const bits = new Uint32Array(floats.buffer, floats.byteOffset, floats.length);
  switch (dtype) {
    case "f16":
      new Float16Array(raw.buffer as ArrayBuffer, raw.byteOffset, raw.length).set(floats, at);
      canonicalNaNs(floats, raw as Bits16, at);
      return;
    case "bf16":
      encodeBf16(bits, raw as Bits16, at);
      return;
    case "e4m3fn":
    case "e5m2":
      encodeByTable(encodeTable(dtype, options.saturate ?? false), bits, raw as Bits8, at);
      return;
    case "ue8m0":
      encodeUe8m0(floats, raw as Bits8, at, options.scaleRounding ?? "exact");
      return;
    case "e2m1":
      encodeE2m1(floats, raw as Bits8, at);
      return;
    default:
      dtype satisfies never;
  }
}

/** Float16Array may keep any payload of a NaN; ours is always the same one. */
function canonicalNaNs(floats: Float32Array, raw: Bits16, at: number): void {
  for (let i = 0; i < floats.length; i++) {
    if (Number.isNaN(floats[i])) raw[at + i] = 0x7e00;
  }
}

function encodeBf16(bits: Uint32Array, raw: Bits16, at: number): void {
  for (let i = 0; i < bits.length; i++) {
    const b = bits[i] as number;
    raw[at + i] = (b & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : (b + 0x7fff + ((b >>> 16) & 1)) >>> 16;
  }
}

const encodeTables = new Map<string, Uint8Array>();

/**
 * The 8-bit code of every float32 that is its own upper half. A float32 rounded to those 16 bits
 * "to odd" (lowest bit set if anything was cut off) lies on the same side of every midpoint of a
 * format with at most 5 bits of mantissa, so this table rounds all float32 correctly.
 */
function encodeTable(dtype: "e4m3fn" | "e5m2", saturate: boolean): Uint8Array {
  const key = `${dtype} ${saturate}`;
  let table = encodeTables.get(key);
  if (table === undefined) {
    const encode = dtype === "e4m3fn" ? e4m3FromNumber : e5m2FromNumber;
    const halves = new Float32Array(Uint32Array.from({ length: 65536 }, (_, i) => i << 16).buffer);
    table = Uint8Array.from(halves, (x) => encode(x, saturate));
    encodeTables.set(key, table);
  }
  return table;
}

function encodeByTable(table: Uint8Array, bits: Uint32Array, raw: Bits8, at: number): void {
  for (let i = 0; i < bits.length; i++) {
    const b = bits[i] as number;
    raw[at + i] = table[(b >>> 16) | ((b & 0xffff) === 0 ? 0 : 1)] as number;
  }
}

function encodeUe8m0(floats: Float32Array, raw: Bits8, at: number, rounding: ScaleRounding): void {
  for (let i = 0; i < floats.length; i++) {
    const code = ue8m0FromNumber(floats[i] as number, rounding);
    if (code === undefined) {
      throw new ConversionError(
        "ue8m0",
        at + i,
        floats[i] as number,
        "a power of two, 2^-127 to 2^127",
      );
    }
    raw[at + i] = code;
  }
}

function encodeE2m1(floats: Float32Array, raw: Bits8, at: number): void {
  for (let i = 0; i < floats.length; i++) {
    const code = e2m1FromNumber(floats[i] as number);
    if (code === undefined) throw new ConversionError("e2m1", at + i, Number.NaN, "a number");
    const byte = (at + i) >>> 1;
    raw[byte] = (at + i) & 1 ? (raw[byte] as number) | (code << 4) : code;
  }
}

const integerRanges = {
  u8: { low: 0, high: 255, allowed: "0 to 255" },
  i32: { low: -(2 ** 31), high: 2 ** 31 - 1, allowed: "-2^31 to 2^31 - 1" },
  // As doubles: 2^63 itself is out, the largest double below it is in.
  i64: { low: -(2 ** 63), high: 2 ** 63 - 1024, allowed: "-2^63 to 2^63 - 1" },
} as const;

function encodeIntegers(
  dtype: "i32" | "u8" | "i64",
  values: ArrayLike<number>,
  raw: RawArray,
): void {
  const { low, high, allowed } = integerRanges[dtype];
  for (let i = 0; i < values.length; i++) {
    const x = Math.trunc(values[i] as number);
    if (!(x >= low && x <= high)) {
      throw new ConversionError(dtype, i, values[i] as number, allowed);
    }
    if (dtype === "i64") raw[i] = BigInt(x);
    else raw[i] = x;
  }
}

/**
 * Converts raw elements of one dtype to another, `count` of them, without an array of numbers
 * between. Equal dtypes are copied bit by bit, NaN payloads included.
 */
export function convertInto(
  from: DType,
  source: RawArray,
  to: DType,
  target: RawArray,
  count: number,
  options: EncodeOptions = {},
): void {
  check("convertInto source", from, source, count);
  check("convertInto target", to, target, count);
  if (from === to) {
    (target as Uint8Array).set(source as Uint8Array);
    return;
  }
  // Through double what float32 cannot hold; the other floats are float32 anyway.
  const wide = from === "f64" || from === "i32" || from === "i64";
  const Chunk = wide ? Float64Array : Float32Array;
  const chunk = new Chunk(Math.min(chunkElements, count));
  const part = (dtype: DType, raw: RawArray, at: number, end: number): RawArray =>
    raw.subarray(rawLength(dtype, at), rawLength(dtype, end));
  for (let at = 0; at < count; at += chunkElements) {
    const end = Math.min(at + chunkElements, count);
    const numbers = chunk.subarray(0, end - at);
    decodeInto(from, part(from, source, at, end), numbers);
    try {
      encodeInto(to, numbers, part(to, target, at, end), options);
    } catch (error) {
      throw error instanceof ConversionError ? error.at(at + error.index) : error;
    }
  }
}
