// The benchmark programs at small sizes: their figures are right, and what is wrong is found.

import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { checkPartitions } from "../src/benchmarks/hash-partition.ts";
import { fileIo, fstest, hashPartition, urlsSort } from "../src/benchmarks/index.ts";
import { benchmark, rowSum } from "../src/benchmarks/measure.ts";
import { mockUrls } from "../src/benchmarks/urls.ts";
import { urlInversions } from "../src/benchmarks/urls-sort.ts";

const root = mkdtempSync(join(tmpdir(), "smallpond-benchmarks-"));
const common = { executors: 2, session: { dataRoot: root } };
const alone = { ...common, executors: 1 };

afterAll(() => rmSync(root, { recursive: true, force: true }));

test("file-io copies generated rows and files of the user's, in every way", async () => {
  const report = await fileIo({ ...common, rows: 5001, partitions: 3 });
  expect(report).toMatchObject({ rows: 5001, partitions: 3, valid: true });
  expect(report.copies.map(({ way }) => way)).toEqual(["sql", "rows", "arrow-stream"]);
  for (const copy of report.copies) {
    expect(copy).toMatchObject({ rows: 5001, checksum: report.checksum, equal: true });
    expect(copy.mibPerSecond).toBeCloseTo(report.bytes / 2 ** 20 / copy.seconds);
  }

  const input = join(root, "input");
  await benchmark(alone, async (session) => {
    const columns =
      "n, n % 7 AS small, n / 3 AS real, CASE WHEN n % 5 > 0 THEN 'ü' || n END AS text, " +
      "DATE '2026-01-01' + CAST(n AS INTEGER) AS day, [n, n + 1] AS list";
    await session
      .partialSql(`SELECT ${columns} FROM range(1000) AS r(n)`)
      .writeParquet(input, { kind: "copy" });
  });
  const own = await fileIo({ ...alone, input, partitions: 4 });
  expect(own).toMatchObject({ rows: 1000, valid: true });
});

test("hash-partition has each key once, and finds keys in two partitions", async () => {
  const report = await hashPartition({ ...common, rows: 20_000, seed: 3, partitions: 5 });
  expect(report).toMatchObject({ rows: 20_000, sharedKeys: 0, valid: true, columns: ["host"] });
  expect(report.partitions).toHaveLength(5);
  expect(report.partitions.reduce((sum, { rows }) => sum + rows, 0)).toBe(20_000);
  expect(report.partitions.reduce((sum, { keys }) => sum + keys, 0)).toBe(report.keys);
  expect(report.keys).toBeGreaterThan(190);
  expect(report.keys).toBeLessThanOrEqual(200);

  // More partitions than keys: some are empty, and stay in their places.
  const few = await hashPartition({ ...alone, rows: 150, partitions: 9 });
  expect(few).toMatchObject({ rows: 150, keys: 2, sharedKeys: 0, valid: true });
  expect(few.partitions.filter(({ rows }) => rows > 0).length).toBeLessThanOrEqual(2);
  for (const { rows, keys } of few.partitions) expect(rows > 0).toBe(keys > 0);

  await benchmark(alone, async (session) => {
    const frame = await session.fromItems([{ k: 1 }, { k: 2 }, { k: 2 }, { k: 3 }]);
    const check = await checkPartitions(frame.repartition(2, { byRows: true }), ["k"]);
    expect(check).toEqual({
      partitions: [
        { rows: 2, keys: 2 },
        { rows: 2, keys: 2 },
      ],
      keys: 3,
      sharedKeys: 1,
    });
  });
  await expect(hashPartition({ ...common, input: "x" })).rejects.toThrow("columns");
});

test("urls are the same in any number of partitions, and come out sorted", async () => {
  const a = await urlsSort({ ...common, rows: 9000, partitions: 4, seed: 1 });
  expect(a).toMatchObject({ rows: 9000, valid: true });
  expect(a.orders).toMatchObject([
    { order: "by-host", inversions: 0, sharedHosts: 0, valid: true },
    { order: "global", inversions: 0, valid: true },
  ]);

  await benchmark(alone, async (session) => {
    const whole = await rowSum(await mockUrls(session, { rows: 9000, seed: 1, partitions: 1 }));
    expect(whole).toEqual({ rows: a.rows, checksum: a.checksum });
    const urls = await mockUrls(session, { rows: 2000, seed: 1, partitions: 2 });
    const others = await mockUrls(session, { rows: 2000, seed: 2, partitions: 2 });
    const [sum, other] = [await rowSum(urls), await rowSum(others)];
    expect(sum.rows).toBe(other.rows);
    expect(sum.checksum).not.toBe(other.checksum);
    const [row] = await urls.take(1);
    expect(row?.host).toMatch(/^com\.\d+\.\d+$/);
    expect(row?.url).toMatch(/^com\.\d+\.\d+\/[0-9a-f]+\.html$/);
    const inversions = await urlInversions(session, urls, false);
    expect(inversions).toBeGreaterThan(900);
    expect(inversions).toBeLessThan(1100);
    const apart = urls.partialSort("url DESC");
    expect(await urlInversions(session, apart, false)).toBe(1998);
    // Each part is in order, but the second begins before the first ends.
    const halves = urls.partialSort("url");
    expect(await urlInversions(session, halves, false)).toBe(0);
    expect(await urlInversions(session, halves, true)).toBe(1);
  });
});

test("fstest writes the count, reads it back, and finds the byte that was flipped", async () => {
  const folder = join(root, "files");
  const sizes = { folder, files: 3, fileBytes: 10_004, blockBytes: 1024 };
  const made = await fstest({ ...common, ...sizes, keep: true });
  expect(made).toMatchObject({ valid: true, files: 3, bytes: 30_012 });
  expect(made.passes.map(({ pass }) => pass)).toEqual(["write", "read-sequential", "read-random"]);
  const all = Buffer.concat(
    [0, 1, 2].map((file) => readFileSync(join(folder, `counters-0000${file}.u32`))),
  );
  for (let i = 0; i < all.length / 4; i++) expect(all.readUInt32LE(4 * i)).toBe(i);

  const path = join(folder, "counters-00001.u32");
  for (const byte of [9007, 5030]) flip(path, byte);
  flip(join(folder, "counters-00002.u32"), 0);
  const bad = await fstest({ ...alone, ...sizes, write: false });
  const expected = (10_004 + 5028) / 4;
  expect(bad.valid).toBe(false);
  expect(bad.passes).toHaveLength(2);
  for (const pass of bad.passes) {
    expect(pass.wrongWords).toBe(3);
    const got = expected ^ (0x10 << 16);
    expect(pass.firstWrong).toEqual({ file: path, byte: 5030, expected, got });
  }

  truncateSync(path, 5002);
  const short = await fstest({ ...alone, ...sizes, write: false });
  expect(short.passes[1]?.firstWrong).toEqual({
    file: path,
    byte: 5002,
    expected: (10_004 + 5000) / 4,
    got: undefined,
  });
  await fstest({ ...alone, ...sizes });
  expect(existsSync(path)).toBe(false);
  await expect(fstest({ ...common, fileBytes: 6 })).rejects.toThrow("multiple of 4");
  await expect(fstest({ ...alone, ...sizes, write: false })).rejects.toThrow("ENOENT");
});

function flip(path: string, byte: number): void {
  const value = readFileSync(path)[byte] as number;
  const fd = openSync(path, "r+");
  writeSync(fd, Uint8Array.of(value ^ 0x10), 0, 1, byte);
  closeSync(fd);
}
