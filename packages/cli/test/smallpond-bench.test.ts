// `open-infra smallpond bench …`: tables, JSON, flags and exit statuses of the benchmark programs.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { type CliResult, runCli } from "./run-cli.ts";

const folder = mkdtempSync(join(tmpdir(), "open-infra-smallpond-bench-"));

afterAll(() => rmSync(folder, { recursive: true, force: true }));

const bench = (...args: readonly string[]): Promise<CliResult> =>
  runCli(["smallpond", "bench", ...args, "--executors", "1"], { SP_DATA_ROOT: folder });

test("programs print a table, or JSON, and take rows by the same flags", async () => {
  const [copies, cut, sorted] = await Promise.all([
    bench("file-io", "--rows", "300"),
    bench("hash-partition", "--rows", "300", "--partitions", "2", "--columns", "host,url"),
    bench("urls-sort", "--rows", "300", "--json"),
  ]);
  expect(copies.stdout, copies.stderr).toMatch(/^arrow-stream .* 300 {2}equal$/m);
  expect(copies.stdout).toMatch(/\nvalid\n$/);
  expect(cut.stdout, cut.stderr).toContain("300 keys, 0 in several partitions");
  expect(JSON.parse(sorted.stdout), sorted.stderr).toMatchObject({ rows: 300, valid: true });
  for (const { code } of [copies, cut, sorted]) expect(code).toBe(0);
});

test("fstest names the byte that was flipped, and its status is 1", async () => {
  const files = join(folder, "files");
  const sizes = ["--folder", files, "--files", "2", "--file-size", "8KiB", "--block-size", "1KiB"];
  const made = await bench("fstest", ...sizes, "--keep");
  expect(made.code, made.stderr).toBe(0);
  const path = join(files, "counters-00001.u32");
  const bytes = readFileSync(path);
  bytes[5001] = 0xff;
  writeFileSync(path, bytes);
  const bad = await bench("fstest", ...sizes, "--no-write");
  expect(bad.code).toBe(1);
  const [expected, got] = [2048 + 1250, bytes.readUInt32LE(5000)];
  expect(bad.stdout).toContain(`${path}, byte 5001: expected ${expected}, got ${got}\nNOT VALID`);
  const odd = await bench("fstest", "--file-size", "6");
  expect(odd.code).toBe(2);
  expect(odd.stderr).toContain("--file-size is 6; expected a multiple of 4");
});
