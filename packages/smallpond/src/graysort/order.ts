// The order of records in memory by all their bytes, and their bytes in that order. A radix sort of
// the first four bytes does nearly all of it; runs of equal ones are sorted by what follows.

import { recordBytes } from "./records.ts";

const recordWords = recordBytes / 4;
const radixBits = 11;
const buckets = 1 << radixBits;
/** Records whose memory is touched before the first of them is copied. */
const aheadRecords = 16;
/** Runs shorter than this are not worth histograms. */
const shortRun = 2048;

/** Indices of records, least record first; equal records in the order they came in. */
export function recordOrder(records: Uint8Array): Uint32Array {
  const count = records.length / recordBytes;
  const order = new Uint32Array(count);
  for (let i = 0; i < count; i++) order[i] = i;
  sortRun(records, order, 0);
  return order;
}

/** Negative if record `a` (by its offset) comes before record `b`, from a byte on; 0 if equal. */
export function compareRecords(
  left: Uint8Array,
  a: number,
  right: Uint8Array,
  b: number,
  from = 0,
): number {
  for (let i = from; i < recordBytes; i++) {
    const difference = (left[a + i] as number) - (right[b + i] as number);
    if (difference !== 0) return difference;
  }
  return 0;
}

/** Sorts a run whose records are equal before byte `from`. */
function sortRun(records: Uint8Array, order: Uint32Array, from: number): void {
  if (order.length < shortRun || from >= recordBytes) {
    if (order.length > 1) sortShort(records, order, from);
    return;
  }
  const prefixes = sortByWord(records, order, from);
  let start = 0;
  for (let i = 1; i <= order.length; i++) {
    if (i < order.length && prefixes[i] === prefixes[start]) continue;
    if (i - start > 1) sortRun(records, order.subarray(start, i), from + 4);
    start = i;
  }
}

function sortShort(records: Uint8Array, order: Uint32Array, from: number): void {
  const compare = (a: number, b: number): number =>
    compareRecords(records, a * recordBytes, records, b * recordBytes, from) || a - b;
  if (order.length > 16) {
    order.sort(compare);
    return;
  }
  for (let i = 1; i < order.length; i++) {
    const record = order[i] as number;
    let to = i;
    while (to > 0 && compare(order[to - 1] as number, record) > 0) {
      order[to] = order[to - 1] as number;
      to--;
    }
    order[to] = record;
  }
}

/** Sorts by the four bytes at `from`; gives them in order. Least significant digits first. */
function sortByWord(records: Uint8Array, order: Uint32Array, from: number): Uint32Array {
  const count = order.length;
  let words = new Uint32Array(count);
  for (let i = 0; i < count; i++) {
    const at = (order[i] as number) * recordBytes + from;
    words[i] =
      ((records[at] as number) << 24) |
      ((records[at + 1] as number) << 16) |
      ((records[at + 2] as number) << 8) |
      (records[at + 3] as number);
  }
  let indices: Uint32Array = order;
  let otherWords = new Uint32Array(count);
  let otherIndices: Uint32Array = new Uint32Array(count);
  const starts = new Uint32Array(buckets);
  for (let shift = 0; shift < 32; shift += radixBits) {
    if (!histogram(words, shift, starts)) continue;
    for (let i = 0; i < count; i++) {
      const word = words[i] as number;
      const bucket = (word >>> shift) & (buckets - 1);
      const to = starts[bucket] as number;
      starts[bucket] = to + 1;
      otherWords[to] = word;
      otherIndices[to] = indices[i] as number;
    }
    [words, otherWords] = [otherWords, words];
    [indices, otherIndices] = [otherIndices, indices];
  }
  if (indices !== order) order.set(indices);
  return words;
}

/** Where each digit's items begin; false if all have the same digit. */
function histogram(words: Uint32Array, shift: number, starts: Uint32Array): boolean {
  starts.fill(0);
  for (let i = 0; i < words.length; i++) {
    const bucket = ((words[i] as number) >>> shift) & (buckets - 1);
    starts[bucket] = (starts[bucket] as number) + 1;
  }
  let at = 0;
  for (let bucket = 0; bucket < buckets; bucket++) {
    const size = starts[bucket] as number;
    if (size === words.length) return false;
    starts[bucket] = at;
    at += size;
  }
  return true;
}

/**
 * Copies the records `order[first]` on into a buffer until it is full; both 4-byte aligned. A
 * record is two or three cache lines anywhere in memory, so some are touched ahead of their copies:
 * then their misses overlap, which takes 128 MB from 230 to 66 ns a record. What is given says
 * nothing; without it the touches would be dead code.
 */
export function gatherRecords(
  records: Uint8Array,
  order: Uint32Array,
  first: number,
  target: Uint8Array,
): number {
  const from = wordsOf(records);
  const to = wordsOf(target);
  const count = target.length / recordBytes;
  let touched = 0;
  for (let start = 0; start < count; start += aheadRecords) {
    const end = Math.min(count, start + aheadRecords);
    for (let i = start; i < end; i++) {
      const at = (order[first + i] as number) * recordWords;
      touched ^= (from[at] as number) ^ (from[at + 16] as number);
    }
    for (let i = start; i < end; i++) {
      copyRecord(from, (order[first + i] as number) * recordWords, to, i * recordWords);
    }
  }
  return touched;
}

/** The same bytes by fours. */
export function wordsOf(records: Uint8Array): Uint32Array {
  return new Uint32Array(records.buffer, records.byteOffset, records.length / 4);
}

/** Copies one record; offsets in words. */
export function copyRecord(from: Uint32Array, at: number, to: Uint32Array, target: number): void {
  for (let i = 0; i < recordWords; i++) to[target + i] = from[at + i] as number;
}
