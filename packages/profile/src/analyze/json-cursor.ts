// Walks JSON text as bytes, in a window that is refilled: nothing is decoded that nobody asked for.
// Running out of bytes throws `NEED_MORE`; the caller goes back to its last mark and refills. What
// is skipped is checked for structure (brackets, commas, quotes), not for the spelling of numbers
// and escapes. Raw control characters in strings and NaN and Infinity are let through, because
// profilers write them.

import { HASH_PRIME, HASH_SEED } from "./string-table.ts";
import type { TraceProblem } from "./trace-error.ts";

/** Thrown, never shown: the text goes on beyond the window. */
export const NEED_MORE: unique symbol = Symbol("need more bytes");

/** A problem at a place of the window; the reader turns it into a TraceError of the whole text. */
export class ScanProblem extends Error {
  readonly problem: TraceProblem;
  /** Index into the window. */
  readonly at: number;

  constructor(problem: TraceProblem, message: string, at: number) {
    super(message);
    this.problem = problem;
    this.at = at;
  }
}

/** 10^k, exact. */
const POW10 = Float64Array.from({ length: 23 }, (_, k) => Number(`1e${k}`));
const QUOTE = 34;
const COMMA = 44;
const MINUS = 45;
const COLON = 58;
const OPEN_ARRAY = 91;
const BACKSLASH = 92;
const CLOSE_ARRAY = 93;
const OPEN_OBJECT = 123;
const CLOSE_OBJECT = 125;

/** Bytes of words and numbers: letters, digits, `+`, `-`, `.`. */
const isWordByte = new Uint8Array(256);
for (const c of "+-.0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
  isWordByte[c.charCodeAt(0)] = 1;
}

const literals: ReadonlyMap<string, number> = new Map([
  ["true", Number.NaN],
  ["false", Number.NaN],
  ["null", Number.NaN],
  ["NaN", Number.NaN],
  ["nan", Number.NaN],
  ["-nan", Number.NaN],
  ["Infinity", Number.POSITIVE_INFINITY],
  ["-Infinity", Number.NEGATIVE_INFINITY],
  ["inf", Number.POSITIVE_INFINITY],
  ["-inf", Number.NEGATIVE_INFINITY],
]);

/** RFC 8259's grammar of a number. */
const jsonNumber = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;

/** A number as it is written: ±(whole + fraction / 10^scale), or only its text. */
export class NumberParts {
  negative = false;
  /** At most 2^53. */
  whole = 0;
  fraction = 0;
  scale = 0;
  /** Set where the parts cannot hold it: long, with an exponent. */
  text: string | undefined = undefined;

  /** The largest whole number not above it. */
  floor(): number {
    if (this.text !== undefined) return Math.floor(Number(this.text));
    return Math.floor(this.minus(0));
  }

  /**
   * Its distance from a whole `base`, without losing the fraction where the number is large:
   * 1740461679470692.123 has no float64, its distance to the first event of the trace has.
   */
  minus(base: number): number {
    if (this.text !== undefined) return minusText(this.text, base);
    const { negative, whole, scale } = this;
    const distance = (negative ? -whole : whole) - base;
    if (scale === 0) return distance;
    const power = POW10[scale] as number;
    const fraction = negative ? -this.fraction : this.fraction;
    const digits = distance * power + fraction;
    return Math.abs(digits) <= Number.MAX_SAFE_INTEGER
      ? digits / power
      : distance + fraction / power;
  }
}

/** The same for a number given as text. */
function minusText(text: string, base: number): number {
  const match = /^(-?\d+)(\.\d+)?$/.exec(text);
  if (match === null || !Number.isInteger(base)) return Number(text) - base;
  const [, whole = "0", fraction = ""] = match;
  const part = fraction === "" ? 0 : Number(`${whole.startsWith("-") ? "-" : ""}0${fraction}`);
  return Number(BigInt(whole) - BigInt(base)) + part;
}

/** A place in a window of JSON text, with what may be read from there on. */
export class JsonCursor {
  /** The window; `bytes[end]` is 0, which is no JSON outside of strings. */
  bytes: Uint8Array = new Uint8Array(1);
  end = 0;
  at = 0;

