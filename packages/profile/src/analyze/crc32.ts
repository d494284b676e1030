// CRC-32 as gzip has it, eight bytes a step ("slicing by 8", Kounavis and Berry 2005), as words
// where they are aligned. JavaScript runs on little-endian machines only.

/** Eight tables of 256, one after the other; signed, because then no entry needs a float64. */
const TABLE: Int32Array = (() => {
  const table = new Int32Array(8 * 256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
    table[byte] = crc;
  }
  for (let at = 256; at < table.length; at++) {
    const before = table[at - 256] as number;
    table[at] = (before >>> 8) ^ (table[before & 255] as number);
  }
  return table;
})();

function crcOfBytes(crc: number, bytes: Uint8Array, start: number, end: number): number {
  let c = crc;
  for (let i = start; i < end; i++) {
    c = (c >>> 8) ^ (TABLE[(c ^ (bytes[i] as number)) & 255] as number);
  }
  return c;
}

/** CRC of what `crc` covers (0 for nothing) followed by `bytes`. */
export function crc32(crc: number, bytes: Uint8Array): number {
  if (bytes.length < 16) return ~crcOfBytes(~crc, bytes, 0, bytes.length) >>> 0;
  const t = TABLE;
  const head = -bytes.byteOffset & 3;
  let c = crcOfBytes(~crc, bytes, 0, head);
  const pairs = (bytes.length - head) >> 3;
  const words = new Int32Array(bytes.buffer, bytes.byteOffset + head, pairs * 2);
  for (let i = 0; i < words.length; i += 2) {
    const low = c ^ (words[i] as number);
    const high = words[i + 1] as number;
    c =
      (t[1792 + (low & 255)] as number) ^
      (t[1536 + ((low >>> 8) & 255)] as number) ^
      (t[1280 + ((low >>> 16) & 255)] as number) ^
      (t[1024 + (low >>> 24)] as number) ^
      (t[768 + (high & 255)] as number) ^
      (t[512 + ((high >>> 8) & 255)] as number) ^
      (t[256 + ((high >>> 16) & 255)] as number) ^
      (t[high >>> 24] as number);
  }
  return ~crcOfBytes(c, bytes, head + pairs * 8, bytes.length) >>> 0;
}
