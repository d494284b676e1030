// Our decompressor against zlib's compressor: every level and strategy, many members, any pieces.

import { constants, gzipSync, crc32 as zlibCrc32 } from "node:zlib";
import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { crc32 } from "../src/analyze/crc32.ts";
import { Gunzip, GzipProblem } from "../src/analyze/gunzip.ts";
import { randomPieces } from "./trace-text.ts";

function gunzip(pieces: readonly Uint8Array[]): Buffer {
  const out: Buffer[] = [];
  const stream = new Gunzip((bytes) => out.push(Buffer.from(bytes)));
  for (const piece of pieces) stream.push(piece);
  stream.finish();
  return Buffer.concat(out);
}

/** Data between noise and one repeated byte. */
function randomData(random: ReturnType<typeof seededRandom>): Buffer {
  const alphabet = random.pick([1, 2, 16, 256]);
  const data = Buffer.alloc(random.pick([0, 1, 300, 70_000, 150_000]));
  for (let i = 0; i < data.length; i++) {
    const back = random.int(1, 40_000);
    data[i] =
      i > back && random.next() < 0.5 ? (data[i - back] as number) : random.int(0, alphabet);
  }
  return data;
}

describe("gunzip", () => {
  it("gives back what zlib compressed, whatever the level, strategy, members and pieces", () => {
    const random = seededRandom(testSeed());
    const { Z_FIXED, Z_HUFFMAN_ONLY, Z_RLE, Z_DEFAULT_STRATEGY } = constants;
    for (let round = 0; round < 25; round++) {
      const data = Array.from({ length: random.int(1, 4) }, () => randomData(random));
      const members = data.map((part) =>
        gzipSync(part, {
          level: random.int(0, 10),
          strategy: random.pick([Z_FIXED, Z_HUFFMAN_ONLY, Z_RLE, Z_DEFAULT_STRATEGY]),
          windowBits: random.int(9, 16),
        }),
      );
      const pieces = randomPieces(Buffer.concat(members), random);
      const same = gunzip(pieces).equals(Buffer.concat(data));
      expect(same, `seed ${random.seed}, round ${round}`).toBe(true);
    }
  });

  it("reads headers with extra fields, a name, a comment and a checksum", () => {
    const plain = gzipSync("hello");
    const header = Buffer.from(plain.subarray(0, 10));
    header[3] = 2 | 4 | 8 | 16;
    const fields = Buffer.from("\x03\x00abcname\x00comment\x00\x12\x34", "latin1");
    const file = Buffer.concat([header, fields, plain.subarray(10)]);
    expect(gunzip([file]).toString()).toBe("hello");
    for (let i = 0; i < file.length; i++) {
      expect(() => gunzip([file.subarray(0, i)]), `${i} bytes`).toThrow(GzipProblem);
    }
  });

  it("names the byte of what is wrong", () => {
    const file = gzipSync("hello");
    expect(() => gunzip([file, Buffer.from("junk")])).toThrow(
      expect.objectContaining({ byteOffset: file.length }),
    );
    // A block of type 3, and a match before the beginning.
    const bad = (bytes: number[]): Buffer =>
      Buffer.concat([file.subarray(0, 10), Buffer.from(bytes)]);
    expect(() => gunzip([bad([7, 0, 0])])).toThrow("type 3");
    expect(() => gunzip([bad([3, 2, 0, 0, 0, 0, 0, 0, 0, 0])])).toThrow(GzipProblem);
    expect(() => gunzip([bad([1, 1, 0, 0, 0])])).toThrow("contradicts itself");
  });

  it("has the checksum of RFC 1952", () => {
    expect(crc32(0, Buffer.from("123456789"))).toBe(0xcbf43926);
    const random = seededRandom(testSeed());
    const bytes = Uint8Array.from({ length: 100 }, () => random.int(0, 256));
    for (let round = 0; round < 300; round++) {
      const [from, middle, to] = [0, 0, 0].map(() => random.int(0, 101)).sort((a, b) => a - b);
      const both = crc32(crc32(0, bytes.subarray(from, middle)), bytes.subarray(middle, to));
      expect(both, `seed ${random.seed}`).toBe(zlibCrc32(bytes.subarray(from, to)));
    }
  });
});
