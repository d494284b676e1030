// Headers as an attacker would send them, or a failing disk: each is an error that says where.

import { readFileSync, truncateSync, writeFileSync } from "node:fs";
import { CheckpointError, SafetensorsFile, Tensor, writeSafetensors } from "@open-infra/tensor";
import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { entry, errorOf, scratch } from "./files.ts";

const { freshPath, rawFile } = scratch();

function plainFile(content: string): string {
  const path = freshPath();
  writeFileSync(path, content);
  return path;
}

describe("a hostile header", () => {
  const f32 = entry("F32", [1], [0, 4]);
  const huge = Number.MAX_SAFE_INTEGER;
  const cases: readonly [string, () => string, key: string, message: RegExp | string][] = [
    ["an empty file", () => plainFile(""), "header", "0 bytes of file; expected at least 8"],
    ["five bytes", () => plainFile("abcde"), "header", "5 bytes of file"],
    [
      "a length beyond the file",
      () => rawFile("{}", 0, 3n),
      "header length",
      "is 3; expected at most 2 (the file has 10 bytes)",
    ],
    [
      "a length of 2^64 - 1",
      () => rawFile("{}", 0, 2n ** 64n - 1n),
      "header length",
      "18446744073709551615",
    ],
    ["no JSON", () => rawFile("{nope"), "header", "not JSON"],
    ["no text", () => rawFile(Uint8Array.of(0x7b, 0xff, 0x7d)), "header", "not JSON"],
    ["an array", () => rawFile("[1]"), "header", "is [1]; expected a JSON object"],
    ["null", () => rawFile("null"), "header", "is null"],
    ["deep nesting", () => rawFile("[".repeat(200_000)), "header", "not JSON"],
    [
      "a tensor that is a number",
      () => rawFile('{"w":3}'),
      "entry of w",
      "expected an object with dtype",
    ],
    ["a tensor that is null", () => rawFile('{"w":null}'), "entry of w", "is null"],
    [
      "no dtype",
      () => rawFile('{"w":{"shape":[],"data_offsets":[0,4]}}', 4),
      "dtype of w",
      "is undefined; expected F32, F16",
    ],
    [
      "an unknown dtype",
      () => rawFile(`{"w":${entry("F99", [1], [0, 4])}}`, 4),
      "dtype of w",
      'is "F99"; expected F32',
    ],
    [
      "a dtype of an object's prototype",
      () => rawFile(`{"w":${entry("toString", [1], [0, 4])}}`, 4),
      "dtype of w",
      "toString",
    ],
    [
      "a dtype in a list",
      () => rawFile(`{"w":${entry(["I8"], [4], [0, 4])}}`, 4),
      "dtype of w",
      '["I8"]',
    ],
    [
      "a shape that is a number",
      () => rawFile(`{"w":${entry("F32", 1, [0, 4])}}`, 4),
      "shape of w",
      "is 1; expected an array",
    ],
    [
      "a negative size",
      () => rawFile(`{"w":${entry("F32", [1, -1], [0, 4])}}`, 4),
      "dimension 1 of w",
      "is -1; expected a non-negative integer",
    ],
    [
      "a fractional size",
      () => rawFile(`{"w":${entry("F32", [0.5], [0, 2])}}`, 2),
      "dimension 0 of w",
      "is 0.5",
    ],
    [
      "a size in a string",
      () => rawFile(`{"w":${entry("F32", ["1"], [0, 4])}}`, 4),
      "dimension 0 of w",
      'is "1"',
    ],
    [
      "a size beyond 2^53",
      () => rawFile('{"w":{"dtype":"F32","shape":[1e300],"data_offsets":[0,4]}}', 4),
      "dimension 0 of w",
      "1e+300",
    ],
    [
      "an overflowing shape",
      () => rawFile(`{"w":${entry("F32", [huge, huge, huge], [0, 4])}}`, 4),
      "shape of w",
      "at most 2^50 elements",
    ],
    [
      "a shape that wraps to the right size",
      () => rawFile(`{"w":${entry("U8", [2 ** 32, 2 ** 32], [0, 0])}}`),
      "shape of w",
      "at most 2^50",
    ],
    [
      "no offsets",
      () => rawFile('{"w":{"dtype":"F32","shape":[1]}}', 4),
      "data_offsets of w",
      "is undefined; expected two",
    ],
    [
      "three offsets",
      () => rawFile(`{"w":${entry("F32", [1], [0, 4, 8])}}`, 4),
      "data_offsets of w",
      "[0,4,8]",
    ],
    [
      "offsets backwards",
      () => rawFile(`{"w":${entry("F32", [1], [4, 0])}}`, 4),
      "data_offsets of w",
      "begin not after end",
    ],
    [
      "a negative offset",
      () => rawFile(`{"w":${entry("F32", [1], [-4, 0])}}`, 4),
      "data_offsets of w",
      "[-4,0]",
    ],
    [
      "too few bytes for the shape",
      () => rawFile(`{"w":${entry("F32", [2], [0, 4])}}`, 4),
      "data_offsets of w",
      "4 bytes; expected 8 bytes for F32 of shape [2]",
    ],
    [
      "an odd number of FP4",
      () => rawFile(`{"w":${entry("F4", [3], [0, 2])}}`, 2),
      "data_offsets of w",
      "F4 of shape [3]",
    ],
    [
      "data cut off",
      () => rawFile(`{"w":${f32}}`, 3),
      "data_offsets of w",
      "is the file truncated?",
    ],
    [
      "a range beyond any file",
      () => rawFile(`{"w":${entry("U8", [huge - 8], [0, huge - 8])}}`, 4),
      "shape of w",
      "2^50",
    ],
    [
      "bytes after the last tensor",
      () => rawFile(`{"w":${f32}}`, 5),
      "data",
      "is 5 bytes; expected 4 bytes, where its last tensor ends",
    ],
    [
      "a hole at the start",
      () => rawFile(`{"w":${entry("F32", [1], [4, 8])}}`, 8),
      "data_offsets of w",
      "leaving a hole after the header; expected a begin of 0",
    ],
    [
      "a hole between",
      () => rawFile(`{"a":${f32},"b":${entry("F32", [1], [8, 12])}}`, 12),
      "data_offsets of b",
      "hole after a; expected a begin of 4",
    ],
    [
      "an overlap",
      () => rawFile(`{"a":${entry("F32", [2], [0, 8])},"b":${entry("F32", [2], [4, 12])}}`, 12),
      "data_offsets of b",
      "overlapping a; expected a begin of 8",
    ],
    [
      "two tensors in one place",
      () => rawFile(`{"a":${f32},"b":${f32}}`, 4),
      "data_offsets of b",
      "overlapping a",
    ],
    [
      "a name twice",
      () => rawFile(`{"w":${f32},"w":${f32}}`, 4),
      "header",
      'an object with "w" twice; expected unique keys',
    ],
    [
      "a name twice, once escaped",
      () => rawFile(`{"w":${f32},"\\u0077" :${f32}}`, 4),
      "header",
      '"w" twice',
    ],
    [
      "a field twice",
      () => rawFile(`{"w":{"dtype":"F32","dtype":"I32","shape":[1],"data_offsets":[0,4]}}`, 4),
      "header",
      '"dtype" twice',
    ],
    ["metadata that is a string", () => rawFile('{"__metadata__":"x"}'), "__metadata__", 'is "x"'],
    [
      "metadata that is not text",
      () => rawFile('{"__metadata__":{"a":1}}'),
      "__metadata__ a",
      "is 1; expected a string",
    ],
  ];
  it.each(cases)("%s", (_, make, key, message) => {
    const path = make();
    const error = errorOf(() => SafetensorsFile.open(path));
    expect(error.file).toBe(path);
    expect(error.key).toBe(key);
    expect(error.message).toContain(`${path}: ${key} is `);
    expect(error.message).toMatch(
      typeof message === "string" ? new RegExp(RegExp.escape(message)) : message,
    );
    expect(error.message.length).toBeLessThan(path.length + 500);
  });

  it("a length over 100 MB is refused before memory is taken for it", () => {
    const path = rawFile("{}", 0, 100_000_001n);
    truncateSync(path, 200_000_000);
    expect(errorOf(() => SafetensorsFile.open(path)).allowed).toContain("at most 100000000");
  });

  it("any single damaged byte is an error or still a sound file, never a crash", () => {
    const random = seededRandom(testSeed());
    const good = freshPath();
    writeSafetensors(good, [Tensor.empty([3], "f32", "a"), Tensor.empty([0, 2], "u8", "b")], {
      metadata: { k: "v" },
    });
    const bytes = readFileSync(good);
    const path = freshPath();
    for (let round = 0; round < 400; round++) {
      const damaged = Buffer.from(bytes);
      damaged[random.int(0, bytes.length)] = random.int(0, 256);
      writeFileSync(
        path,
        damaged.subarray(0, random.int(0, 4) === 0 ? random.int(0, bytes.length) : bytes.length),
      );
      try {
        using file = SafetensorsFile.open(path);
        for (const name of file.tensors.keys()) file.read(name);
      } catch (error) {
        expect(error, `seed ${random.seed}, round ${round}`).toBeInstanceOf(CheckpointError);
      }
    }
  });
});
