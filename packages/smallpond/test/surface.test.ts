// The calls beyond the original's, beside DuckDB alone and at their edges: NULL and odd keys, types
// that differ, empty frames, text by rows, Arrow's types, names that are wrong.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  Bool,
  Dictionary,
  Field,
  Float64,
  Int32,
  List,
  Map_,
  makeData,
  RecordBatch,
  Schema,
  Struct,
  Table,
  TimestampMicrosecond,
  tableFromArrays,
  tableFromIPC,
  tableToIPC,
  Utf8,
  vectorFromArray,
} from "apache-arrow";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type DataFrame, init, type Row, type Session } from "../src/index.ts";
import { withEnvironment } from "../src/session/options.ts";

const root = mkdtempSync(join(tmpdir(), "smallpond-surface-"));
let sp: Session;

beforeAll(async () => {
  sp = await init({ jobId: "surface", dataRoot: root, numExecutors: 1, executorCpus: 2 });
});

afterAll(async () => {
  await sp.shutdown();
  rmSync(root, { recursive: true, force: true });
});

const show = (rows: readonly Row[]): string[] =>
  rows.map((row) => JSON.stringify(row, (_, v) => (typeof v === "bigint" ? Number(v) : v))).sort();

test("groups of NULLs, of keys that would run together, of both zeros", async () => {
  const rows = [
    ["a", null],
    [null, "a"],
    ["a##", "b"],
    ["a", "##b"],
    [null, null],
    ["", ""],
  ];
  const frame = (
    await sp.fromItems(
      [...rows, ...rows].map(([x, y], i) => ({ 'x "q"': x, y, z: i % 2 ? 0 : -0 })),
    )
  ).repartition(4, { byRows: true });
  const groups = await frame.groupBy('x "q"', "y").count().takeAll();
  expect(groups).toHaveLength(rows.length);
  expect(groups.every(({ count }) => count === 2)).toBe(true);
  const zeros = frame.map("CASE WHEN y IS NULL THEN -0.0::DOUBLE ELSE 0.0::DOUBLE END AS z");
  expect(await zeros.groupBy("z").count().count()).toBe(1);
  expect(await (await zeros.distinct()).count()).toBe(1);
});

test("joins of keys whose types differ, by what DuckDB finds equal", async () => {
  const left = sp.partialSql("SELECT range AS id, range AS a FROM range(50)").repartition(3, {
    byRows: true,
  });
  for (const type of ["INTEGER", "DOUBLE", "DECIMAL(9,2)", "HUGEINT", "VARCHAR"]) {
    const right = sp
      .partialSql(`SELECT CAST(range AS ${type}) AS id, range AS b FROM range(25, 75)`)
      .repartition(5, { byRows: true });
    const joined = left.join(right, { on: "id" }).filter("a = b");
    expect(await joined.count(), type).toBe(25);
    // DuckDB has no one type for the keys of both sides.
    if (type === "VARCHAR") continue;
    expect(await left.join(right, { on: "id", how: "full" }).count(), type).toBe(75);
    expect(await left.join(right, { on: "id", how: "anti" }).count(), type).toBe(25);
  }
  const dates = sp
    .partialSql("SELECT DATE '2020-01-01' + range::INTEGER AS d FROM range(20)")
    .repartition(3, { byRows: true });
  const times = dates.map("d::TIMESTAMP AS d, 1 AS one").repartition(4, { byRows: true });
  expect(await dates.join(times, { on: "d" }).count()).toBe(20);
});

test("a join drops what cuts left, meets no NULLs, and takes quoted keys", async () => {
  const items = [{ "my key": 1 }, { "my key": null }, { "my key": 2 }];
  const left = (await sp.fromItems(items)).repartition(2, { hashBy: "my key" });
  const right = (await sp.fromItems(items.map((row) => ({ ...row, b: 1 })))).repartition(3, {
    hashBy: "my key",
  });
  const joined = left.join(right, { on: ["my key"] });
  expect(await joined.columns()).toEqual(["my key", "b"]);
  expect(show(await joined.takeAll())).toEqual(['{"my key":1,"b":1}', '{"my key":2,"b":1}']);
  expect(() => left.join(right, { on: "my key", how: "outer" as never })).toThrow(/how is outer/);
});

test("sort by expressions, with NULLS FIRST, over more partitions than values", async () => {
  const values = [5, null, 3, 9, null, 1, 7, 3, 5, 9];
  const frame = (await sp.fromItems(values.map((v) => ({ v })))).repartition(3, { byRows: true });
  for (const order of [
    "v",
    "v DESC",
    "v NULLS FIRST",
    "v DESC NULLS FIRST",
    "v desc nulls last",
    "-v NULLS FIRST, v",
    "coalesce(v, 4), v",
  ]) {
    const ours = await frame.sort(order, { partitions: 7 }).map("v").takeAll();
    const list = values.map((v) => `(${v}::BIGINT)`).join(", ");
    const theirs = await sp.query(`SELECT v FROM (VALUES ${list}) t(v) ORDER BY ${order}`);
    expect(ours, order).toEqual(theirs);
  }
  expect(() => frame.sort("")).toThrow(/sort: by/);
});

