// The byte-level alphabet of GPT-2's BPE: each of the 256 bytes is written as one printable
// character, so that a vocabulary is text. Used for decoding; encoding is the tokenizer library's.

/** Bytes that stand for themselves; the rest are written as U+0100 and up, in order. */
function printable(byte: number): boolean {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

/** The character of each byte. */
export const byteCharacters: readonly string[] = (() => {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) =>
    String.fromCharCode(printable(byte) ? byte : next++),
  );
})();

const byteOf: ReadonlyMap<string, number> = new Map(
  byteCharacters.map((character, byte) => [character, byte]),
);

const utf8 = new TextEncoder();

/**
 * The bytes a vocabulary entry stands for. An entry with a character outside the alphabet (a
 * special token) stands for its own UTF-8 text, as in the reference implementation.
 */
export function bytesOfToken(token: string): Uint8Array {
  const bytes = new Uint8Array(token.length);
  for (let i = 0; i < token.length; i++) {
    const byte = byteOf.get(token[i] as string);
    if (byte === undefined) return utf8.encode(token);
    bytes[i] = byte;
  }
  return bytes;
}
