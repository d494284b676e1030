// What the sort benchmark compares by: the sum of the records' CRC-32s. It does not depend on their
// order, so that a sorted output has the sum of its input.

import { recordBytes } from "./records.ts";

/** Tables for eight bytes a step (Kounavis and Berry, "slicing by 8"). */
const tables: Int32Array = makeTables();

function makeTables(): Int32Array {
  const all = new Int32Array(8 * 256);
  for (let byte = 0; byte < 256; byte++) {
    let value = byte;
    for (let bit = 0; bit < 8; bit++) value = (value >>> 1) ^ (value & 1 ? 0xedb88320 : 0);
    all[byte] = value;
  }
  for (let i = 256; i < all.length; i++) {
    const before = all[i - 256] as number;
    all[i] = (before >>> 8) ^ (all[before & 255] as number);
  }
  return all;
}

/** CRC-32 as zlib's, of `length` bytes, a multiple of 4. */
function crc32(bytes: Uint8Array, from: number, length: number): number {
  const t = tables as { [index: number]: number };
  const b = bytes as { [index: number]: number };
  let crc = -1;
  let at = from;
  const end = from + length;
  for (; at + 8 <= end; at += 8) {
    const low =
      crc ^
      ((b[at] as number) |
        ((b[at + 1] as number) << 8) |
        ((b[at + 2] as number) << 16) |
        ((b[at + 3] as number) << 24));
    crc =
      (t[1792 + (low & 255)] as number) ^
      (t[1536 + ((low >>> 8) & 255)] as number) ^
      (t[1280 + ((low >>> 16) & 255)] as number) ^
      (t[1024 + (low >>> 24)] as number) ^
      (t[768 + (b[at + 4] as number)] as number) ^
      (t[512 + (b[at + 5] as number)] as number) ^
      (t[256 + (b[at + 6] as number)] as number) ^
      (t[b[at + 7] as number] as number);
  }
  for (; at < end; at++) {
    crc = (crc >>> 8) ^ (t[(crc ^ (b[at] as number)) & 255] as number);
  }
  return ~crc >>> 0;
}

/** The sum over records; exact for 2^21 of them, which is less than any buffer's. */
export function checksumOf(records: Uint8Array): bigint {
  let total = 0n;
  let sum = 0;
  for (let at = 0; at < records.length; at += recordBytes) {
    sum += crc32(records, at, recordBytes);
    if (sum >= 2 ** 52) {
      total += BigInt(sum);
      sum = 0;
    }
  }
  return total + BigInt(sum);
}
