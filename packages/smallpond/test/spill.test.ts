// Data larger than a task's memory: DuckDB spills into the job's folder, the process stays within
// its means, the result is right, and nothing of it is left.

import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { init } from "../src/index.ts";

const root = mkdtempSync(join(tmpdir(), "smallpond-spill-"));
const mib = 2 ** 20;

afterAll(() => rmSync(root, { recursive: true, force: true }));

const rows = 2_500_000;
const letters = 96 * rows;
/** A third of them. */
const memoryBytes = 80 * mib;

test("a sort of three times a task's memory spills, is right, and leaves nothing", async () => {
  const place = { jobId: "job", dataRoot: root };
  await using session = await init({ ...place, numExecutors: 1, executorCpus: 1 });
  const text = [7, 11, 13].map((factor) => `md5((range * ${factor})::VARCHAR)`).join(" || ");
  const query = `SELECT hash(range) AS k, ${text} AS text FROM range(${rows})`;
  // Small row groups, as a page of Parquet is held in memory whole.
  const parquet = { rowGroupRows: 20_480 };
  const source = session.partialSql(query, { memoryBytes, parquet, name: "source" });
  await source.compute();
  const temporary: string[] = [];
  const staging = (): string[] =>
    readdirSync(join(root, "job", "staging"), { recursive: true })
      .map(String)
      .filter((name) => name.includes("duckdb_temp"));
  const watch = setInterval(() => temporary.push(...staging()), 20);
  const options = { memoryBytes, parquet, name: "sort" };
  const sorted = source.select("SELECT * FROM {0} ORDER BY k", options);
  await sorted.compute();
  clearInterval(watch);
  expect(temporary.length, "nothing was seen to spill").toBeGreaterThan(0);
  expect(staging()).toEqual([]);
  const [row] = await sorted
    .select(
      "SELECT count(*) AS n, count(*) FILTER (k < before) AS wrong, " +
        "sum(length(text))::BIGINT AS letters FROM (SELECT *, lag(k) OVER () AS before FROM {0})",
    )
    .takeAll();
  expect(row).toEqual({ n: rows, wrong: 0, letters });
  const figures = new Map(session.figures().map((one) => [one.node, one]));
  expect(figures.get("sort")?.retries).toBe(0);
  console.log(
    session.figures().map((f) => [f.node, f.maxRssBytes.max / 1e6, f.elapsedMs.max, f.retries]),
  );
  // What the sort adds to a process that has done as large a task without one.
  const [before, after] = ["source", "sort"].map((name) => figures.get(name)?.maxRssBytes.max ?? 0);
  expect((after as number) - (before as number)).toBeLessThan(memoryBytes + 64 * mib);
}, 60_000);
