// The matrices that we and every peer multiply: made from indices alone, so that processes which
// share no memory hold the same numbers.

/** What operands are made of, for us and for a peer. */
export type PeerDType = "bf16" | "f32";

/** D = A · Bᵀ with A [m,k] and B [n,k], both row-major. */
export interface Problem {
  readonly dtype: PeerDType;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  /** Matrices B that calls use in turn, so that weights come from memory. */
  readonly copies: number;
}

/** Elements of the pattern; no multiple of common sizes, so that rows and copies differ. */
const PERIOD = (1 << 20) - 3;

/** bf16 bits of magnitude 1/2 to 3/4, either sign; no byte of them is a NaN of e4m3. */
function patternOf(length: number, seed: number): Uint16Array {
  const out = new Uint16Array(length);
  let state = seed;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    out[i] = ((state >>> 16) & 0x8000) | 0x3f00 | ((state >>> 8) & 0x3f);
  }
  return out;
}

/** Repeats the first `period` elements over the rest. */
function spread(words: Uint16Array | Float32Array, period: number): void {
  for (let at = period; at < words.length; at += period) {
    words.copyWithin(at, 0, Math.min(period, words.length - at));
  }
}

/** Fills bf16 bits or float32 numbers of the same values; seed 1 is A, 2 is B. */
export function fillPattern(words: Uint16Array | Float32Array, seed: number): void {
  const period = Math.min(PERIOD, words.length);
  const bits = patternOf(period, seed);
  if (words instanceof Uint16Array) words.set(bits);
  else {
    const wide = new Float32Array(Uint32Array.from(bits, (b) => b << 16).buffer);
    words.set(wide);
  }
  spread(words, period);
}

/** Elements of a result that are compared: the first and the last row's beginnings. */
export const CHECKED_COLUMNS = 64;

/** bf16 bits or floats of D → the numbers to compare. */
export function checkedValues(d: Uint16Array | Float32Array, { m, n }: Problem): number[] {
  const columns = Math.min(CHECKED_COLUMNS, n);
  const wide = (x: number): number => {
    if (d instanceof Float32Array) return x;
    return new Float32Array(Uint32Array.of(x << 16).buffer)[0] as number;
  };
  return [0, m - 1].flatMap((row) =>
    Array.from({ length: columns }, (_, j) => wide(d[row * n + j] as number)),
  );
}
