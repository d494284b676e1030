// The original's own tests of its DataFrame, one for one in what they hold: the same tables, the
// same counts, the same texts of errors.

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { testSeed } from "@open-infra/testing";
import { type Table, tableFromArrays } from "apache-arrow";
import { afterAll, beforeAll, expect, test } from "vitest";
import { fromModule, init, PlanError, type Row, type Session, TaskError } from "../src/index.ts";

const root = mkdtempSync(join(tmpdir(), "smallpond-gold-"));
let sp: Session;

beforeAll(async () => {
  sp = await init({ jobId: "gold", dataRoot: root, numExecutors: 1, executorCpus: 2 });
});

afterAll(async () => {
  await sp.shutdown();
  rmSync(root, { recursive: true, force: true });
});

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
const numbers = (rows: readonly Row[], column: string): number[] =>
  rows.map((row) => Number(row[column]));
const sorted = (values: readonly number[]): number[] => values.toSorted((a, b) => a - b);

test("fromItems: plain values, rows, lists inside", async () => {
  const plain = await sp.fromItems([1, 2, 3]);
  expect(await plain.schema()).toEqual({ item: "BIGINT" });
  expect(numbers(await plain.takeAll(), "item")).toEqual([1, 2, 3]);
  const rows = await sp.fromItems([
    { a: 1, b: "x", c: [1, 2] },
    { a: 2, b: null, c: [] },
  ]);
  expect(await rows.takeAll()).toEqual([
    { a: 1, b: "x", c: [1, 2] },
    { a: 2, b: null, c: [] },
  ]);
  await expect(sp.fromItems([])).rejects.toThrow(/fromItems: items is empty/);
});

test("fromArrow and toArrow give back the same", async () => {
  const table = tableFromArrays({ a: [1, 2, 3], b: ["x", "y", "z"] });
  const back = await (await sp.fromArrow(table)).toArrow();
  expect(back.numRows).toBe(3);
  expect([...(back.getChild("a") ?? [])]).toEqual([1, 2, 3]);
  expect([...(back.getChild("b") ?? [])]).toEqual(["x", "y", "z"]);
});

test("CSV, JSON and Parquet are read with their options", async () => {
  writeFileSync(join(root, "a.csv"), "id|name\n1|x\n2|\n");
  writeFileSync(join(root, "a.json"), '{"id": 1, "name": "x"}\n{"id": 2}\n');
  const schema = { id: "BIGINT", name: "VARCHAR" };
  const csv = await sp.readCsv(join(root, "a.csv"), { schema, delimiter: "|", header: true });
  const json = await sp.readJson(join(root, "a.json"), { schema });
  const expected = [
    { id: 1, name: "x" },
    { id: 2, name: null },
  ];
  expect(await csv.takeAll()).toEqual(expected);
  expect(await json.takeAll()).toEqual(expected);
  await csv.writeParquet(join(root, "a"));
  const parquet = await sp.readParquet(join(root, "a"), { columns: ["name"] });
  expect(await parquet.takeAll()).toEqual([{ name: "x" }, { name: null }]);
});

test("repartition by files, rows, hash, a column, an expression", async () => {
  const items = await sp.fromItems(range(100).map((item) => ({ item, part: item % 10 })));
  expect(items.repartition(10).numPartitions).toBe(10);
  const rows = items.repartition(10, { byRows: true });
  const sizes = (await rows.compute()).map((set) => set.parts.map(({ numRows }) => numRows));
  expect(sizes).toEqual(range(10).map(() => [10]));
  const hashed = items.repartition(10, { hashBy: "item" });
  expect(sorted(numbers(await hashed.takeAll(), "item"))).toEqual(range(100));
  const counts = (frame: typeof items): Promise<readonly Row[]> =>
    sp
      .partialSql("SELECT count(*) AS n, min(part) AS low, max(part) AS high FROM {0}", frame)
      .takeAll();
  for (const frame of [
    items.repartition(10, { by: "part" }),
    items.repartition(10, { by: "item % 10" }),
  ]) {
    expect(await counts(frame)).toEqual(range(10).map((i) => ({ n: 10, low: i, high: i })));
  }
  const wrong = items.repartition(10, { by: "item % 11" });
  await expect(wrong.compute()).rejects.toThrow("partition key 10 is out of range 0-9");
  expect(() => items.repartition(3, { by: "a", hashBy: "b" })).toThrow(/only one of them/);
  expect(() => items.repartition(3, { by_row: true } as never)).toThrow(
    /repartition: option is by_row; expected byRows, hashBy, by/,
  );
});