  /** The last string: its bytes between the quotes, their hash, and whether it has escapes. */
  stringStart = 0;
  stringEnd = 0;
  stringHash = 0;
  stringEscaped = false;

  /** The last number: ±(whole + fraction / 10^scale); or `numberText`, if set. */
  numberStart = 0;
  numberEnd = 0;
  numberNegative = false;
  numberWhole = 0;
  numberFraction = 0;
  numberScale = 0;
  numberText: string | undefined = undefined;

  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  readonly #stack: Uint8Array;
  readonly #maxDepth: number;

  constructor(maxDepth: number) {
    this.#maxDepth = maxDepth;
    this.#stack = new Uint8Array(maxDepth);
  }

  /** What stands at `at` cannot stand there: more bytes are needed, or the text is no JSON. */
  unexpected(expected: string, at: number = this.at): never {
    if (at >= this.end) throw NEED_MORE;
    const byte = this.bytes[at] as number;
    const got =
      byte > 32 && byte < 127
        ? `'${String.fromCharCode(byte)}'`
        : `byte 0x${byte.toString(16).padStart(2, "0")}`;
    throw new ScanProblem("syntax", `found ${got}; expected ${expected}`, at);
  }

  /** The text goes on beyond the window. */
  needMore(): never {
    throw NEED_MORE;
  }

  /** The text of `bytes[start..end)`. */
  text(start: number, end: number): string {
    return this.#decoder.decode(this.bytes.subarray(start, end));
  }

  /** Goes to the next byte that is no white space, and returns it. */
  space(): number {
    const bytes = this.bytes;
    let at = this.at;
    let byte = bytes[at] as number;
    while (byte === 32 || byte === 10 || byte === 13 || byte === 9) byte = bytes[++at] as number;
    this.at = at;
    return byte;
  }

  /** Goes past the string that starts here, and leaves where it is. */
  string(): void {
    if (this.bytes[this.at] !== QUOTE) this.unexpected("a string");
    const bytes = this.bytes;
    const start = this.at + 1;
    let at = start;
    let hash = HASH_SEED;
    let byte = bytes[at] as number;
    while (byte !== QUOTE && byte !== BACKSLASH && byte !== 0) {
      hash = Math.imul(hash ^ byte, HASH_PRIME);
      byte = bytes[++at] as number;
    }
    this.stringStart = start;
    this.stringHash = hash;
    this.stringEscaped = byte !== QUOTE;
    if (byte !== QUOTE) at = this.#stringRest(at);
    this.stringEnd = at;
    this.at = at + 1;
  }

