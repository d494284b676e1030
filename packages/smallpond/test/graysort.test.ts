// The sort benchmark on executors: every engine, kind of record and number of parts, beside GNU
// sort on the same records.

import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hasProgram, requirement } from "@open-infra/testing";
import { afterAll, expect, test } from "vitest";
import { type GraysortOptions, type GraysortReport, graysort } from "../src/graysort/index.ts";
import { recordOrder } from "../src/graysort/order.ts";

const root = mkdtempSync(join(tmpdir(), "smallpond-graysort-"));
let jobs = 0;

afterAll(() => rmSync(root, { recursive: true, force: true }));

function run(options: GraysortOptions): Promise<GraysortReport> {
  const session = { dataRoot: root, jobId: `job-${jobs++}` };
  return graysort({ executors: 2, session, ...options });
}

const bytesOf = (report: GraysortReport): Buffer =>
  Buffer.concat(report.files.map((file) => readFileSync(file)));

test.skipIf(requirement("graysort", hasProgram("sort") || "GNU sort is not installed"))(
  "lines are as GNU sort has them, by either engine, evenly or skewed",
  async () => {
    const common = { sizeBytes: 4_000_000, format: "ascii", compareWithSort: true } as const;
    const reports = [
      await run({ ...common, partitions: 7, engine: "radix" }),
      await run({ ...common, partitions: 3, engine: "duckdb" }),
      await run({ ...common, partitions: 9, skewed: true, output: join(root, "out") }),
    ];
    for (const report of reports) {
      expect(report).toMatchObject({ records: 40_000, valid: true, gnuSort: { equal: true } });
      expect(report.summary?.checksum).toBe(report.inputChecksum);
      expect(report.skew).toBeLessThan(1.3);
    }
    expect(reports[0]?.inputChecksum).toBe(reports[1]?.inputChecksum);
    expect(reports[2]?.files[8]).toBe(join(root, "out", "part-00008"));
  },
);

test("binary records come out in the order of their bytes by either engine", async () => {
  const radix = await run({ sizeBytes: 2_000_050, partitions: 5 });
  const duckdb = await run({ sizeBytes: 2_000_050, partitions: 1, engine: "duckdb" });
  expect(radix).toMatchObject({ records: 20_000, valid: true, partitions: 5 });
  expect(duckdb).toMatchObject({ records: 20_000, valid: true });
  const sorted = bytesOf(radix);
  expect(bytesOf(duckdb).equals(sorted)).toBe(true);
  expect(recordOrder(sorted).every((record, i) => record === i)).toBe(true);
});

test("given files are sorted, and more parts than records is no harm", async () => {
  const made = await run({ sizeBytes: 1200, partitions: 1, format: "ascii" });
  const file = join(root, "input.records");
  copyFileSync(made.files[0] as string, file);
  const report = await run({ input: file, partitions: 30 });
  expect(report).toMatchObject({ records: 12, valid: true, inputChecksum: made.inputChecksum });
  writeFileSync(file, "no records");
  await expect(run({ input: file })).rejects.toThrow(/10 bytes are no multiple of 100/);
  await expect(run({})).rejects.toThrow(/neither/);
  await expect(run({ sizeBytes: 1e4, compareWithSort: true })).rejects.toThrow(/ASCII/);
});
