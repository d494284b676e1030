// Strings, each once, found by their UTF-8 bytes: the reader meets a kernel's name a thousand times
// and decodes it once, at the end. An open-addressing hash table over an arena of bytes.

import { release } from "../columns.ts";
import { LimitReached } from "./limits.ts";

const encoder = new TextEncoder();
/** A string longer than this is cut out of the arena and decoded alone. */
const DECODE_BYTES = 1 << 16;

/**
 * Hash of no bytes; another in each process, so that nobody can make a file whose names collide.
 * Nothing that is seen depends on it.
 */
export const HASH_SEED: number = (Math.random() * 2 ** 32) | 0;
/** One more byte is `(hash ^ byte) · HASH_PRIME` (FNV-1a). The cursor repeats this inline. */
export const HASH_PRIME = 0x01000193;

/** Hash of `bytes[start..end)`, the one `intern` expects. */
export function hashBytes(bytes: Uint8Array, start: number, end: number): number {
  let hash = HASH_SEED;
  for (let i = start; i < end; i++) {
    hash = Math.imul(hash ^ (bytes[i] as number), HASH_PRIME);
  }
  return hash;
}

/** Index 0 is "". */
export class StringTable {
  readonly #maxStrings: number;
  readonly #maxBytes: number;
  #arena: Uint8Array = new Uint8Array(1 << 14);
  #used = 0;
  /** End of each string in the arena; it starts where the one before ends. */
  #ends: Uint32Array = new Uint32Array(1 << 10);
  #hashes: Int32Array = new Int32Array(1 << 10);
  #count = 0;
  /** Index + 1 by hash, 0 where free; a power of two, at most half full. */
  #slots: Uint32Array = new Uint32Array(1 << 12);
  /** Lone surrogates have no UTF-8: kept apart, with their index. */
  readonly #illFormed = new Map<string, number>();

  constructor(maxStrings: number, maxBytes: number) {
    this.#maxStrings = maxStrings;
    this.#maxBytes = Math.min(maxBytes, 0xffffffff);
    this.intern(this.#arena, 0, 0, HASH_SEED);
  }

  get length(): number {
    return this.#count;
  }

  /** Index of the string of `bytes[start..end)`, whose hash is `hash`. */
  intern(bytes: Uint8Array, start: number, end: number, hash: number): number {
    const slots = this.#slots;
    const mask = slots.length - 1;
    // The low bits of the hash hardly depend on the first bytes; mix the high ones in.
    let slot = (hash ^ (hash >>> 15)) & mask;
    for (;;) {
      const found = (slots[slot] as number) - 1;
      if (found < 0) break;
      if (this.#hashes[found] === hash && this.#equals(found, bytes, start, end)) return found;
      slot = (slot + 1) & mask;
    }
    const index = this.#store(bytes, start, end, hash);
    slots[slot] = index + 1;
    if (this.#count * 2 > slots.length) this.#rehash();
    return index;
  }

  /** Index of `text`. */
  internText(text: string): number {
    if (text.isWellFormed()) {
      const bytes = encoder.encode(text);
      return this.intern(bytes, 0, bytes.length, hashBytes(bytes, 0, bytes.length));
    }
    let index = this.#illFormed.get(text);
    if (index === undefined) {
      // Takes a place in the order, without bytes and without a slot.
      index = this.#store(this.#arena, 0, 0, 0);
      this.#illFormed.set(text, index);
    }
    return index;
  }

  /** All strings, decoded. The table must not be used again. */
  finish(): string[] {
    release(this.#slots);
    release(this.#hashes);
    const strings = new Array<string>(this.#count);
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    for (let i = 0; i < this.#count; ) i = this.#decodeRun(i, strings, decoder);
    for (const [text, index] of this.#illFormed) strings[index] = text;
    release(this.#arena);
    release(this.#ends);
    return strings;
  }

  /**
   * Decodes strings from `first` on with one call where they are ASCII, because a call for each of
   * a million flow ids would take longer than reading them did. Returns the first one not decoded.
   */
  #decodeRun(first: number, strings: string[], decoder: TextDecoder): number {
    const start = this.#startOf(first);
    let end = first;
    while (end < this.#count && (this.#ends[end] as number) - start <= DECODE_BYTES) end++;
    if (end === first) end++;
    const bytes = this.#arena.subarray(start, this.#ends[end - 1]);
    const text = decoder.decode(bytes);
    const ascii = text.length === bytes.length;
    for (let i = first; i < end; i++) {
      const from = this.#startOf(i) - start;
      const to = (this.#ends[i] as number) - start;
      strings[i] = ascii ? text.slice(from, to) : decoder.decode(bytes.subarray(from, to));
    }
    return end;
  }

  #startOf(index: number): number {
    return index === 0 ? 0 : (this.#ends[index - 1] as number);
  }

  #equals(index: number, bytes: Uint8Array, start: number, end: number): boolean {
    const arena = this.#arena;
    let at = this.#startOf(index);
    if ((this.#ends[index] as number) - at !== end - start) return false;
    for (let i = start; i < end; i++) if (arena[at++] !== bytes[i]) return false;
    return true;
  }

  #store(bytes: Uint8Array, start: number, end: number, hash: number): number {
    const used = this.#used + (end - start);
    if (this.#count === this.#maxStrings) {
      throw new LimitReached("maxStrings", this.#maxStrings, "different strings");
    }
    if (used > this.#maxBytes) {
      throw new LimitReached("maxTextBytes", this.#maxBytes, "bytes of different strings");
    }
    if (used > this.#arena.length) {
      const buffer = this.#arena.buffer as ArrayBuffer;
      this.#arena = new Uint8Array(buffer.transfer(Math.max(used, buffer.byteLength * 2)));
    }
    if (this.#count === this.#ends.length) this.#growIndex();
    this.#arena.set(bytes.subarray(start, end), this.#used);
    this.#used = used;
    this.#ends[this.#count] = used;
    this.#hashes[this.#count] = hash;
    return this.#count++;
  }

  #growIndex(): void {
    const bytes = this.#count * 2 * 4;
    this.#ends = new Uint32Array((this.#ends.buffer as ArrayBuffer).transfer(bytes));
    this.#hashes = new Int32Array((this.#hashes.buffer as ArrayBuffer).transfer(bytes));
  }

  #rehash(): void {
    const slots = new Uint32Array(this.#slots.length * 2);
    const mask = slots.length - 1;
    const illFormed = new Set(this.#illFormed.values());
    for (let i = 0; i < this.#count; i++) {
      if (illFormed.has(i)) continue;
      const hash = this.#hashes[i] as number;
      let slot = (hash ^ (hash >>> 15)) & mask;
      while (slots[slot] !== 0) slot = (slot + 1) & mask;
      slots[slot] = i + 1;
    }
    release(this.#slots);
    this.#slots = slots;
  }
}
