// What `valsort` finds out: whether records are in order of their keys, how many keys are double,
// the checksum; a summary for each part, and summaries of consecutive parts together.

import { checksumOf } from "./checksum.ts";
import { keyBytes, recordBytes } from "./records.ts";

/** Of one part, or of several in a row. */
export interface SortSummary {
  readonly records: number;
  /** Sum of the records' CRC-32s, hexadecimal. */
  readonly checksum: string;
  /** Records whose key is that of the one before. */
  readonly duplicateKeys: number;
  /** Records whose key is less than that of the one before. */
  readonly inversions: number;
  /** Number of the first such record, from 0. */
  readonly firstInversion: number | undefined;
  /** Keys of the first and the last record, hexadecimal; of none without records. */
  readonly firstKey: string | undefined;
  readonly lastKey: string | undefined;
}

/** A copy; `slice` of a Buffer would be none. */
const keyAt = (records: Uint8Array, at: number): Uint8Array =>
  Uint8Array.from(records.subarray(at, at + keyBytes));

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

/** Takes records in order, a buffer at a time. */
export class SortValidator {
  #records = 0;
  #checksum = 0n;
  #duplicates = 0;
  #inversions = 0;
  #firstInversion: number | undefined;
  #firstKey: Uint8Array | undefined;
  #lastKey: Uint8Array | undefined;

  add(records: Uint8Array): void {
    if (records.length === 0) return;
    this.#checksum += checksumOf(records);
    if (this.#lastKey === undefined) this.#firstKey = keyAt(records, 0);
    else this.#compare(compareKeys(this.#lastKey, 0, records, 0), 0);
    for (let at = recordBytes; at < records.length; at += recordBytes) {
      const order = compareKeys(records, at - recordBytes, records, at);
      if (order >= 0) this.#compare(order, at / recordBytes);
    }
    this.#records += records.length / recordBytes;
    this.#lastKey = keyAt(records, records.length - recordBytes);
  }

  #compare(order: number, at: number): void {
    if (order === 0) this.#duplicates++;
    else if (order > 0) {
      this.#inversions++;
      this.#firstInversion ??= this.#records + at;
    }
  }

  summary(): SortSummary {
    return {
      records: this.#records,
      checksum: this.#checksum.toString(16),
      duplicateKeys: this.#duplicates,
      inversions: this.#inversions,
      firstInversion: this.#firstInversion,
      firstKey: this.#firstKey && hex(this.#firstKey),
      lastKey: this.#lastKey && hex(this.#lastKey),
    };
  }
}

/** Of two keys in records at these offsets: negative, 0, positive. */
function compareKeys(left: Uint8Array, a: number, right: Uint8Array, b: number): number {
  for (let i = 0; i < keyBytes; i++) {
    const difference = (left[a + i] as number) - (right[b + i] as number);
    if (difference !== 0) return difference;
  }
  return 0;
}

/** The summary of parts in a row: the key at the end of each against the next one's first. */
export function mergeSummaries(parts: readonly SortSummary[]): SortSummary {
  let [records, checksum, duplicateKeys, inversions] = [0, 0n, 0, 0];
  let firstInversion: number | undefined;
  let firstKey: string | undefined;
  let lastKey: string | undefined;
  for (const part of parts) {
    if (part.firstKey !== undefined && lastKey !== undefined) {
      if (part.firstKey === lastKey) duplicateKeys++;
      if (part.firstKey < lastKey) {
        inversions++;
        firstInversion ??= records;
      }
    }
    if (part.firstInversion !== undefined) firstInversion ??= records + part.firstInversion;
    records += part.records;
    checksum += BigInt(`0x${part.checksum}`);
    duplicateKeys += part.duplicateKeys;
    inversions += part.inversions;
    firstKey ??= part.firstKey;
    lastKey = part.lastKey ?? lastKey;
  }
  const sum = checksum.toString(16);
  return { records, checksum: sum, duplicateKeys, inversions, firstInversion, firstKey, lastKey };
}
