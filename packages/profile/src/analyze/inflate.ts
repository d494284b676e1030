// Decompresses one deflate stream (RFC 1951) in pieces. Written here because the platform's
// decompressor does not say where a stream ends, which a file of several gzip members needs.
// A step that would need more input than there is waits for it as a whole: a symbol takes at most
// 16 bytes with the look-ahead, a block's header at most 600.

import { buildTable, type HuffmanTable, lookup, PRIMARY_BITS } from "./huffman.ts";

/** The stream is no deflate stream. */
export class InflateProblem extends Error {
  /** Bytes of the input given to `push` before the problem. */
  readonly at: number;

  constructor(message: string, at: number) {
    super(message);
    this.at = at;
  }
}

const WINDOW = 1 << 15;
const OUT_BYTES = 1 << 17;
const MAX_MATCH = 258;
const SYMBOL_BYTES = 16;
const HEADER_BYTES = 600;
const PRIMARY_MASK = (1 << PRIMARY_BITS) - 1;
const END_OF_BLOCK = 256;

const LENGTH_BASE = new Uint16Array([
  3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131,
  163, 195, 227, 258,
]);
const LENGTH_EXTRA = new Uint8Array([
  0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0,
]);
const DISTANCE_BASE = new Uint16Array([
  1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049,
  3073, 4097, 6145, 8193, 12289, 16385, 24577,
]);
const DISTANCE_EXTRA = new Uint8Array([
  0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13,
]);
/** The order in which a block's header gives the lengths of the codes of its code lengths. */
const ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

const fixedLengths = Uint8Array.from({ length: 288 }, (_, i) =>
  i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8,
);
const fixedSymbols = buildTable(fixedLengths) as HuffmanTable;
const fixedDistances = buildTable(new Uint8Array(32).fill(5)) as HuffmanTable;

export class Inflate {
  readonly #onBytes: (bytes: Uint8Array) => void;
  #state: "block" | "stored" | "codes" | "done" = "block";
  #lastBlock = false;
  #storedLeft = 0;
  #symbols: HuffmanTable = fixedSymbols;
  #distances: HuffmanTable = fixedDistances;
  /** Bits taken from the input and not used yet, lowest first. */
  #bits = 0;
  #bitCount = 0;
  #input: Uint8Array = new Uint8Array(0);
  #at = 0;
  /** The last 32 KiB and what follows them; what has not been handed out starts at `#handed`. */
  readonly #out = new Uint8Array(OUT_BYTES);
  #outAt = 0;
  #handed = 0;

  constructor(onBytes: (bytes: Uint8Array) => void) {
    this.#onBytes = onBytes;
  }

  /** The stream's end has been met. */
  get done(): boolean {
    return this.#state === "done";
  }

