// Canonical Huffman codes of deflate: a table over the next bits for short codes, a walk over the
// code lengths for long ones.

/** Bits the primary table is indexed by. */
export const PRIMARY_BITS = 10;
const MAX_BITS = 15;

/** One code. Entries are symbol · 16 + length in bits. */
export interface HuffmanTable {
  /** By the next bits, lowest first; 0 where the code is longer or there is none. */
  readonly primary: Uint16Array;
  /** Codes of each length. */
  readonly counts: Uint16Array;
  /** Symbols in the order of their codes. */
  readonly sorted: Uint16Array;
}

function reverse(code: number, bits: number): number {
  let reversed = 0;
  for (let i = 0; i < bits; i++) reversed |= ((code >> i) & 1) << (bits - 1 - i);
  return reversed;
}

/**
 * The table of codes with these lengths, 0 for symbols without one. Undefined if there are more
 * codes than bits allow, or fewer, unless `mayLack` and there is at most one, as deflate allows.
 */
export function buildTable(lengths: Uint8Array, mayLack = false): HuffmanTable | undefined {
  const counts = new Uint16Array(MAX_BITS + 1);
  for (const length of lengths) (counts[length] as number)++;
  const codes = lengths.length - (counts[0] as number);
  counts[0] = 0;
  let left = 1;
  for (let bits = 1; bits <= MAX_BITS; bits++) left = left * 2 - (counts[bits] as number);
  // Left over is counted in codes of 15 bits; what went negative meanwhile stays so.
  if (left < 0 || (left > 0 && !(mayLack && codes <= 1))) return undefined;
  const offsets = new Uint16Array(MAX_BITS + 2);
  const next = new Uint16Array(MAX_BITS + 2);
  for (let bits = 1; bits <= MAX_BITS; bits++) {
    offsets[bits + 1] = (offsets[bits] as number) + (counts[bits] as number);
    next[bits + 1] = ((next[bits] as number) + (counts[bits] as number)) << 1;
  }
  const sorted = new Uint16Array(codes);
  const primary = new Uint16Array(1 << PRIMARY_BITS);
  lengths.forEach((length, symbol) => {
    if (length === 0) return;
    sorted[(offsets[length] as number)++] = symbol;
    const code = (next[length] as number)++;
    if (length > PRIMARY_BITS) return;
    const step = 1 << length;
    for (let i = reverse(code, length); i < primary.length; i += step) {
      primary[i] = symbol * 16 + length;
    }
  });
  return { primary, counts, sorted };
}

/** Entry of the code at the front of `bits` (at least 15 of them), or −1. */
export function lookup(table: HuffmanTable, bits: number): number {
  const quick = table.primary[bits & ((1 << PRIMARY_BITS) - 1)] as number;
  if (quick !== 0) return quick;
  let code = 0;
  let first = 0;
  let index = 0;
  for (let length = 1; length <= MAX_BITS; length++) {
    code |= (bits >>> (length - 1)) & 1;
    const count = table.counts[length] as number;
    if (code - count < first) {
      return (table.sorted[index + (code - first)] as number) * 16 + length;
    }
    index += count;
    first = (first + count) << 1;
    code <<= 1;
  }
  return -1;
}