  /** From the first byte of a string that is not plain to its closing quote. */
  #stringRest(from: number): number {
    const bytes = this.bytes;
    for (let at = from; ; at++) {
      const byte = bytes[at];
      if (byte === QUOTE) return at;
      if (byte === BACKSLASH) at++;
      if (at >= this.end) throw NEED_MORE;
    }
  }

  /** The text of the last string. */
  stringText(): string {
    return this.unescape(this.stringStart, this.stringEnd, this.stringEscaped);
  }

  /** The text of a string whose bytes between the quotes are `bytes[start..end)`. */
  unescape(start: number, end: number, escaped: boolean): string {
    const text = this.text(start, end);
    if (!escaped) return text;
    // A raw control character is let through here as everywhere; JSON.parse would refuse it.
    const tamed = text.replaceAll(
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
      /[\u0000-\u001f]/g,
      (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
    );
    try {
      return JSON.parse(`"${tamed}"`) as string;
    } catch {
      throw new ScanProblem("syntax", "a string has an escape JSON does not know", start);
    }
  }

  /** The same without the hash, for keys. */
  key(): void {
    const start = this.at + 1;
    this.skipString();
    this.stringStart = start;
    this.stringEnd = this.at - 1;
  }

  /** Goes past a string nobody reads; `stringEscaped` says how it was. */
  skipString(): void {
    const bytes = this.bytes;
    let at = this.at + 1;
    let byte = bytes[at] as number;
    while (byte !== QUOTE && byte !== BACKSLASH && byte !== 0) byte = bytes[++at] as number;
    this.stringEscaped = byte !== QUOTE;
    if (byte !== QUOTE) at = this.#stringRest(at);
    this.at = at + 1;
  }

  /** Goes past white space, a colon and white space; returns the first byte of the value. */
  colon(): number {
    if (this.space() !== COLON) this.unexpected("':'");
    this.at++;
    return this.space();
  }

  /**
   * After a value inside of an object: past a comma to the next key (true), or past the closing
   * brace (false).
   */
  nextKey(): boolean {
    const byte = this.space();
    this.at++;
    if (byte === COMMA) {
      if (this.space() !== QUOTE) this.unexpected("a key");
      return true;
    }
    if (byte !== CLOSE_OBJECT) this.unexpected("',' or '}'", this.at - 1);
    return false;
  }

  /** Past an opening brace to the first key (true), or past an empty object (false). */
  firstKey(): boolean {
    this.at++;
    const byte = this.space();
    if (byte === QUOTE) return true;
    if (byte !== CLOSE_OBJECT) this.unexpected("a key or '}'");
    this.at++;
    return false;
  }

  /** Goes past a value of any kind. */
  skip(): void {
    const byte = this.bytes[this.at] as number;
    if (byte === QUOTE) this.skipString();
    else if (byte === OPEN_OBJECT || byte === OPEN_ARRAY) this.#skipNested();
    else this.#skipWord();
  }

  /** Goes past a number or a literal. */
  #skipWord(): void {
    const bytes = this.bytes;
    const start = this.at;
    let at = start;
    while (isWordByte[bytes[at] as number] === 1) at++;
    const first = bytes[start] as number;
    const digit = first === MINUS ? (bytes[start + 1] as number) : first;
    if (digit < 48 || digit > 57) {
      if (at >= this.end) throw NEED_MORE;
      if (at === start || !literals.has(this.text(start, Math.min(at, start + 16)))) {
        this.unexpected("a value", start);
      }
    }
    this.at = at;
  }

  /** Goes past an array or object; a stack of bits, not of calls, so that depth costs a byte. */
  #skipNested(): void {
    const stack = this.#stack;
    let depth = 0;
    do {
      // Here stands a value.
      const byte = this.bytes[this.at] as number;
      if (byte === OPEN_OBJECT || byte === OPEN_ARRAY) {
        if (depth === this.#maxDepth) {
          const message = `arrays and objects lie more than ${depth} deep (limits.maxDepth)`;
          throw new ScanProblem("limit", message, this.at);
        }
        stack[depth++] = byte;
        if (this.#enter(byte)) continue;
        depth--;
      } else if (byte === QUOTE) this.skipString();
      else this.#skipWord();
      while (depth > 0 && !this.#nextIn(stack[depth - 1] as number)) depth--;
    } while (depth > 0);
  }

  /** Past an opening bracket to the first value inside (true), or past an empty pair (false). */
  #enter(open: number): boolean {
    if (open === OPEN_OBJECT) {
      if (!this.firstKey()) return false;
      this.skipString();
      this.colon();
      return true;
    }
    this.at++;
    if (this.space() !== CLOSE_ARRAY) return true;
    this.at++;
    return false;
  }

  /** After a value: to the next value in the same container (true), or past its end (false). */
  #nextIn(open: number): boolean {
    if (open === OPEN_OBJECT) {
      if (!this.nextKey()) return false;
      this.skipString();
      this.colon();
      return true;
    }
    const byte = this.space();
    this.at++;
    if (byte === COMMA) {
      this.space();
      return true;
    }
    if (byte !== CLOSE_ARRAY) this.unexpected("',' or ']'", this.at - 1);
    return false;
  }

  /**
   * Reads the number here, written as one or as a string of one, into the `number…` fields. False,
   * and past the value, if it is something else.
   */
  number(): boolean {
    const byte = this.bytes[this.at] as number;
    if (byte === MINUS || (byte >= 48 && byte <= 57)) return this.#plainNumber();
    if (byte === QUOTE) return this.#quotedNumber();
    const start = this.at;
    this.skip();
    const word = byte === 78 || byte === 73 || byte === 110 || byte === 105; // N I n i
    return word && this.#oddNumber(start, this.at);
  }

  #plainNumber(): boolean {
    const bytes = this.bytes;
    const start = this.at;
    const negative = bytes[start] === MINUS;
    let at = negative ? start + 1 : start;
    // Nine digits at a time fit in 31 bits, where arithmetic is fastest.
    let high = 0;
    let digit = (bytes[at] as number) - 48;
    const highEnd = at + 9;
    while (digit >= 0 && digit <= 9 && at < highEnd) {
      high = (high * 10 + digit) | 0;
      digit = (bytes[++at] as number) - 48;
    }
    let whole = high;
    if (digit >= 0 && digit <= 9) {
      let low = 0;
      const lowEnd = at + 9;
      while (digit >= 0 && digit <= 9 && at < lowEnd) {
        low = (low * 10 + digit) | 0;
        digit = (bytes[++at] as number) - 48;
      }
      whole = high * (POW10[at - lowEnd + 9] as number) + low;
    }
    let fraction = 0;
    let scale = 0;
    if (digit === -2) {
      const fractionStart = ++at;
      digit = (bytes[at] as number) - 48;
      while (digit >= 0 && digit <= 9 && at < fractionStart + 9) {
        fraction = (fraction * 10 + digit) | 0;
        digit = (bytes[++at] as number) - 48;
      }
      scale = at - fractionStart;
      if (scale === 0) return this.#oddNumber(start, this.#wordEnd(at));
    }
    // More digits, an exponent, "-Infinity": rare enough for the general way.
    if (
      isWordByte[bytes[at] as number] === 1 ||
      whole > Number.MAX_SAFE_INTEGER ||
      (negative && at === start + 1)
    ) {
      return this.#oddNumber(start, this.#wordEnd(at));
    }
    this.numberStart = start;
    this.numberEnd = at;
    this.numberNegative = negative;
    this.numberWhole = whole;
    this.numberFraction = fraction;
    this.numberScale = scale;
    this.numberText = undefined;
    this.at = at;
    return true;
  }

  #wordEnd(from: number): number {
    let at = from;
    while (isWordByte[this.bytes[at] as number] === 1) at++;
    return at;
  }

  /** A number only its text tells: long, with an exponent, NaN, Infinity. False for other words. */
  #oddNumber(start: number, end: number): boolean {
    if (end >= this.end) throw NEED_MORE;
    this.at = end;
    this.numberStart = start;
    this.numberEnd = end;
    const text = this.text(start, end);
    this.numberText = text;
    if (jsonNumber.test(text)) return true;
    if (!literals.has(text)) this.unexpected("a number", start);
    return text !== "true" && text !== "false" && text !== "null";
  }

  #quotedNumber(): boolean {
    this.string();
    const { stringStart, stringEnd, at } = this;
    if (this.stringEscaped) {
      this.numberText = this.stringText();
      return jsonNumber.test(this.numberText);
    }
    const first = this.bytes[stringStart] as number;
    if (first !== MINUS && (first < 48 || first > 57)) return false;
    this.at = stringStart;
    const whole = jsonNumber.test(this.text(stringStart, stringEnd));
    if (whole) this.#plainNumber();
    this.at = at;
    return whole;
  }

  /** Copies the last number. */
  takeNumber(into: NumberParts): void {
    into.negative = this.numberNegative;
    into.whole = this.numberWhole;
    into.fraction = this.numberFraction;
    into.scale = this.numberScale;
    into.text = this.numberText;
  }

  /** Without reading a number that is long but plain. */
  numberIsFinite(): boolean {
    return this.numberText === undefined || Number.isFinite(this.numberValue());
  }

  /** The last number as a float64, rounded once. */
  numberValue(): number {
    const text = this.numberText;
    if (text !== undefined) return literals.get(text) ?? Number(text);
    const magnitude = this.#magnitude();
    return this.numberNegative ? -magnitude : magnitude;
  }

  #magnitude(): number {
    if (this.numberScale === 0) return this.numberWhole;
    const power = POW10[this.numberScale] as number;
    const digits = this.numberWhole * power + this.numberFraction;
    // Both exact: one division, one rounding. Else JavaScript's own reading of the text.
    if (digits <= Number.MAX_SAFE_INTEGER) return digits / power;
    return Math.abs(Number(this.text(this.numberStart, this.numberEnd)));
  }
}