  /**
   * Takes bytes; returns how many of them it used. The rest must come again, with more behind them
   * unless they were the `final` ones or the stream is done.
   * @throws InflateProblem
   */
  push(bytes: Uint8Array, final: boolean): number {
    // Zeros behind the end let the look-ahead read on; whether they were used is checked after.
    this.#input = bytes;
    if (final) {
      this.#input = new Uint8Array(bytes.length + HEADER_BYTES + SYMBOL_BYTES);
      this.#input.set(bytes);
    }
    this.#at = 0;
    while (this.#state !== "done" && this.#step());
    // Whole bytes that were only looked at go back.
    const back = Math.min(this.#bitCount >> 3, this.#at);
    this.#at -= back;
    this.#bitCount -= back * 8;
    this.#bits &= this.#bitCount === 0 ? 0 : (1 << this.#bitCount) - 1;
    if (final && (this.#state !== "done" || this.#at > bytes.length)) {
      throw new InflateProblem("the compressed data ends early", bytes.length);
    }
    this.#hand();
    return this.#at;
  }

  /** Goes on as far as the input allows; false if it needs more. */
  #step(): boolean {
    switch (this.#state) {
      case "block":
        return this.#block();
      case "stored":
        return this.#stored();
      default:
        return this.#codes();
    }
  }

  /** Hands out what is there, and keeps the window. */
  #hand(): void {
    if (this.#outAt > this.#handed) this.#onBytes(this.#out.subarray(this.#handed, this.#outAt));
    this.#handed = this.#outAt;
    if (this.#outAt > OUT_BYTES - MAX_MATCH - 1) {
      this.#out.copyWithin(0, this.#outAt - WINDOW, this.#outAt);
      this.#outAt = WINDOW;
      this.#handed = WINDOW;
    }
  }

  #problem(message: string): never {
    throw new InflateProblem(message, this.#at);
  }

  /** The next `count` (≤ 16) bits. */
  #take(count: number): number {
    while (this.#bitCount < count) {
      this.#bits |= (this.#input[this.#at++] as number) << this.#bitCount;
      this.#bitCount += 8;
    }
    const value = this.#bits & ((1 << count) - 1);
    this.#bits >>>= count;
    this.#bitCount -= count;
    return value;
  }

  #block(): boolean {
    if (this.#lastBlock) {
      this.#state = "done";
      return true;
    }
    if (this.#input.length - this.#at < HEADER_BYTES) {
      // Short blocks need less, but whether one is short is known only inside; unless it is stored.
      if (!this.#storedHeaderFits()) return false;
    }
    this.#lastBlock = this.#take(1) === 1;
    const type = this.#take(2);
    if (type === 0) this.#storedHeader();
    else if (type === 1) {
      this.#symbols = fixedSymbols;
      this.#distances = fixedDistances;
      this.#state = "codes";
    } else if (type === 2) this.#dynamicHeader();
    else this.#problem("a compressed block is of type 3, which does not exist");
    return true;
  }

  /** A stored block comes next and its header is here. */
  #storedHeaderFits(): boolean {
    if (this.#input.length - this.#at < 6) return false;
    while (this.#bitCount < 3) {
      this.#bits |= (this.#input[this.#at++] as number) << this.#bitCount;
      this.#bitCount += 8;
    }
    return ((this.#bits >> 1) & 3) === 0;
  }

  #storedHeader(): void {
    this.#bits >>>= this.#bitCount & 7;
    this.#bitCount -= this.#bitCount & 7;
    const length = this.#take(16);
    if ((this.#take(16) ^ 0xffff) !== length) {
      this.#problem("the length of a stored block contradicts itself");
    }
    this.#storedLeft = length;
    this.#state = "stored";
  }

  #stored(): boolean {
    while (this.#storedLeft > 0) {
      if (this.#outAt > OUT_BYTES - MAX_MATCH - 1) this.#hand();
      if (this.#bitCount >= 8) {
        this.#out[this.#outAt++] = this.#take(8);
        this.#storedLeft--;
        continue;
      }
      const room = OUT_BYTES - this.#outAt;
      const length = Math.min(this.#storedLeft, room, this.#input.length - this.#at);
      if (length === 0) return false;
      this.#out.set(this.#input.subarray(this.#at, this.#at + length), this.#outAt);
      this.#at += length;
      this.#outAt += length;
      this.#storedLeft -= length;
    }
    this.#state = "block";
    return true;
  }

  #dynamicHeader(): void {
    const symbols = this.#take(5) + 257;
    const distances = this.#take(5) + 1;
    const lengthCodes = this.#take(4) + 4;
    if (symbols > 286 || distances > 30) this.#problem("a block has more codes than exist");
    const codeLengths = new Uint8Array(19);
    for (let i = 0; i < lengthCodes; i++) codeLengths[ORDER[i] as number] = this.#take(3);
    const codes = buildTable(codeLengths) ?? this.#problem("a block's code lengths are no code");
    const lengths = new Uint8Array(symbols + distances);
    for (let i = 0; i < lengths.length; ) i = this.#codeLength(codes, lengths, i);
    if (lengths[END_OF_BLOCK] === 0) this.#problem("a block has no code for its end");
    this.#symbols =
      buildTable(lengths.subarray(0, symbols), true) ??
      this.#problem("the literal codes of a block are no code");
    this.#distances =
      buildTable(lengths.subarray(symbols), true) ??
      this.#problem("the distance codes of a block are no code");
    this.#state = "codes";
  }

  /** Reads one entry of the run-length coded code lengths; returns where the next goes. */
  #codeLength(codes: HuffmanTable, lengths: Uint8Array, at: number): number {
    const symbol = this.#slowSymbol(codes);
    if (symbol < 16) {
      lengths[at] = symbol;
      return at + 1;
    }
    if (symbol === 16 && at === 0) this.#problem("a block repeats a code length before the first");
    const repeated = symbol === 16 ? (lengths[at - 1] as number) : 0;
    const count =
      symbol === 16 ? 3 + this.#take(2) : symbol === 17 ? 3 + this.#take(3) : 11 + this.#take(7);
    if (at + count > lengths.length) this.#problem("a block has too many code lengths");
    lengths.fill(repeated, at, at + count);
    return at + count;
  }

  /** One symbol, outside of the fast loop. */
  #slowSymbol(table: HuffmanTable): number {
    while (this.#bitCount < 15) {
      this.#bits |= (this.#input[this.#at++] as number) << this.#bitCount;
      this.#bitCount += 8;
    }
    const found = lookup(table, this.#bits);
    if (found < 0) this.#problem("found a code that stands for nothing");
    this.#bits >>>= found & 15;
    this.#bitCount -= found & 15;
    return found >> 4;
  }

  /** Literals and matches until the block's end; the fast loop. */
  #codes(): boolean {
    const input = this.#input;
    const out = this.#out;
    const symbols = this.#symbols;
    const distances = this.#distances;
    const primary = symbols.primary;
    const inputLimit = input.length - SYMBOL_BYTES;
    const outLimit = OUT_BYTES - MAX_MATCH - 1;
    let at = this.#at;
    let bits = this.#bits;
    let count = this.#bitCount;
    let outAt = this.#outAt;
    let ended = false;
    while (at <= inputLimit && outAt <= outLimit) {
      while (count <= 24) {
        bits |= (input[at++] as number) << count;
        count += 8;
      }
      let entry = primary[bits & PRIMARY_MASK] as number;
      if (entry === 0) entry = this.#long(symbols, bits, at);
      bits >>>= entry & 15;
      count -= entry & 15;
      let symbol = entry >> 4;
      if (symbol < END_OF_BLOCK) {
        out[outAt++] = symbol;
        continue;
      }
      if (symbol === END_OF_BLOCK) {
        ended = true;
        break;
      }
      symbol -= 257;
      const lengthBits = LENGTH_EXTRA[symbol] as number;
      const length = (LENGTH_BASE[symbol] as number) + (bits & ((1 << lengthBits) - 1));
      bits >>>= lengthBits;
      count -= lengthBits;
      while (count <= 24) {
        bits |= (input[at++] as number) << count;
        count += 8;
      }
      entry = distances.primary[bits & PRIMARY_MASK] as number;
      if (entry === 0) entry = this.#long(distances, bits, at);
      bits >>>= entry & 15;
      count -= entry & 15;
      const extra = DISTANCE_EXTRA[entry >> 4] as number;
      while (count < extra) {
        bits |= (input[at++] as number) << count;
        count += 8;
      }
      const distance = (DISTANCE_BASE[entry >> 4] as number) + (bits & ((1 << extra) - 1));
      bits >>>= extra;
      count -= extra;
      if (!(distance <= outAt && length <= MAX_MATCH)) {
        // Also for the two symbols of each kind that have no length and no distance.
        throw new InflateProblem("a match is longer or farther than there is data", at);
      }
      for (let from = outAt - distance, end = outAt + length; outAt < end; ) {
        out[outAt++] = out[from++] as number;
      }
    }
    this.#at = at;
    this.#bits = bits;
    this.#bitCount = count;
    this.#outAt = outAt;
    if (ended) this.#state = "block";
    else if (outAt > outLimit) this.#hand();
    else return false;
    return true;
  }

  /** A code longer than the primary table's. */
  #long(table: HuffmanTable, bits: number, at: number): number {
    const found = lookup(table, bits);
    if (found < 0) throw new InflateProblem("found a code that stands for nothing", at);
    return found;
  }
}
