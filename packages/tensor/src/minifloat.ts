// One number to and from the bits of each small float format, exact to the last bit. A number means
// what it means to torch and to every kernel here: it is first a float32 (rounded to nearest even),
// and that float32 is then rounded to nearest even. Whole arrays are converted in convert.ts.

const scratchF32 = new Float32Array(1);
const scratchU32 = new Uint32Array(scratchF32.buffer);

/** The bits of a number as float32. */
export function f32Bits(x: number): number {
  scratchF32[0] = x;
  return scratchU32[0] as number;
}

function numberOfF32Bits(bits: number): number {
  scratchU32[0] = bits;
  return scratchF32[0] as number;
}

/**
 * Rounds the magnitude of a finite float32 to a format of fewer bits, to nearest even. Magnitudes
 * beyond the format's range come out as codes beyond its largest; the caller says what those mean.
 */
function roundMagnitude(bits: number, mantissaBits: number, bias: number): number {
  const magnitude = bits & 0x7fffffff;
  if (magnitude >= (128 - bias) << 23) {
    const shift = 23 - mantissaBits;
    const odd = (magnitude >>> shift) & 1;
    return (magnitude - ((127 - bias) << 23) + (1 << (shift - 1)) - 1 + odd) >>> shift;
  }
  // Subnormal in the target: count units of its smallest step.
  const exponent = magnitude >>> 23;
  const significand = exponent === 0 ? magnitude : (magnitude & 0x7fffff) | 0x800000;
  const shift = 151 - bias - mantissaBits - Math.max(exponent, 1);
  if (shift > 24) return 0;
  return (significand + (1 << (shift - 1)) - 1 + ((significand >>> shift) & 1)) >>> shift;
}

/** The value of a code of a format with an IEEE-like layout, infinities and NaN left out. */
function codeValue(code: number, mantissaBits: number, exponentBits: number, bias: number): number {
  const mantissa = code & ((1 << mantissaBits) - 1);
  const exponent = (code >>> mantissaBits) & ((1 << exponentBits) - 1);
  const sign = code >>> (mantissaBits + exponentBits) ? -1 : 1;
  const unit = 2 ** (Math.max(exponent, 1) - bias - mantissaBits);
  return sign * unit * (exponent === 0 ? mantissa : mantissa + (1 << mantissaBits));
}

const isNaNBits = (bits: number): boolean => (bits & 0x7fffffff) > 0x7f800000;

/** f16 bits; beyond 65504 (after rounding) infinity; every NaN becomes 0x7e00. */
export function f16FromNumber(x: number): number {
  const bits = f32Bits(x);
  if (isNaNBits(bits)) return 0x7e00;
  return ((bits >>> 16) & 0x8000) | Math.min(roundMagnitude(bits, 10, 15), 0x7c00);
}

/** The number of f16 bits. */
export function f16ToNumber(bits: number): number {
  if ((bits & 0x7c00) !== 0x7c00) return codeValue(bits, 10, 5, 15);
  if ((bits & 0x3ff) !== 0) return Number.NaN;
  return bits & 0x8000 ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
}

/** bf16 bits; every NaN becomes 0x7fc0. */
export function bf16FromNumber(x: number): number {
  const bits = f32Bits(x);
  if (isNaNBits(bits)) return 0x7fc0;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

/** The number of bf16 bits. */
export function bf16ToNumber(bits: number): number {
  return numberOfF32Bits(bits << 16);
}

/**
 * e4m3fn code. Largest finite value 448 (0x7e). What rounds beyond it becomes NaN (0x7f, with the
 * sign), as OCP's non-saturating mode, or ±448 with `saturate`, infinities included. NaN becomes
 * 0x7f. (torch has done both: 2.13 on a CPU saturates.)
 */
export function e4m3FromNumber(x: number, saturate = false): number {
  const bits = f32Bits(x);
  if (isNaNBits(bits)) return 0x7f;
  return ((bits >>> 24) & 0x80) | Math.min(roundMagnitude(bits, 3, 7), saturate ? 0x7e : 0x7f);
}

/** The number of an e4m3fn code; 0x7f and 0xff are NaN, there is no infinity. */
export function e4m3ToNumber(code: number): number {
  return (code & 0x7f) === 0x7f ? Number.NaN : codeValue(code, 3, 4, 7);
}

/**
 * e5m2 code. Largest finite value 57344 (0x7b). What rounds beyond it becomes infinity (0x7c), as
 * in torch, or ±57344 with `saturate`, infinities included. NaN becomes 0x7f.
 */
export function e5m2FromNumber(x: number, saturate = false): number {
  const bits = f32Bits(x);
  if (isNaNBits(bits)) return 0x7f;
  return ((bits >>> 24) & 0x80) | Math.min(roundMagnitude(bits, 2, 15), saturate ? 0x7b : 0x7c);
}

/** The number of an e5m2 code. */
export function e5m2ToNumber(code: number): number {
  if ((code & 0x7f) < 0x7c) return codeValue(code, 2, 5, 15);
  if ((code & 0x7f) > 0x7c) return Number.NaN;
  return code & 0x80 ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
}

/**
 * e2m1 code in the low four bits: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives, rounded to
 * nearest even; beyond 6 saturates. The format has no NaN, so a NaN gives undefined. DeepGEMM's own
 * FP4 cast breaks ties differently and belongs to its cast helper.
 */
export function e2m1FromNumber(x: number): number | undefined {
  const bits = f32Bits(x);
  if (isNaNBits(bits)) return undefined;
  return ((bits >>> 28) & 0x8) | Math.min(roundMagnitude(bits, 1, 1), 0x7);
}

/** The number of an e2m1 code (low four bits). */
export function e2m1ToNumber(code: number): number {
  return codeValue(code & 0xf, 1, 2, 1);
}

/**
 * How a number becomes a ue8m0 scale: only exact powers of two, or the next one up in magnitude.
 */
export type ScaleRounding = "exact" | "ceil";

/**
 * ue8m0 code of a scale, value 2^(code − 127). NaN becomes 0xff.
 *
 * With `exact`, the number must be one of 2^-127 … 2^127, else the result is undefined. With `ceil`
 * the magnitude is rounded up to a power of two and clamped to codes 1 … 254, so that zero becomes
 * 2^-126 and infinity 2^127 (DeepGEMM `ceil_to_ue8m0`).
 */
export function ue8m0FromNumber(x: number, rounding: ScaleRounding = "exact"): number | undefined {
  const bits = f32Bits(x);
  if (isNaNBits(bits)) return 0xff;
  const exponent = (bits >>> 23) & 0xff;
  const fraction = bits & 0x7fffff;
  if (rounding === "ceil") {
    return Math.min(Math.max(exponent + (fraction === 0 ? 0 : 1), 1), 254);
  }
  if (bits === 0x400000) return 0; // 2^-127, a subnormal float32.
  return bits >>> 31 || fraction !== 0 || exponent === 0 || exponent === 255 ? undefined : exponent;
}

/** The number of a ue8m0 code; 0xff is NaN. */
export function ue8m0ToNumber(code: number): number {
  return code === 0xff ? Number.NaN : 2 ** (code - 127);
}