test("randomShuffle mixes", async () => {
  const frame = (await sp.fromItems(range(1000))).repartition(10, { byRows: true }).randomShuffle();
  const mixed = numbers(await frame.takeAll(), "item");
  expect(sorted(mixed)).toEqual(range(1000));
  let inversions = 0;
  for (let i = 0; i < 1000; i++) {
    for (let j = i + 1; j < 1000; j++) {
      if ((mixed[i] as number) > (mixed[j] as number)) inversions++;
    }
  }
  expect(inversions, `seed ${testSeed()}`).toBeGreaterThan(220_000);
  expect(inversions).toBeLessThan(280_000);
});

test("partialSort orders each partition", async () => {
  const frame = (await sp.fromItems(range(100)))
    .repartition(10, { hashBy: "item" })
    .partialSort("item DESC");
  for (const set of await frame.compute()) {
    const rows = await sp.query(`SELECT item FROM read_parquet('${set.parts[0]?.path}')`);
    const values = numbers(rows, "item");
    expect(values).toEqual(sorted(values).reverse());
  }
});

test("filter, map and flatMap take SQL and functions alike", async () => {
  const frame = (await sp.fromItems(range(10))).repartition(2, { byRows: true });
  const even = [0, 2, 4, 6, 8];
  expect(numbers(await frame.filter("item % 2 = 0").takeAll(), "item")).toEqual(even);
  expect(numbers(await frame.filter((r) => r.item % 2 === 0).takeAll(), "item")).toEqual(even);
  const sql = frame.map("item, item + 1 AS next -- a comment");
  const fn = frame.map((row) => ({ item: row.item, next: row.item + 1 }));
  expect(await fn.takeAll()).toEqual(await sql.takeAll());
  const twice = range(10).flatMap((i) => [i, i]);
  expect(numbers(await frame.flatMap("[item, item] ").map("#1 AS item").takeAll(), "item")).toEqual(
    twice,
  );
  const doubled = frame.flatMap((row) => [{ item: row.item }, { item: row.item }]);
  expect(numbers(await doubled.takeAll(), "item")).toEqual(twice);
});

test("a schema for columns that are NULL throughout", async () => {
  const frame = await sp.fromItems(range(3));
  const nulls = frame.map(() => ({ a: null, b: null }), { schema: { a: "BIGINT", b: "DATE[]" } });
  expect(await nulls.takeAll()).toEqual(range(3).map(() => ({ a: null, b: null })));
  await nulls.compute();
  const set = (await nulls.compute())[0];
  const types = await sp.query(`DESCRIBE SELECT * FROM read_parquet('${set?.parts[0]?.path}')`);
  expect(types.map(({ column_type }) => column_type)).toEqual(["BIGINT", "DATE[]"]);
});

test("batches of 350 of 1000 rows: 350, 350, 300; rows, Arrow tables, a stream", async () => {
  const frame = await sp.fromItems(range(1000));
  const rows = frame.mapBatches((batch) => [{ n: batch.length }], { batchRows: 350 });
  expect(numbers(await rows.takeAll(), "n")).toEqual([350, 350, 300]);
  const steps = new URL("./batch-steps.ts", import.meta.url);
  const arrow = frame.mapBatches(fromModule(steps, "sizeOf"), { batchRows: 350, format: "arrow" });
  expect(numbers(await arrow.takeAll(), "n")).toEqual([350, 350, 300]);
  const streamed = frame.mapBatches(
    async function* (batches: AsyncIterable<Table>) {
      let before = 0;
      for await (const batch of batches) {
        yield [{ before, n: batch.numRows }];
        before += batch.numRows;
      }
    },
    { batchRows: 350, format: "arrow", streaming: true },
  );
  expect(await streamed.takeAll()).toEqual([
    { before: 0, n: 350 },
    { before: 350, n: 350 },
    { before: 700, n: 300 },
  ]);
  expect(await frame.mapBatches((batch) => batch).count()).toBe(1000);
  expect(() => frame.mapBatches((batch) => batch, { batchRows: 0 })).toThrow(/batchRows is 0/);
});

test("limit counts over all partitions", async () => {
  const ten = (await sp.fromItems(range(1000))).repartition(10, { byRows: true });
  expect(await ten.limit(2).count()).toBe(2);
  expect(await ten.limit(5).map("item").count()).toBe(5);
  expect(await ten.limit(5).filter("item >= 0").count()).toBe(5);
  expect(await ten.limit(5000).count()).toBe(1000);
  expect(() => ten.limit(-1)).toThrow(/limit is -1/);
});

