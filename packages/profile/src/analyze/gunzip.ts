// Decompresses gzip (RFC 1952), member after member, in pieces of any size. The platform's own
// DecompressionStream refuses a second member, which parallel compressors and appended logs have.

import { crc32 } from "./crc32.ts";
import { Inflate, InflateProblem } from "./inflate.ts";

/** A gzip file is damaged or ends early. */
export class GzipProblem extends Error {
  /** Compressed bytes before the problem. */
  readonly byteOffset: number;

  constructor(message: string, byteOffset: number) {
    super(message);
    this.byteOffset = byteOffset;
  }
}

const FLAG_HEADER_CRC = 2;
const FLAG_EXTRA = 4;
const FLAG_NAME = 8;
const FLAG_COMMENT = 16;
/** A header with a name longer than this is no gzip header. */
const MAX_HEADER_BYTES = 1 << 17;

/** Calls back with decompressed bytes, which are good until the call returns. */
export class Gunzip {
  readonly #onBytes: (bytes: Uint8Array) => void;
  /** Compressed bytes not used yet. */
  #input: Uint8Array = new Uint8Array(0);
  /** Compressed bytes before `#input`. */
  #consumed = 0;
  #state: "header" | "data" | "trailer" = "header";
  #members = 0;
  #inflate: Inflate | undefined;
  #crc = 0;
  #size = 0;

  constructor(onBytes: (bytes: Uint8Array) => void) {
    this.#onBytes = onBytes;
  }

  /** @throws GzipProblem */
  push(piece: Uint8Array): void {
    if (this.#input.length === 0) this.#input = piece;
    else {
      const joined = new Uint8Array(this.#input.length + piece.length);
      joined.set(this.#input);
      joined.set(piece, this.#input.length);
      this.#input = joined;
    }
    this.#run(false);
    // The caller may reuse the piece's memory.
    if (this.#input.length > 0) this.#input = this.#input.slice();
  }

  /** No more bytes come. @throws GzipProblem if the last member is not whole */
  finish(): void {
    this.#run(true);
    if (this.#state === "header" && this.#members > 0 && this.#input.length === 0) return;
    throw new GzipProblem("the gzip data ends early", this.#consumed + this.#input.length);
  }

  #run(final: boolean): void {
    for (;;) {
      if (this.#state === "header" && !this.#header()) return;
      if (this.#state === "data" && !this.#data(final)) return;
      if (this.#state === "trailer" && !this.#trailer()) return;
    }
  }

  #take(bytes: number): void {
    this.#input = this.#input.subarray(bytes);
    this.#consumed += bytes;
  }

  /** False until the whole header is here. */
  #header(): boolean {
    if (this.#members > 0) this.#skipPadding();
    const length = this.#headerLength();
    if (length > this.#input.length) {
      if (length > MAX_HEADER_BYTES) throw this.#problem("a gzip header has no end");
      return false;
    }
    this.#take(length);
    this.#inflate = new Inflate((bytes) => {
      this.#crc = crc32(this.#crc, bytes);
      this.#size = (this.#size + bytes.length) >>> 0;
      this.#onBytes(bytes);
    });
    this.#crc = 0;
    this.#size = 0;
    this.#state = "data";
    return true;
  }

  /** Zeros after a member are padding, of tapes and disk blocks. */
  #skipPadding(): void {
    let zeros = 0;
    while (this.#input[zeros] === 0) zeros++;
    this.#take(zeros);
  }

  /** Bytes of the header at the front, or one more than there are if it goes on. */
  #headerLength(): number {
    const input = this.#input;
    const more = input.length + 1;
    const magic = [0x1f, 0x8b, 8];
    magic.forEach((byte, i) => {
      if (i < input.length && input[i] !== byte) {
        const what = this.#members > 0 ? "another gzip member or the end" : "a gzip header";
        const hex = (input[i] as number).toString(16).padStart(2, "0");
        throw this.#problem(`found byte 0x${hex}; expected ${what}`, i);
      }
    });
    if (input.length < 10) return more;
    const flags = input[3] as number;
    let at = 10;
    if (flags & FLAG_EXTRA) {
      if (input.length < at + 2) return more;
      at += 2 + (input[at] as number) + ((input[at + 1] as number) << 8);
    }
    for (const flag of [FLAG_NAME, FLAG_COMMENT]) {
      if ((flags & flag) === 0) continue;
      if (at >= input.length) return more;
      const zero = input.indexOf(0, at);
      if (zero < 0) return more;
      at = zero + 1;
    }
    if (flags & FLAG_HEADER_CRC) at += 2;
    return at;
  }

  #data(final: boolean): boolean {
    const inflate = this.#inflate as Inflate;
    try {
      const used = inflate.push(this.#input, final);
      this.#take(used);
    } catch (error) {
      if (!(error instanceof InflateProblem)) throw error;
      throw this.#problem(error.message, error.at);
    }
    if (!inflate.done) return false;
    this.#state = "trailer";
    return true;
  }

  #trailer(): boolean {
    if (this.#input.length < 8) return false;
    const view = new DataView(this.#input.buffer, this.#input.byteOffset, 8);
    const crc = view.getUint32(0, true);
    if (crc !== this.#crc) throw this.#problem("the checksum of the gzip data is wrong");
    if (view.getUint32(4, true) !== this.#size) {
      throw this.#problem("the length of the gzip data is wrong");
    }
    this.#take(8);
    this.#members++;
    this.#state = "header";
    return true;
  }

  #problem(message: string, at = 0): GzipProblem {
    return new GzipProblem(message, this.#consumed + at);
  }
}
