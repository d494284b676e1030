// What a reviewer found by using the package as a user would: each was wrong once.

import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { init, type Session } from "../src/index.ts";

const root = mkdtempSync(join(tmpdir(), "smallpond-review-"));
let sp: Session;

beforeAll(async () => {
  sp = await init({ dataRoot: join(root, "jobs"), numExecutors: 1 });
  await sp
    .partialSql("SELECT range AS id, 'T' || range % 7 AS ticker FROM range(100)")
    .writeParquet(join(root, "prices"));
});

afterAll(async () => {
  await sp.shutdown();
  rmSync(root, { recursive: true });
});

test("readers give a frame at once, and may be awaited", async () => {
  const cut = sp.readParquet(join(root, "prices/*.parquet")).repartition(8, { hashBy: "ticker" });
  const groups = sp.partialSql("SELECT ticker, max(id) AS id FROM {0} GROUP BY ticker", cut);
  expect(await groups.count()).toBe(7);
  const frame = await sp.readParquet(join(root, "prices"));
  expect("then" in frame).toBe(false);
  expect(await frame.count()).toBe(100);
  const file = join(root, "numbers.csv");
  writeFileSync(file, "1\n2\n3\n");
  const text = sp.readCsv(file, { schema: { n: "INTEGER" } }).repartition(5, { byRows: true });
  expect(await text.takeAll()).toEqual([{ n: 1 }, { n: 2 }, { n: 3 }]);
});

test("a missing file is an error where it is awaited or used, and nowhere else", async () => {
  const path = join(root, "none*");
  await expect(sp.readParquet(path)).rejects.toThrow(/readParquet: paths is .*none\*/);
  const cut = sp.readParquet(path).repartition(3);
  await expect(cut.count()).rejects.toThrow(/readParquet: paths is .*none\*/);
  await expect(cut.schema()).rejects.toThrow(/readParquet: paths is .*none\*/);
});

test("an option of init that there is not is an error that lists those there are", async () => {
  const options = { dataroot: root } as never;
  await expect(init(options)).rejects.toThrow(/init: option is dataroot; expected .*dataRoot/);
});

test("whole numbers are numbers in functions and results, as long as they are exact", async () => {
  const frame = sp.fromItems([{ n: 1 }, { n: 2 }]);
  const halves = frame.map((row) => ({ half: row.n / 2, list: [row.n + 1] }));
  expect(await halves.takeAll()).toEqual([
    { half: 0.5, list: [2] },
    { half: 1, list: [3] },
  ]);
  expect(await frame.filter((row) => row.n === 2).count()).toBe(1);
  expect(await frame.groupBy(["n"]).count().map("count").takeAll()).toEqual([
    { count: 1 },
    { count: 1 },
  ]);
  const large = 2n ** 53n;
  const both = sp.partialSql(`SELECT unnest([${large - 1n}, ${large}, -${large}]) AS n`);
  expect(await both.map((row) => row).takeAll()).toEqual([
    { n: Number.MAX_SAFE_INTEGER },
    { n: large },
    { n: -large },
  ]);
});

test("tasks that spill at once do not write over each other's rows", async () => {
  const small = await init({
    dataRoot: join(root, "small"),
    numExecutors: 1,
    executorCpus: 2,
    executorMemoryBytes: 160 * 2 ** 20,
  });
  try {
    const rows = 1_500_000;
    const texts = "SELECT range AS i, md5(range::VARCHAR) AS s, md5((range * 7)::VARCHAR) AS u";
    const cut = small.partialSql(`${texts} FROM range(${rows})`).repartition(2, { hashBy: "i" });
    const sorted = cut
      .partialSort("s")
      .select(
        "SELECT count(*) AS n, " +
          "sum((s = md5(i::VARCHAR) AND u = md5((i * 7)::VARCHAR))::INT) AS good " +
          "FROM {0}",
      );
    const sums = await sorted.takeAll();
    expect(sums.map(({ n, good }) => Number(n) - Number(good))).toEqual([0, 0]);
    expect(sums.reduce((sum, { n }) => sum + Number(n), 0)).toBe(rows);
  } finally {
    await small.shutdown();
  }
});

test("a script that never calls shutdown ends, and its executors with it", async () => {
  const script = join(root, "script.ts");
  const source = new URL("../src/index.ts", import.meta.url).href;
  writeFileSync(
    script,
    `import { init } from ${JSON.stringify(source)};
    const sp = await init({ dataRoot: ${JSON.stringify(root)}, jobId: "left", numExecutors: 2 });
    const rows = sp.fromItems([{ a: 1 }]).map(async (row) => {
      await new Promise((done) => setTimeout(done, 300));
      return { a: row.a + 1 };
    });
    console.log(JSON.stringify([await rows.takeAll(), Object.values(sp.executorPids)]));`,
  );
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ["--conditions=@open-infra/source", script],
    { timeout: 60_000 },
  );
  const [rows, pids] = JSON.parse(stdout) as [unknown, number[]];
  expect(rows).toEqual([{ a: 2 }]);
  expect(pids).toHaveLength(2);
  for (const pid of pids) expect(() => process.kill(pid, 0)).toThrow(/ESRCH/);
  expect(readFileSync(join(root, "left", "log", ".STATUS"), "utf8")).toMatch(/^success@/);
});

test("sums beyond 2^53 stay exact, through every cut and into functions", async () => {
  await using session = await init({ dataRoot: root, jobId: "sums", executorCpus: 1 });
  const query = "SELECT 9007199254740993::BIGINT AS a, i % 3 AS g FROM range(6) t(i)";
  const sums = session.partialSql(query).repartition(2, { hashBy: "g" });
  const grouped = sums.groupBy("g").agg({ s: "sum(a)" });
  const rows = await grouped.sort("g").takeAll();
  expect(rows).toEqual([0, 1, 2].map((g) => ({ g, s: 18014398509481986n })));
  const again = grouped.repartition(2, { byRows: true }).map((row) => ({ t: row.s + 1n }));
  expect(await again.takeAll()).toEqual([0, 1, 2].map(() => ({ t: 18014398509481987n })));
});

test("columns may be called {0}, and a query may end in a semicolon", async () => {
  await using session = await init({ dataRoot: root, jobId: "braces", executorCpus: 1 });
  const frame = session.fromItems([1, 2, 2].map((n) => ({ "{0}": n, "{rand_seed}": `"{1}"` })));
  const cut = frame.repartition(2, { hashBy: "{0}" });
  expect(await cut.groupBy("{0}").count().sort('"{0}"').takeAll()).toEqual([
    { "{0}": 1, count: 1 },
    { "{0}": 2, count: 2 },
  ]);
  const query = `SELECT "{0}" AS a FROM {0} -- 5" {0}\n;`;
  const rows = await session.partialSql(query, frame).takeAll();
  expect(rows).toEqual([1, 2, 2].map((a) => ({ a })));
});
