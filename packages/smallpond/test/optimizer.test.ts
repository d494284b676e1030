// What the optimizer does to plans, and what it must leave as it is; that results stay equal is
// pipelines.test.ts's.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DuckDBInstance } from "@duckdb/node-api";
import { seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, beforeAll, expect, test } from "vitest";
import { splitEvenly, splitRows } from "../src/dataset/split.ts";
import { type DataFrame, init, type Session } from "../src/index.ts";

const root = mkdtempSync(join(tmpdir(), "smallpond-optimizer-"));
let sp: Session;
let df: DataFrame;

beforeAll(async () => {
  const duck = await (await DuckDBInstance.create(":memory:")).connect();
  for (let file = 0; file < 4; file++) {
    const rows = `SELECT range + ${file * 100} AS id, 't' || range % 7 AS ticker,
      range * 0.5::DOUBLE AS price, {'x': range} AS s, [range] AS l FROM range(100)`;
    await duck.run(`COPY (${rows}) TO '${root}/${file}.parquet' (FORMAT parquet)`);
  }
  sp = await init({ jobId: "optimizer", dataRoot: root, numExecutors: 1, executorCpus: 2 });
  df = await sp.readParquet(`${root}/*.parquet`);
});

afterAll(async () => {
  await sp.shutdown();
  rmSync(root, { recursive: true, force: true });
});

