// Records of the sort benchmark, 100 bytes with a key of 10: the classic binary form, which
// Hadoop's TeraGen writes too, and the ASCII form (`gensort -a`). Record n is a function of
// n, so that partitions are generated side by side. Skewed keys are ours: in the manner of
// `gensort -s`, not its bytes.

import { InputError } from "@open-infra/errors";
import { Lcg128, stateAfter } from "./lcg128.ts";

export const recordBytes = 100;
export const keyBytes = 10;

/** `ascii`: printable keys, each record a line ending in CR LF. */
export type RecordFormat = "binary" | "ascii";

export interface GeneratorOptions {
  readonly format: RecordFormat;
  /** Number of the first record. @default 0 */
  readonly first?: number;
  /** Three of four keys share up to 48 leading bits with few hot keys. @default false */
  readonly skewed?: boolean;
}

const hexDigits = Uint8Array.from("0123456789ABCDEF", (digit) => digit.charCodeAt(0));
const numberDigits = 32;

/** Makes consecutive records. */
export class RecordGenerator {
  readonly #random: Lcg128;
  readonly #ascii: boolean;
  readonly #skewed: boolean;
  /** The number of the next record as 32 hexadecimal digits, each 0 to 15. */
  readonly #digits: Uint8Array = new Uint8Array(numberDigits);
  #number: number;

  constructor({ format, first = 0, skewed = false }: GeneratorOptions) {
    if (!Number.isSafeInteger(first) || first < 0) {
      throw new InputError("first record", `${first}`, "an integer of at least 0");
    }
    this.#random = new Lcg128(BigInt(first));
    this.#ascii = format === "ascii";
    this.#skewed = skewed;
    this.#number = first;
    const digits = first.toString(16).padStart(numberDigits, "0");
    for (let i = 0; i < numberDigits; i++) this.#digits[i] = Number.parseInt(digits[i] ?? "0", 16);
  }

  /** Fills a buffer with as many records as it holds. */
  fill(target: Uint8Array): void {
    const records = target.length / recordBytes;
    if (!Number.isInteger(records)) {
      throw new InputError("buffer", `${target.length} bytes`, `a multiple of ${recordBytes}`);
    }
    for (let i = 0; i < records; i++) {
      const at = i * recordBytes;
      this.#random.next();
      if (this.#ascii) this.#writeAscii(target, at);
      else this.#writeBinary(target, at);
      if (this.#skewed) skewKey(target, at, this.#random, this.#number, this.#ascii);
      this.#advance();
    }
  }

  #advance(): void {
    this.#number++;
    const digits = this.#digits;
    for (let i = numberDigits - 1; i >= 0; i--) {
      const digit = digits[i] as number;
      if (digit < 15) {
        digits[i] = digit + 1;
        return;
      }
      digits[i] = 0;
    }
  }

  #writeNumber(target: Uint8Array, at: number): void {
    const digits = this.#digits;
    for (let i = 0; i < numberDigits; i++) {
      target[at + i] = hexDigits[digits[i] as number] as number;
    }
  }

  /** Key of the top 80 bits, 00 11, number, 88 99 AA BB, low 48 bits' digits by fours, CC ... */
  #writeBinary(target: Uint8Array, at: number): void {
    const { x0, x1, x2, x3, x4, x5 } = this.#random;
    target[at] = x5;
    write24(target, at + 1, x4);
    write24(target, at + 4, x3);
    write24(target, at + 7, x2);
    target[at + 10] = 0x00;
    target[at + 11] = 0x11;
    this.#writeNumber(target, at + 12);
    target[at + 44] = 0x88;
    target[at + 45] = 0x99;
    target[at + 46] = 0xaa;
    target[at + 47] = 0xbb;
    writeFiller(target, at + 48, x1, 20);
    writeFiller(target, at + 72, x0, 20);
    target[at + 96] = 0xcc;
    target[at + 97] = 0xdd;
    target[at + 98] = 0xee;
    target[at + 99] = 0xff;
  }

  /** Key of ten digits to base 95, number, the low 52 bits' digits by fours, CR LF. */
  #writeAscii(target: Uint8Array, at: number): void {
    const { x0, x1, x2, x3, x4, x5 } = this.#random;
    writeBase95(target, at, x5 * 2 ** 24 + x4, x3 * 256 + (x2 >> 16), 8);
    writeBase95(target, at + 8, (x2 & 0xffff) * 2 ** 16 + (x1 >> 8), (x1 & 255) * 2 ** 24 + x0, 2);
    target[at + 10] = 0x20;
    target[at + 11] = 0x20;
    this.#writeNumber(target, at + 12);
    target[at + 44] = 0x20;
    target[at + 45] = 0x20;
    writeFiller(target, at + 46, x2, 0);
    writeFiller(target, at + 50, x1, 20);
    writeFiller(target, at + 74, x0, 20);
    target[at + 98] = 0x0d;
    target[at + 99] = 0x0a;
  }
}

function write24(target: Uint8Array, at: number, value: number): void {
  target[at] = value >> 16;
  target[at + 1] = value >> 8;
  target[at + 2] = value;
}

/** Each hexadecimal digit of a limb, from bits `top` to `top + 3` down, four times. */
function writeFiller(target: Uint8Array, at: number, limb: number, top: number): void {
  let to = at;
  for (let shift = top; shift >= 0; shift -= 4) {
    const digit = hexDigits[(limb >> shift) & 15] as number;
    target[to] = digit;
    target[to + 1] = digit;
    target[to + 2] = digit;
    target[to + 3] = digit;
    to += 4;
  }
}

/** The lowest digits to base 95 of a 64-bit number given by halves, lowest first, from ' '. */
function writeBase95(
  target: Uint8Array,
  at: number,
  high: number,
  low: number,
  count: number,
): void {
  let [h, l] = [high, low];
  for (let i = 0; i < count; i++) {
    const quotient = Math.floor(h / 95);
    const rest = (h - quotient * 95) * 2 ** 32 + l;
    h = quotient;
    l = Math.floor(rest / 95);
    target[at + i] = 0x20 + (rest - l * 95);
  }
}

const skewBits = 48;
const hotKeys = 54;
let hotBinary: Uint8Array | undefined;

/** Six bytes for each power of two that a record's number may reach. */
function hotBytes(): Uint8Array {
  if (hotBinary === undefined) {
    hotBinary = new Uint8Array((hotKeys * skewBits) / 8);
    for (let i = 0; i < hotKeys; i++) {
      const state = stateAfter((1n << 64n) + BigInt(i));
      for (let j = 0; j < 6; j++) {
        hotBinary[6 * i + j] = Number((state >> BigInt(120 - 8 * j)) & 255n);
      }
    }
  }
  return hotBinary;
}

/** Replaces up to 48 leading bits, in ASCII whole bytes, by those of a hot key. */
function skewKey(
  target: Uint8Array,
  at: number,
  random: Lcg128,
  number: number,
  ascii: boolean,
): void {
  let bits = (random.x1 >> 8) & 63;
  if (bits > skewBits) return;
  const hot = hotBytes();
  const from = 6 * Math.floor(Math.log2(number + 1));
  let i = 0;
  for (; bits >= 8; bits -= 8, i++) {
    const byte = hot[from + i] as number;
    target[at + i] = ascii ? 0x20 + (byte % 95) : byte;
  }
  if (ascii || bits === 0) return;
  const keep = 0xff >> bits;
  target[at + i] = ((hot[from + i] as number) & ~keep) | ((target[at + i] as number) & keep);
}