test("frames and files without rows", async () => {
  const none = sp.partialSql("SELECT 1::BIGINT AS id, 'x' AS s WHERE false");
  const cut = none.repartition(3, { byRows: true });
  expect(await cut.count()).toBe(0);
  expect(await cut.groupBy("s").count().takeAll()).toEqual([]);
  expect(await cut.sort("id", { partitions: 4 }).count()).toBe(0);
  expect(await (await cut.distinct()).count()).toBe(0);
  const some = sp.partialSql("SELECT 2::BIGINT AS id").repartition(2, { byRows: true });
  expect(await some.join(cut, { on: "id", how: "left" }).count()).toBe(1);
  expect(await none.union(some).count()).toBe(1);
  expect(await none.map((row) => row).count()).toBe(0);
  await none.writeParquet(join(root, "none"));
  expect(await (await sp.readParquet(join(root, "none"))).columns()).toEqual(["id", "s"]);
  const arrow = await (await sp.fromArrow(tableFromArrays({ a: new Float64Array(0) }))).toArrow();
  expect([arrow.numRows, arrow.schema.names]).toEqual([0, ["a"]]);
});

test("union by name; withColumn, drop and rename", async () => {
  const a = sp.partialSql("SELECT range AS id, 'a' AS s FROM range(3)");
  const b = sp.partialSql("SELECT 'b' AS s, range AS n FROM range(4)").repartition(4, {
    byRows: true,
  });
  const both = a.union(b);
  expect(await both.count()).toBe(7);
  expect(await both.columns()).toEqual(["id", "s", "n"]);
  expect(await a.union(a, a).count()).toBe(9);
  expect(await b.union(b).count()).toBe(8);
  const more = a.withColumn("twice", "id * 2").withColumn("id", "id + 1").rename({ s: "the s" });
  expect(await more.drop("the s").takeAll()).toEqual(
    [0, 1, 2].map((i) => ({ twice: i * 2, id: i + 1 })),
  );
  await expect(a.drop("nothing").count()).rejects.toThrow(/nothing/);
});

test("text is cut by rows, lines within quotes and files of any size", async () => {
  mkdirSync(join(root, "text"));
  const texts = Array.from({ length: 97 }, (_, i) => (i % 5 === 0 ? `line\n${i}, "q"` : `t${i}`));
  const quoted = (text: string): string => `"${text.replaceAll('"', '""')}"`;
  const line = (text: string, i: number): string => `${i},${quoted(text)}`;
  const lines = texts.map(line);
  writeFileSync(join(root, "text", "0.csv"), `id,s\n${lines.slice(0, 80).join("\n")}\n`);
  writeFileSync(join(root, "text", "1.csv"), "id,s\n");
  writeFileSync(join(root, "text", "2.csv"), `id,s\n${lines.slice(80).join("\n")}\n`);
  const schema = { id: "BIGINT", s: "VARCHAR" };
  const csv = await sp.readCsv(join(root, "text"), { schema, header: true });
  for (const frame of [csv, csv.repartition(2)]) {
    const cut = frame.repartition(10, { byRows: true });
    const sizes = (await cut.compute()).map(({ parts }) =>
      parts.reduce((sum, { numRows }) => sum + (numRows ?? 0), 0),
    );
    expect(sizes).toEqual([10, 10, 10, 10, 10, 10, 10, 9, 9, 9]);
    expect(await cut.takeAll()).toEqual(texts.map((s, i) => ({ id: i, s })));
  }
  const objects = texts.map((s, id) => JSON.stringify({ id, s }));
  writeFileSync(join(root, "a.ndjson"), `${objects.join("\n")}\n`);
  const json = await sp.readJson(join(root, "a.ndjson"), { schema });
  expect(await json.repartition(4, { byRows: true }).takeAll()).toEqual(
    texts.map((s, i) => ({ id: i, s })),
  );
});

