// Bundles: a cache carried elsewhere whole, and bundles that are damaged or mean harm.

import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { requirement } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { listCache } from "../src/admin.ts";
import { exportCache, importCache } from "../src/bundle.ts";
import { sha256 } from "../src/entry.ts";
import { BundleError, CacheError } from "../src/errors.ts";
import {
  callNumber,
  countingCompiler,
  needsCompiler,
  numberKernel,
  openCache,
  tempDir,
} from "./helpers.ts";

const magic = "open-infra-jit-1\n";

interface IndexFile {
  bytes: number;
  sha256: string;
}

interface IndexEntry {
  key: string;
  files: IndexFile[];
}

/** A bundle taken apart, so that a test can change one thing and write it again. */
function parse(file: string): { index: IndexEntry[]; payload: Buffer } {
  const bytes = readFileSync(file);
  const start = magic.length + 8;
  const end = start + Number(bytes.readBigUInt64LE(magic.length));
  return {
    index: JSON.parse(bytes.toString("utf8", start, end)) as IndexEntry[],
    payload: bytes.subarray(end),
  };
}

function write(file: string, index: unknown, payload: Uint8Array): void {
  const header = Buffer.from(JSON.stringify(index));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  writeFileSync(file, Buffer.concat([Buffer.from(magic), length, header, payload]));
}

describe.skipIf(requirement("kernel bundles", needsCompiler))("bundle", () => {
  function exported(): { dir: string; file: string } {
    const dir = tempDir();
    const cacheDir = join(dir, "cache");
    const cache = openCache(cacheDir);
    for (const value of [1, 2, 3]) cache.load(numberKernel(dir, value));
    const file = join(dir, "kernels.bundle");
    const result = exportCache(file, { cacheDir, readonlyCacheDirs: [cacheDir] });
    expect(result).toEqual({ entries: 3, bytes: readFileSync(file).length });
    return { dir, file };
  }

  it("carries kernels to where nothing needs compiling", () => {
    const { dir, file } = exported();
    const cacheDir = join(dir, "other");
    expect(importCache(file, { cacheDir })).toEqual({ added: 3, present: 0 });
    expect(importCache(file, { cacheDir })).toEqual({ added: 0, present: 3 });
    const { compiler, count } = countingCompiler(dir);
    const cache = openCache(cacheDir, {}, compiler);
    for (const value of [1, 2, 3]) expect(callNumber(cache, numberKernel(dir, value))).toBe(value);
    expect(count()).toBe(0);
    expect(listCache({ cacheDir })).toHaveLength(3);
    expect(readdirSync(dir).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  });

  it("refuses what is damaged or hostile, and writes nothing of it", () => {
    const { dir, file } = exported();
    const { index, payload } = parse(file);
    const whole = readFileSync(file);
    const cacheDir = join(dir, "other");
    const bad = join(dir, "bad.bundle");
    const first = index[0] as IndexEntry;
    const rest = index.slice(1);
    const other = { ...first, key: first.key.replace(/^./, (c) => (c === "0" ? "1" : "0")) };
    const huge = { ...first, files: first.files.map((info) => ({ ...info, bytes: 2 ** 40 })) };
    const negative = { ...first, files: first.files.map((info) => ({ ...info, bytes: -1 })) };
    const longHeader = Buffer.from(whole);
    longHeader.writeBigUInt64LE(2n ** 62n, magic.length);
    const flipped = Buffer.from(payload);
    flipped[1000] = (flipped[1000] as number) ^ 1;
    const cases: [string, () => void, RegExp][] = [
      ["empty", () => writeFileSync(bad, ""), /too few/],
      ["another file", () => writeFileSync(bad, "PK\x03\x04".repeat(20)), /does not begin with/],
      ["cut short", () => writeFileSync(bad, whole.subarray(0, -10)), /its index describes/],
      ["too long", () => writeFileSync(bad, Buffer.concat([whole, whole])), /its index describes/],
      ["endless index", () => writeFileSync(bad, longHeader), /its index claims/],
      [
        "not JSON",
        () =>
          writeFileSync(
            bad,
            Buffer.concat([whole.subarray(0, 25), Buffer.from("{"), whole.subarray(26)]),
          ),
        /not JSON/,
      ],
      ["no list", () => write(bad, { a: 1 }, payload), /not a list/],
      ["null", () => write(bad, [null], payload), /has key undefined/],
      [
        "path for a key",
        () => write(bad, [{ ...first, key: "../../x" }, ...rest], payload),
        /has key/,
      ],
      ["twice", () => write(bad, [first, first, ...rest], payload), /twice/],
      [
        "two files",
        () => write(bad, [{ ...first, files: first.files.slice(1) }], payload),
        /files of/,
      ],
      ["huge", () => write(bad, [huge, ...rest], payload), /not described/],
      ["negative", () => write(bad, [negative, ...rest], payload), /not described/],
      ["wrong key", () => write(bad, [other, ...rest], payload), /does not fit/],
      ["flipped bit", () => write(bad, index, flipped), /checksum of/],
    ];
    for (const [name, make, message] of cases) {
      make();
      expect(() => importCache(bad, { cacheDir }), name).toThrow(BundleError);
      expect(() => importCache(bad, { cacheDir }), name).toThrow(message);
      expect(existsSync(cacheDir) ? readdirSync(cacheDir) : [], name).toEqual([]);
    }
  });

  it("refuses a source that is not what the key says", () => {
    const { dir, file } = exported();
    const { index, payload } = parse(file);
    const { files } = index[0] as IndexEntry;
    const [meta, source] = files as [IndexFile, IndexFile];
    const forged = Buffer.from(payload);
    forged.write("evil", meta.bytes);
    source.sha256 = sha256(forged.subarray(meta.bytes, meta.bytes + source.bytes));
    write(file, index, forged);
    expect(() => importCache(file, { cacheDir: join(dir, "other") })).toThrow(/does not fit/);
  });

  it("says which file or directory is at fault", () => {
    const { dir, file } = exported();
    expect(() => importCache(join(dir, "none"), { cacheDir: dir })).toThrow(/none is not a usable/);
    const inFile = { cacheDir: join(file, "cache") };
    expect(() => importCache(file, inFile)).toThrow(CacheError);
    expect(() => exportCache(join(file, "x"), { cacheDir: join(dir, "cache") })).toThrow(
      BundleError,
    );
  });
});
