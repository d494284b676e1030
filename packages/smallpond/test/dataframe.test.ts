// The DataFrame on real executor processes, beside DuckDB alone on the same rows. The first part is
// what the original gets wrong.

import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DuckDBInstance } from "@duckdb/node-api";
import { seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type DataFrame, init, PlanError, type Session, TaskError } from "../src/index.ts";

const root = mkdtempSync(join(tmpdir(), "smallpond-"));
let sp: Session;
let duck: Awaited<ReturnType<DuckDBInstance["connect"]>>;

beforeAll(async () => {
  duck = await (await DuckDBInstance.create(":memory:")).connect();
  for (let file = 0; file < 4; file++) {
    const rows = `SELECT range + ${file * 1000} AS id, 't' || hash(range) % 37 AS ticker,
      (hash(range + ${file}) % 10000) / 100.0 AS price,
      CASE WHEN range % 11 = 0 THEN NULL ELSE range % 5 END AS kind FROM range(${1000 - file})`;
    await duck.run(`COPY (${rows}) TO '${root}/in-${file}.parquet' (FORMAT parquet)`);
  }
  await duck.run(`CREATE VIEW t AS SELECT * FROM read_parquet('${root}/in-*.parquet')`);
  sp = await init({ jobId: "test", dataRoot: root, numExecutors: 2, executorCpus: 2 });
});

afterAll(async () => {
  await sp.shutdown();
  rmSync(root, { recursive: true, force: true });
});

const read = (): Promise<DataFrame> => sp.readParquet(`${root}/in-*.parquet`);

async function sql(query: string): Promise<Record<string, unknown>[]> {
  return (await duck.runAndReadAll(query)).getRowObjectsJS() as Record<string, unknown>[];
}

const sorted = (rows: readonly Record<string, unknown>[]): string[] =>
  rows.map((row) => JSON.stringify(row, (_, v) => (typeof v === "bigint" ? Number(v) : v))).sort();

test("a limit holds whatever comes after it", async () => {
  const ten = (await read()).repartition(10, { byRows: true });
  expect(await ten.limit(5).map("id").count()).toBe(5);
  expect(await ten.limit(5).filter("id >= 0").count()).toBe(5);
  expect(await ten.limit(0).count()).toBe(0);
});

test("braces that are no placeholder stay as they are", async () => {
  const frame = (await read()).map("{'a': id} AS s");
  expect(await frame.take(1)).toEqual([{ s: { a: 0 } }]);
});

test("what is computed says so, and a shared parent runs once", async () => {
  const parent = (await read()).repartition(3, { hashBy: "ticker" });
  const ran: string[] = [];
  const stop = sp.listen((event) => event.type === "started" && ran.push(event.task.key));
  const low = parent.filter("price < 10");
  const high = parent.filter("price >= 10");
  expect(low.isComputed()).toBe(false);
  const rows = (await low.count()) + (await high.count());
  stop();
  expect(low.isComputed()).toBe(true);
  expect(rows).toBe(3994);
  expect(new Set(ran).size).toBe(ran.length);
});

test("a partition key out of range is an error that names it", async () => {
  const frame = (await read()).repartition(10, { by: "id % 11" });
  await expect(frame.count()).rejects.toThrow("partition key 10 is out of range 0-9");
});

test("a query that fails is in the error", async () => {
  const frame = (await read()).map("no_such_column");
  await expect(frame.count()).rejects.toThrow(/no_such_column[\s\S]*query: SELECT no_such_column/);
  await expect(frame.count()).rejects.toThrow(TaskError);
});

test("partitions that do not match are found before anything runs", async () => {
  const three = (await read()).repartition(3, { byRows: true });
  const four = (await read()).repartition(4, { byRows: true });
  expect(() => sp.partialSql("SELECT * FROM {0} JOIN {1} USING (id)", three, four)).toThrow(
    /0-2 and __data_partition__ 0-3/,
  );
  const one = sp.partialSql("SELECT max(id) AS m FROM {0}", await read());
  const broadcast = sp.partialSql("SELECT id, m FROM {0}, {1}", three, one);
  expect(await broadcast.count()).toBe(3994);
});