test("readers say what is missing and what they take", async () => {
  const schema = { a: "BIGINT" };
  await expect(sp.readCsv(join(root, "no*.csv"), { schema })).rejects.toThrow(/an existing file/);
  await expect(sp.readCsv(root, {} as never)).rejects.toThrow(/readCsv: schema is missing/);
  await expect(sp.readParquet([])).rejects.toThrow(/paths is empty/);
  await expect(sp.readParquet(root, { union_by_name: true } as never)).rejects.toThrow(
    /readParquet: option is union_by_name; expected columns, recursive, unionByName/,
  );
  mkdirSync(join(root, "table", "_delta_log"), { recursive: true });
  await expect(sp.readDelta(join(root, "table"))).rejects.toThrow(
    /the DuckDB extension delta, which is not installed|expected/,
  );
  await expect(sp.readDelta(root)).rejects.toThrow(/a table's folder, with _delta_log in it/);
});

async function around(table: Table): Promise<Table> {
  return await (await sp.fromArrow(table)).toArrow();
}

test("Arrow's types go in and come back", async () => {
  const strings = vectorFromArray(["a", null, "é😀", ""], new Utf8());
  const table = new Table({
    i: vectorFromArray([1, null, 3, -4], new Int32()),
    f: vectorFromArray([0.5, null, Number.NaN, Number.POSITIVE_INFINITY], new Float64()),
    b: vectorFromArray([true, null, false, true], new Bool()),
    s: strings,
    d: vectorFromArray(["x", "y", null, "x"], new Dictionary(new Utf8(), new Int32())),
    t: vectorFromArray([-1.5, 0, null, 1e9], new TimestampMicrosecond()),
    l: vectorFromArray(
      [[1, null], null, [], [2, 3]],
      new List(new Field("item", new Int32(), true)),
    ),
  });
  const sql = await sp.query("SELECT 1");
  expect(sql).toHaveLength(1);
  for (const form of [table, tableFromIPC(tableToIPC(table)), table.slice(1, 4)]) {
    const back = await around(form);
    expect(back.numRows).toBe(form.numRows);
    for (const name of form.schema.names as string[]) {
      const plain = (t: Table): string =>
        JSON.stringify([...(t.getChild(name) ?? [])].map((v) => (v === null ? null : String(v))));
      expect(plain(back), name).toBe(plain(form));
    }
  }
});

test("nested Arrow types, decimals and times come from DuckDB and go back the same", async () => {
  const query = `SELECT range AS i, (range - 3) * 12345678901234567890.12345::DECIMAL(38,5) AS d,
    (range % 100)::DECIMAL(4,1) AS small,
    TIMESTAMP '1969-12-31 23:59:59.999999' + INTERVAL (range) HOUR AS t,
    DATE '1969-12-30' + range::INTEGER AS day, TIME '01:02:03.000004' AS clock,
    CASE WHEN range % 3 = 0 THEN NULL ELSE {'a': range, 'l': [{'b': range::VARCHAR}]} END AS s,
    MAP {range::VARCHAR: [range, NULL]} AS m, encode('x' || range) AS bytes,
    range % 2 = 0 AS even, TIMESTAMPTZ '2020-01-01 00:00:00+00' AS z FROM range(5000)`;
  const frame = sp.partialSql(query);
  const arrow = await frame.toArrow();
  expect(arrow.numRows).toBe(5000);
  expect(arrow.schema.fields.find(({ name }) => name === "m")?.type).toBeInstanceOf(Map_);
  const back = await sp.fromArrow(arrow);
  const same = sp.partialSql("SELECT * FROM {0} EXCEPT ALL SELECT * FROM {1}", frame, back);
  expect(await same.count()).toBe(0);
  expect(await back.count()).toBe(5000);
});

test("columns of typed arrays; two columns of one name and unions are refused", async () => {
  const frame = await sp.fromColumns({
    a: Int32Array.of(1, 2, 3),
    b: BigInt64Array.of(1n, 2n, 3n),
    c: ["x", null, "z"],
  });
  expect(await frame.schema()).toEqual({ a: "INTEGER", b: "BIGINT", c: "VARCHAR" });
  expect(await frame.count()).toBe(3);
  await expect(sp.fromColumns({ a: [1], b: [1, 2] })).rejects.toThrow(/fromColumns: b is 2 values/);
  const fields = [new Field("a", new Int32()), new Field("a", new Int32())];
  const struct = new Struct(fields);
  const child = makeData({ type: new Int32(), length: 1, data: Int32Array.of(1) });
  const data = makeData({ type: struct, length: 1, nullCount: 0, children: [child, child] });
  const batch = new RecordBatch(new Schema(fields), data);
  await expect(sp.fromArrow(new Table([batch]))).rejects.toThrow(/column is a, twice/);
});

test("the environment goes before arguments", () => {
  const env = {
    SP_JOBID: "env",
    SP_JOB_TIME: "2026-01-31T12:00:00Z",
    SP_JOB_NAME: "name",
    SP_DATA_ROOT: "/data",
    SP_NUM_EXECUTORS: "0",
  };
  const options = withEnvironment({ jobId: "mine", seed: 3 }, env);
  expect(options).toEqual({
    jobId: "env",
    jobTime: new Date("2026-01-31T12:00:00Z"),
    jobName: "name",
    dataRoot: "/data",
    numExecutors: 1,
    seed: 3,
  });
  expect(() => withEnvironment({}, { SP_NUM_EXECUTORS: "many" })).toThrow(
    /SP_NUM_EXECUTORS is many/,
  );
  expect(() => withEnvironment({}, { SP_JOB_TIME: "noon" })).toThrow(/SP_JOB_TIME is noon/);
});

test("a job of a name and a time goes on where it was", async () => {
  const options = {
    dataRoot: join(root, "timed"),
    jobId: "again",
    jobTime: new Date(0),
    executorCpus: 1,
  };
  const run = async (): Promise<number> => {
    const session = await init(options);
    expect(session.folder.root).toBe(join(root, "timed", "1970-01-01-00-00-00.again"));
    let started = 0;
    session.listen(({ type }) => type === "started" && started++);
    const frame: DataFrame = session.partialSql("SELECT 1 AS one");
    await frame.compute();
    await session.shutdown();
    return started;
  };
  expect(await run()).toBe(1);
  expect(await run()).toBe(0);
});
