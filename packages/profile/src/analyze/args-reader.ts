// Reads what the table's columns need out of an event's `args`, and passes over the rest: args are
// most of a Kineto trace's text.

import type { JsonCursor } from "./json-cursor.ts";

const encoder = new TextEncoder();

/** A key that fills a column, as bytes. */
interface ArgKey {
  readonly bytes: Uint8Array;
  readonly column: number;
}

function equalBytes(key: Uint8Array, bytes: Uint8Array, start: number): boolean {
  for (let i = 0; i < key.length; i++) if (key[i] !== bytes[start + i]) return false;
  return true;
}

const correlationKey = encoder.encode("correlation");
const streamKey = encoder.encode("stream");
const gridKey = encoder.encode("grid");

/** The args of the event being read. */
export class ArgsReader {
  readonly #cursor: JsonCursor;
  /** Asked-for keys by length in bytes; most lengths have none. */
  readonly #keys: (readonly ArgKey[] | undefined)[] = [];
  readonly #longest: number;
  readonly #values: Float64Array;

  /** Where the text of the args is in the window; equal where there are none. */
  start = 0;
  end = 0;
  correlation = -1;
  stream = -1;
  gridBlocks = 0;

  /** Values of `names` go to `values`, NaN where absent. */
  constructor(cursor: JsonCursor, names: readonly string[], values: Float64Array) {
    this.#cursor = cursor;
    this.#values = values;
    names.forEach((name, column) => {
      const bytes = encoder.encode(name);
      this.#keys[bytes.length] = [...(this.#keys[bytes.length] ?? []), { bytes, column }];
    });
    this.#longest = this.#keys.length;
  }

  reset(): void {
    this.start = 0;
    this.end = 0;
    this.correlation = -1;
    this.stream = -1;
    this.gridBlocks = 0;
    if (this.#values.length > 0) this.#values.fill(Number.NaN);
  }

  /** Reads the value at the cursor, whose first byte is `byte`; what is no object says nothing. */
  read(byte: number): void {
    const cursor = this.#cursor;
    // A later `args` of the same event replaces an earlier one.
    this.reset();
    this.start = cursor.at;
    if (byte !== 123) cursor.skip();
    else if (cursor.firstKey()) {
      do {
        this.#key();
      } while (cursor.nextKey());
    }
    this.end = cursor.at;
  }

  #key(): void {
    const cursor = this.#cursor;
    cursor.key();
    if (cursor.stringEscaped) {
      const key = encoder.encode(cursor.stringText());
      this.#value(key, 0, key.length);
    } else this.#value(cursor.bytes, cursor.stringStart, cursor.stringEnd);
  }

  /** Reads the value that follows the key `bytes[start..end)`. */
  #value(bytes: Uint8Array, start: number, end: number): void {
    const cursor = this.#cursor;
    const byte = cursor.colon();
    const length = end - start;
    if (length < this.#longest) {
      const keys = this.#keys[length];
      if (keys !== undefined) this.#column(keys, bytes, start);
    }
    const first = bytes[start];
    if (length === 11 && first === 99 && equalBytes(correlationKey, bytes, start)) {
      this.correlation = this.#number(-1);
    } else if (length === 6 && first === 115 && equalBytes(streamKey, bytes, start)) {
      const stream = this.#number(-1);
      this.stream = stream === (stream | 0) ? stream : -1;
    } else if (length === 4 && first === 103 && equalBytes(gridKey, bytes, start)) {
      this.gridBlocks = byte === 91 ? this.#grid() : Math.max(0, this.#number(0));
    } else cursor.skip();
  }

  /** Fills the column of the key, if one of `keys` is it; the value is still ahead. */
  #column(keys: readonly ArgKey[], bytes: Uint8Array, start: number): void {
    const cursor = this.#cursor;
    const { at } = cursor;
    for (const key of keys) {
      if (!equalBytes(key.bytes, bytes, start)) continue;
      this.#values[key.column] = this.#number(Number.NaN);
      cursor.at = at;
    }
  }

  /** The number at the cursor, or `absent` for another value. */
  #number(absent: number): number {
    const cursor = this.#cursor;
    if (!cursor.number()) return absent;
    const value = cursor.numberValue();
    return Number.isNaN(value) ? absent : value;
  }

  /** Product of the numbers of an array, 0 if it is empty or holds anything else. */
  #grid(): number {
    const cursor = this.#cursor;
    const start = cursor.at;
    cursor.at++;
    let blocks = 1;
    for (;;) {
      const byte = cursor.space();
      if (byte < 48 || byte > 57 || !cursor.number()) break;
      blocks *= cursor.numberValue();
      const next = cursor.space();
      cursor.at++;
      if (next === 93) return Math.min(Math.floor(blocks), 0xffffffff);
      if (next !== 44) break;
    }
    cursor.at = start;
    cursor.skip();
    return 0;
  }
}