test("placement is hash(concat_ws('##', columns)) % n, row for row", async () => {
  const frame = (await read()).repartition(5, { hashBy: ["ticker", "kind"] });
  const ours = await frame.map("id, __data_partition__ AS p").takeAll();
  const theirs = await sql(
    "SELECT id, (hash(concat_ws('##', ticker, kind)) % 5)::BIGINT AS p FROM t",
  );
  expect(sorted(ours)).toEqual(sorted(theirs));
});

test("a captured variable is an error that names it and the line", async () => {
  const factor = 3;
  const frame = await read();
  expect(() => frame.map((row: { price: number }) => ({ y: row.price * factor }))).toThrow(
    PlanError,
  );
  expect(() => frame.map((row: { price: number }) => ({ y: row.price * factor }))).toThrow(
    /dataframe\.test\.ts:\d+.*'factor'/,
  );
});

test("the same inputs and code are not computed twice, edited code is", async () => {
  const started = async (frame: DataFrame): Promise<number> => {
    let count = 0;
    const stop = sp.listen((event) => event.type === "started" && count++);
    await frame.compute();
    stop();
    return count;
  };
  const make = async (text: string): Promise<DataFrame> => (await read()).map(text);
  expect(await started(await make("id + 1000 AS edited"))).toBe(1);
  expect(await started(await make("id + 1000 AS edited"))).toBe(0);
  expect(await started(await make("id + 1001 AS edited"))).toBe(1);
});

test("writing leaves whole files and no staging", async () => {
  const out = join(root, "out");
  await (await read()).repartition(3, { byRows: true }).writeParquet(out);
  const files = readdirSync(out).sort();
  expect(files[0]).toBe("part-00000-0.parquet");
  expect(files.every((name) => /^part-0000[012]-[01]\.parquet$/.test(name))).toBe(true);
  expect(sorted(await sql(`SELECT * FROM read_parquet('${out}/*.parquet')`))).toEqual(
    sorted(await sql("SELECT * FROM t")),
  );
});

/** A random pipeline and the same as one query. */
function randomPipeline(
  frame: DataFrame,
  random: ReturnType<typeof seededRandom>,
): { frame: DataFrame; query: string; text: string } {
  let current = frame;
  let query = "SELECT * FROM t";
  const steps: string[] = [];
  const cuts = [
    () => current.repartition(random.int(1, 7)),
    () => current.repartition(random.int(1, 7), { byRows: true }),
    () => current.repartition(random.int(1, 7), { hashBy: "ticker" }),
    () => current.repartition(3, { by: "id % 3" }),
  ];
  for (let step = 0; step < random.int(1, 6); step++) {
    const kind = random.int(0, 5);
    if (kind <= 1) {
      const cut = random.int(0, 4);
      current = (cuts[cut] as () => DataFrame)();
      query = `SELECT COLUMNS(c -> c <> '__data_partition__') FROM (${query})`;
      current = current.map("COLUMNS(c -> c <> '__data_partition__')");
      steps.push(`cut ${cut}`);
    } else if (kind === 2) {
      const bound = random.int(0, 100);
      current = current.filter(`price > ${bound}`);
      query = `SELECT * FROM (${query}) WHERE price > ${bound}`;
      steps.push(`filter ${bound}`);
    } else if (kind === 3) {
      current = current.map("id, ticker, price + 1 AS price, kind");
      query = `SELECT id, ticker, price + 1 AS price, kind FROM (${query})`;
      steps.push("map");
    } else {
      current = current.partialSort("price DESC");
      steps.push("sort");
    }
  }
  return { frame: current, query, text: steps.join(" → ") };
}

test("random pipelines equal DuckDB row for row", async () => {
  const seed = testSeed();
  const random = seededRandom(seed);
  const frame = await read();
  for (let i = 0; i < 20; i++) {
    const pipeline = randomPipeline(frame, random);
    const ours = sorted(await pipeline.frame.takeAll());
    expect(ours, `seed ${seed}, pipeline ${i}: ${pipeline.text}`).toEqual(
      sorted(await sql(pipeline.query)),
    );
  }
});