/** Only the plan as it runs. */
async function plan(frame: DataFrame): Promise<string> {
  return ((await frame.explain()).split("as it runs: ")[1] as string).replaceAll(/#\d+/g, "");
}

async function started(action: () => Promise<unknown>): Promise<number> {
  let count = 0;
  const stop = sp.listen((event) => event.type === "started" && count++);
  await action();
  stop();
  return count;
}

test("a cut writes, and its source reads, only what is read above", async () => {
  const cut = df.repartition(4, { hashBy: "ticker" });
  const text = await plan(sp.partialSql("SELECT avg(price) AS a FROM {0}", cut));
  expect(text).toContain("partition by hash(ticker), columns price →");
  expect(text).toContain("source parquet, 4 files, columns ticker, price →");
  const sorted = df.sort("price DESC", { partitions: 3 }).map("id");
  expect(await plan(sorted)).toContain("source parquet, 4 files, columns id, price →");
  const joined = df
    .repartition(3, { hashBy: "id" })
    .join(df.repartition(3, { hashBy: "id" }), { on: "id", how: "semi" });
  expect(await plan(joined)).toContain("partition by hash(id), columns id →");
});

test.each([
  ["a star", "SELECT * FROM {0}"],
  ["the whole row", "SELECT x FROM {0} AS x"],
  ["an unknown function", "SELECT no_such_function(price) FROM {0}"],
  ["COLUMNS", "SELECT COLUMNS(c -> c <> 'zzz') FROM {0}"],
])("%s asks for every column", async (_, query) => {
  const text = await plan(sp.partialSql(query, df.repartition(4, { hashBy: "ticker" })));
  expect(text).not.toContain("columns");
});

test("a number out of range is an error though nobody reads the column or the row", async () => {
  const cut = df.repartition(10, { by: "id % 11" });
  const unread = sp.partialSql("SELECT count(*) AS n FROM {0}", cut);
  await expect(unread.count()).rejects.toThrow("partition key 10 is out of range 0-9");
  const other = df.repartition(10, { by: "id % 11" }).filter("id % 11 < 10").map("ticker");
  expect(await plan(other)).not.toContain("left out before");
  await expect(other.count()).rejects.toThrow("partition key 10 is out of range 0-9");
  const grouped = sp.partialSql(
    "SELECT id, count(*) AS n FROM {0} WHERE id % 11 < 10 GROUP BY id",
    df.repartition(10, { by: "id % 11" }),
  );
  await expect(grouped.count()).rejects.toThrow("partition key 10 is out of range 0-9");
});

test("conditions go below cuts by hash and range, but only those of a row alone", async () => {
  const below = "WHERE (id > 50), columns id";
  const hash = (): DataFrame => df.repartition(3, { hashBy: "ticker" });
  expect(await plan(hash().filter("id > 50").map("id"))).toContain(below);
  expect(await plan(df.sort("price", { partitions: 3 }).filter("id > 50"))).toContain(
    "WHERE (id > 50) →",
  );
  const name = "rows left out before";
  for (const condition of ["__data_partition__ = 1", "random() < 0.5", "id = (SELECT 3)"]) {
    expect(await plan(hash().filter(condition)), condition).not.toContain(name);
  }
  expect(await plan(hash().limit(5).filter("id > 50"))).not.toContain(name);
  expect(await plan(df.repartition(3, { byRows: true }).filter("id > 50"))).not.toContain(name);
  const top = sp.partialSql("SELECT * FROM (SELECT * FROM {0} LIMIT 3) WHERE id > 50", hash());
  expect(await plan(top)).not.toContain(name);
});

test("whole numbers are summed below the cut, fractions are not", async () => {
  const group = (sum: string): DataFrame =>
    df.repartition(4).groupBy("ticker").agg({ sum, n: "count(*)" });
  expect(await plan(group("sum(id)::BIGINT"))).toContain("groups aggregated before");
  const whole = group("sum(id)");
  expect(await plan(whole)).toContain("groups aggregated before they are dealt out");
  expect(await whole.schema()).toEqual({ ticker: "VARCHAR", sum: "HUGEINT", n: "BIGINT" });
  for (const other of ["sum(price)", "avg(id)", "count(DISTINCT id)", "list(id ORDER BY id)"]) {
    expect(await plan(group(other)), other).not.toContain("groups aggregated before");
  }
});

test("0.0 and -0.0 are one group only where they are in one partition", async () => {
  const items = await sp.fromItems([{ d: 0.5 }, { d: 0 }, { d: -0 }, { d: -0 }]);
  const typed = items.map("CAST(d AS DOUBLE) * 1.0 AS d").repartition(7, { hashBy: "d" });
  const groups = sp.partialSql("SELECT d, count(*) AS n FROM {0} GROUP BY d", typed);
  expect(await plan(groups)).not.toContain("groups aggregated before");
});

test("literals keep all their digits below a cut", async () => {
  const big = "id < 123456789012345678901234567890 AND id <> 9007199254740993";
  const text = await plan(df.repartition(3, { hashBy: "id" }).filter(big));
  expect(text).toMatch(/partition by hash\(id\) of .*123456789012345678901234567890.*740993/);
});

test("a cut that is there is not made again", async () => {
  const keys = { hashBy: ["ticker", "id"] };
  const twice = df.repartition(3, keys).filter("id > 5").repartition(3, keys);
  expect((await plan(twice)).match(/partition by/g)).toHaveLength(1);
  expect(await twice.count()).toBe(394);
  const other = df.repartition(3, keys).map("id + 1 AS id, ticker").repartition(3, keys);
  expect((await plan(other)).match(/partition by/g)).toHaveLength(2);
});

test("what several plans of a session use is made once, whole", async () => {
  const parent = df.repartition(3, { hashBy: ["id", "ticker"] });
  const low = sp.partialSql("SELECT min(price) AS p FROM {0}", parent);
  const high = sp.partialSql("SELECT max(id) AS i FROM {0}", parent);
  const first = await started(() => low.compute());
  expect(first).toBeGreaterThan(3);
  expect(await started(() => high.compute())).toBe(3);
  const mapped = df.map("id * 3 AS three");
  await mapped.compute();
  const next = mapped.filter("three > 30");
  expect(await started(() => next.compute())).toBe(1);
  expect(await plan(next)).toMatch(/^the same/);
});

test("take runs the first partitions only, and more if they have too few rows", async () => {
  const many = df.repartition(100, { byRows: true }).map("id, price + 1 AS p");
  let rows: readonly Record<string, unknown>[] = [];
  const take = async (frame: DataFrame, count: number): Promise<void> => {
    rows = await frame.take(count);
  };
  // The task that finds the ranges of rows, and two partitions on two cores.
  expect(await started(() => take(many, 5))).toBeLessThanOrEqual(3);
  expect(rows.map(({ id }) => Number(id))).toEqual([0, 1, 2, 3, 4]);
  await take(many.filter("id >= 390"), 4);
  expect(rows.map(({ id }) => Number(id))).toEqual([390, 391, 392, 393]);
  await take(many.filter("id > 1000"), 4);
  expect(rows).toEqual([]);
  await take(df.limit(7), 100);
  expect(rows).toHaveLength(7);
});

test("explain says what was done and, after a run, what it took", async () => {
  const frame = df.filter("id > 3").repartition(2, { hashBy: "id" }).map("id, price");
  const before = await frame.explain();
  expect(before).toMatch(
    /^as written:\nsql#\d+ SELECT id, price FROM \{0\} → 2 partitions {2}\(opti/,
  );
  expect(before).toContain("as it runs: rows made while they are dealt out; columns that nobody");
  expect(before).not.toContain("CAST(NULL");
  await frame.compute();
  expect(await frame.explain()).toMatch(/\[2 tasks, 396 rows, p50 [\d.]+ ms, p99 [\d.]+ ms\]/);
  expect(await frame.explain({ optimized: false })).not.toContain("as it runs");
});

test("files and rows are split evenly for every count", () => {
  const seed = testSeed();
  const random = seededRandom(seed);
  for (let files = 1; files <= 12; files++) {
    const parts = Array.from({ length: files }, (_, i) => {
      return { path: `${i}`, numRows: random.int(0, 9) };
    });
    const total = parts.reduce((sum, { numRows }) => sum + numRows, 0);
    for (let n = 1; n <= 2 * files; n++) {
      const at = `seed ${seed}: ${files} files, ${n} partitions`;
      // numpy.array_split: the first `files % n` have one more.
      const sizes = Array.from({ length: n }, (_, i) => Math.floor(files / n) + +(i < files % n));
      const groups = splitEvenly(parts, n);
      expect(
        groups.map((group) => group.length),
        at,
      ).toEqual(sizes);
      expect(groups.flat(), at).toEqual(parts);
      let left = total;
      const rows = Array.from({ length: n }, (_, i) => {
        const size = Math.ceil(left / (n - i));
        left -= size;
        return size;
      });
      const cut = splitRows(parts, n);
      const held = cut.map((group) => group.reduce((sum, part) => sum + (part.numRows ?? 0), 0));
      expect(held, at).toEqual(rows);
      const ids = (part: { path: string; rows?: readonly [number, number]; numRows?: number }) =>
        Array.from(
          { length: part.numRows ?? 0 },
          (_, i) => `${part.path}:${(part.rows?.[0] ?? 0) + i}`,
        );
      expect(cut.flat().flatMap(ids), at).toEqual(parts.flatMap(ids));
    }
  }
});