test("partialSql: joins by partition, none in, placeholders and other braces", async () => {
  const left = (await sp.fromItems(range(10).map((id) => ({ id, a: id * 2 })))).repartition(3, {
    hashBy: "id",
  });
  const right = (await sp.fromItems(range(10).map((id) => ({ id, b: id * 3 })))).repartition(3, {
    hashBy: "id",
  });
  const joined = sp.partialSql("SELECT id, a, b FROM {0} JOIN {1} USING (id)", left, right);
  expect(sorted(numbers(await joined.map("a + b AS c").takeAll(), "c"))).toEqual(
    range(10).map((id) => id * 5),
  );
  expect(await sp.partialSql("SELECT 1 AS one").takeAll()).toEqual([{ one: 1 }]);
  expect(await joined.map("{'a': id} AS s").filter("s.a = 3").takeAll()).toEqual([{ s: { a: 3 } }]);
  const parts = sp.partialSql("SELECT DISTINCT {__data_partition__} AS p FROM {0}", left);
  expect(sorted(numbers(await parts.takeAll(), "p"))).toEqual([0, 1, 2]);
  expect(() => sp.partialSql("SELECT * FROM {1}", left)).toThrow(PlanError);
});

test("count, take, takeAll and their like", async () => {
  const frame = (await sp.fromItems(range(100))).repartition(4, { byRows: true });
  expect(await frame.count()).toBe(100);
  expect(numbers(await frame.take(3), "item")).toEqual([0, 1, 2]);
  expect(await frame.take(0)).toEqual([]);
  expect(numbers(await frame.takeAll(), "item")).toEqual(range(100));
  expect(await frame.show(1)).toBe("item\n----\n   0");
  expect(await frame.columns()).toEqual(["item"]);
  const none = frame.filter("item < 0");
  expect(await none.takeAll()).toEqual([]);
  expect(await none.count()).toBe(0);
  const arrow = await none.toArrow();
  expect([arrow.numRows, arrow.schema.names]).toEqual([0, ["item"]]);
});

test("errors have the query, or the variable and its line", async () => {
  const frame = await sp.fromItems(range(3));
  await expect(frame.map("abc + 1").compute()).rejects.toThrow(/query: SELECT abc \+ 1/);
  await expect(frame.map("abc + 1").compute()).rejects.toThrow(TaskError);
  await expect(
    frame.map((row) => (row.item === 1 ? JSON.parse("{") : row)).compute(),
  ).rejects.toThrow(/JSON/);
  const captured = 3;
  expect(() => frame.map((row) => ({ x: row.item + captured }))).toThrow(
    /dataframe-gold\.test\.ts:\d+: the function uses 'captured'/,
  );
});

test("a failed action leaves the session as it was", async () => {
  const frame = await sp.fromItems(range(3));
  await expect(frame.map("nothing").compute()).rejects.toThrow(TaskError);
  expect(await frame.count()).toBe(3);
});

test("a shared parent runs once, and is computed after compute", async () => {
  const started: string[] = [];
  const stop = sp.listen(({ type, task }) => type === "started" && started.push(task.key));
  const parent = (await sp.fromItems(range(50))).map("item * 7 AS shared");
  const children = [parent.filter("shared > 70"), parent.filter("shared <= 70")];
  expect(parent.isComputed()).toBe(false);
  await parent.compute();
  expect(parent.isComputed()).toBe(true);
  await sp.wait(...children);
  await children[0]?.take(2);
  stop();
  expect(started.length).toBe(new Set(started).size);
  expect(started.length).toBe(3);
});

test("writeParquetLazy writes when it is waited for", async () => {
  const frame = (await sp.fromItems(range(10))).repartition(2, { byRows: true });
  const paths = ["lazy-a", "lazy-b"].map((name) => join(root, name));
  const lazy = paths.map((path) => frame.map("item").writeParquetLazy(path));
  expect(readdirSync(root)).not.toContain("lazy-a");
  await sp.wait(...lazy);
  for (const path of paths) expect(readdirSync(path)).toHaveLength(2);
  expect(sp.graph(...lazy).dot).toContain("->");
});

test("the session's status file, its clean-up, and what a failure keeps", async () => {
  const dataRoot = join(root, "jobs");
  const session = await init({ dataRoot, executorCpus: 1 });
  await (await session.fromItems(range(3))).map("item").compute();
  await session.shutdown();
  expect(readFileSync(join(session.folder.root, "log", ".STATUS"), "utf8")).toMatch(
    /^success@\d{4}-.*\n$/,
  );
  expect(readdirSync(session.folder.root)).toEqual(["log"]);
  const failing = await init({ dataRoot, jobId: "bad", executorCpus: 1 });
  await expect((await failing.fromItems([1])).map("nothing").compute()).rejects.toThrow();
  await failing.shutdown();
  expect(readFileSync(join(dataRoot, "bad", "log", ".STATUS"), "utf8")).toMatch(/^failure@/);
  expect(readdirSync(join(dataRoot, "bad"))).toContain("staging");
});
