// Files of 32-bit counters, least byte first, and their verification. The count goes on from file
// to file (modulo 2³²), so that blocks that change places are found, too.

import { closeSync, fstatSync, fsyncSync, openSync, readSync } from "node:fs";
import { endianness } from "node:os";
import { join } from "node:path";
import { writeFully } from "../graysort/record-files.ts";

/** Which file, how it is written or read. */
export interface CounterFileOptions {
  /** Its place in the row of files. */
  readonly file: number;
  /** A multiple of 4. */
  readonly fileBytes: number;
  /** What goes by one call of the system; a multiple of 4. */
  readonly blockBytes: number;
}

/** A word that is not what was written. */
export interface WrongWord {
  /** Offset in the file: of the word's first byte that differs, or where bytes are missing. */
  readonly byte: number;
  readonly expected: number;
  /** Undefined where the file ends before it should. */
  readonly got: number | undefined;
}

/** What was found in a file. */
export interface CounterFileReport {
  readonly bytes: number;
  /** Words that differ or are missing, or are beyond the end that should be. */
  readonly wrongWords: number;
  /** At the lowest offset. */
  readonly first: WrongWord | undefined;
}

/** `counters-00007.u32` */
export const counterFile = (folder: string, file: number): string =>
  join(folder, `counters-${String(file).padStart(5, "0")}.u32`);

const bigEndian = endianness() === "BE";

/** The counter at a byte of a file. */
const counterAt = ({ file, fileBytes }: CounterFileOptions, byte: number): number =>
  ((file * fileBytes + byte) / 4) % 2 ** 32;

/** Writes a new file, and waits until the file system has it. */
export function writeCounters(path: string, options: CounterFileOptions): void {
  const { fileBytes, blockBytes } = options;
  const block = new Uint32Array(Math.min(blockBytes, fileBytes) / 4);
  const bytes = Buffer.from(block.buffer);
  const fd = openSync(path, "wx");
  try {
    for (let start = 0; start < fileBytes; start += blockBytes) {
      const length = Math.min(blockBytes, fileBytes - start);
      const first = counterAt(options, start);
      // Typed arrays keep the lower 32 bits.
      for (let i = 0; i < length / 4; i++) block[i] = first + i;
      if (bigEndian) bytes.swap32();
      writeFully(fd, bytes.subarray(0, length));
    }
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Reads every block of a file once, in order or at random, and compares every word. */
export function readCounters(
  path: string,
  options: CounterFileOptions & { readonly order: "sequential" | "random"; readonly seed: number },
): CounterFileReport {
  const { file, fileBytes, blockBytes, order, seed } = options;
  const blocks = Math.ceil(fileBytes / blockBytes);
  const words = new Uint32Array(Math.min(blockBytes, fileBytes) / 4);
  const bytes = Buffer.from(words.buffer);
  const fd = openSync(path, "r");
  try {
    const { size } = fstatSync(fd);
    const excess = Math.max(0, size - fileBytes);
    let wrongWords = Math.ceil(excess / 4);
    let first: WrongWord | undefined;
    for (const index of order === "random" ? shuffled(blocks, seed + file) : range(blocks)) {
      const start = index * blockBytes;
      const length = Math.min(blockBytes, fileBytes - start);
      const got = readFully(fd, bytes.subarray(0, length), start);
      if (bigEndian) bytes.swap32();
      const wrong = compare(words, counterAt(options, start), length, got);
      wrongWords += wrong.count;
      if (wrong.first !== undefined && start + wrong.first.byte < (first?.byte ?? Infinity)) {
        first = { ...wrong.first, byte: start + wrong.first.byte };
      }
    }
    if (first === undefined && excess > 0) {
      // The word that came is none of the file's; its expected value is the next count.
      const byte = fileBytes;
      first = { byte, expected: counterAt(options, byte), got: undefined };
    }
    return { bytes: Math.min(size, fileBytes), wrongWords, first };
  } finally {
    closeSync(fd);
  }
}

/** Compares the words of a block, of which `got` bytes could be read. */
function compare(
  words: Uint32Array,
  start: number,
  length: number,
  got: number,
): { readonly count: number; readonly first: WrongWord | undefined } {
  const full = Math.floor(got / 4);
  let count = length / 4 - full;
  let first: WrongWord | undefined;
  for (let i = 0; i < full; i++) {
    const expected = (start + i) >>> 0;
    const word = words[i] as number;
    if (word === expected) continue;
    count++;
    first ??= { byte: 4 * i + firstByte(word ^ expected), expected, got: word };
  }
  if (first === undefined && full < length / 4) {
    first = { byte: got, expected: (start + full) >>> 0, got: undefined };
  }
  return { count, first };
}

/** The lowest byte of a word that is not 0. */
const firstByte = (word: number): number => Math.floor((31 - Math.clz32(word & -word)) / 8);

/** Bytes read; fewer than asked for only at the file's end. */
function readFully(fd: number, target: Uint8Array, position: number): number {
  let done = 0;
  while (done < target.length) {
    const count = readSync(fd, target, done, target.length - done, position + done);
    if (count === 0) break;
    done += count;
  }
  return done;
}

const range = (count: number): Uint32Array => Uint32Array.from({ length: count }, (_, i) => i);

/** Numbers below `count` in an order that the seed says: Fisher and Yates, by xorshift. */
function shuffled(count: number, seed: number): Uint32Array {
  const order = range(count);
  let state = Math.imul(seed + 1, 0x9e3779b1) | 1;
  for (let i = count - 1; i > 0; i--) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    const other = (state >>> 0) % (i + 1);
    const kept = order[i] as number;
    order[i] = order[other] as number;
    order[other] = kept;
  }
  return order;
}
