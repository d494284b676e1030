// The node API on real executors: what the original's tests of partitions, plans and execution
// check, beside DuckDB alone on the same files.

import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { DuckDBInstance } from "@duckdb/node-api";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  type DataSet,
  fromModule,
  init,
  type NodeInput,
  PlanError,
  type PlanNode,
  type PlanNodes,
  type Session,
} from "../src/index.ts";

const root = mkdtempSync(join(tmpdir(), "smallpond-nodes-"));
const files = `${root}/urls`;
const steps = new URL("./node-steps.ts", import.meta.url);
let sp: Session;
let nodes: PlanNodes;
let duck: Awaited<ReturnType<DuckDBInstance["connect"]>>;

type Row = Readonly<Record<string, unknown>>;

beforeAll(async () => {
  duck = await (await DuckDBInstance.create(":memory:")).connect();
  mkdirSync(files);
  for (let file = 0; file < 10; file++) {
    const rows = `SELECT (${file * 100} + range)::INTEGER AS id,
      'host' || hash(range + ${file * 100}) % 23 AS host,
      'host' || hash(range + ${file * 100}) % 23 || '/page' || range || '.html' AS url
      FROM range(100)`;
    await duck.run(`COPY (${rows}) TO '${files}/urls-${file}.parquet' (FORMAT parquet)`);
    const csv = `${root}/urls-${file}.csv`;
    await duck.run(`COPY (${rows}) TO '${csv}' (FORMAT csv, HEADER false)`);
  }
  await duck.run(`CREATE VIEW urls AS SELECT * FROM read_parquet('${files}/*.parquet')`);
  sp = await init({ jobId: "test", dataRoot: root, numExecutors: 2, executorCpus: 2 });
  nodes = sp.nodes;
});

afterAll(async () => {
  await sp.shutdown();
  rmSync(root, { recursive: true, force: true });
});

const urls = async (): Promise<PlanNode> => (await sp.readParquet(`${files}/*.parquet`)).node;

async function sql(query: string): Promise<Row[]> {
  return (await duck.runAndReadAll(query)).getRowObjectsJS() as Row[];
}

const plain = (rows: readonly Row[]): string[] =>
  rows.map((row) => JSON.stringify(row, (_, v) => (typeof v === "bigint" ? Number(v) : v))).sort();

async function rowsOf(node: NodeInput): Promise<readonly Row[]> {
  return await nodes.frame("kind" in node ? node : node.node).takeAll();
}

/** Rows of each partition, with its place. */
async function counts(node: Exclude<PlanNode, { kind: "root" }>): Promise<number[]> {
  const counted = nodes.sql(node, "SELECT count(*)::INTEGER AS n FROM {0}");
  const outputs = await nodes.run(counted);
  const sizes: number[] = [];
  for (const { data } of outputs) {
    const [row] = await sql(`SELECT n FROM read_parquet('${data.parts[0]?.path}')`);
    sizes.push(Number(row?.n));
  }
  return sizes;
}

const allUrls = "SELECT * FROM urls";

test("files and rows in any number of partitions, also more than there are", async () => {
  const source = await urls();
  const byFiles = nodes.evenlyDistributedPartition(source, 4);
  expect(await counts(byFiles)).toEqual([300, 300, 200, 200]);
  expect(await counts(nodes.evenlyDistributedPartition(source, 13))).toEqual([
    ...Array.from({ length: 10 }, () => 100),
    ...[0, 0, 0],
  ]);
  const byRows = nodes.evenlyDistributedPartition(source, 7, { by: "rows" });
  expect(await counts(byRows)).toEqual([143, 143, 143, 143, 143, 143, 142]);
  expect(plain(await rowsOf(byRows))).toEqual(plain(await sql(allUrls)));
  const mixed = nodes.evenlyDistributedPartition(source, 4, { shuffled: true });
  const names = (await nodes.run(mixed)).map(({ data }) => data.parts.map(({ path }) => path));
  expect(names.flat().toSorted()).toEqual([...names.flat()].sort());
  expect(names.flat()).not.toEqual(names.flat().toSorted());
  // Files without rows are files.
  const hollow = nodes.sql(byFiles, "SELECT * FROM {0} WHERE id % 300 >= 0 AND id < 400");
  expect(await counts(nodes.evenlyDistributedPartition(hollow, 4))).toEqual([300, 100, 0, 0]);
  expect(await counts(nodes.evenlyDistributedPartition(hollow, 2))).toEqual([400, 0]);
  const schema = { id: "INTEGER", host: "VARCHAR", url: "VARCHAR" };
  const text = await sp.readCsv(`${root}/urls-*.csv`, { schema });
  const csvRows = nodes.evenlyDistributedPartition(text, 3, { by: "rows" });
  expect(await counts(csvRows)).toEqual([334, 333, 333]);
});

test("partitions without rows go through every kind of node", async () => {
  const none = nodes.sql(await urls(), "SELECT * FROM {0} WHERE id < 0");
  const cut = nodes.hashPartition(none, 3, { columns: "host" });
  const ranged = nodes.rangePartition(cut, [10, 20], { key: "id" });
  const sampled = nodes.rangePartition(ranged, 4, { key: "id" });
  const rows = nodes.evenlyDistributedPartition(sampled, 2, { by: "rows" });
  const same = nodes.batch<Row[]>(rows, ([batch]) => batch as Row[]);
  const listed = nodes.stream(same, fromModule(steps, "sums"), { schema: { sum: "BIGINT" } });
  expect(await rowsOf(listed)).toEqual([]);
  expect(await counts(same)).toEqual([0, 0]);
});

test.each([false, true])("hash placement is the original's, by rows %s", async (byRows) => {
  const input = byRows
    ? nodes.evenlyDistributedPartition(await urls(), 3, { by: "rows" })
    : await urls();
  const cut = nodes.hashPartition(input, 5, {
    columns: ["host", "id"],
    dimension: "hosts",
    nested: false,
  });
  const placed = nodes.sql(cut, "SELECT id, hosts AS column_, {hosts} AS place FROM {0}");
  const expected = await sql(
    "SELECT id, (hash(concat_ws('##', host, id)) % 5)::BIGINT AS column_, column_ AS place " +
      "FROM urls",
  );
  expect(plain(await rowsOf(placed))).toEqual(plain(expected));
});

test("a shuffle goes by the number that rows have, or says which one is out of range", async () => {
  const numbered = nodes.sql(await urls(), "SELECT *, id % 6 AS bucket FROM {0}");
  const cut = nodes.shuffle(numbered, 6, { by: "bucket", keepColumn: false });
  expect(cut.dimensions).toEqual([{ name: "bucket", count: 6 }]);
  const placed = nodes.sql(cut, "SELECT id, {bucket} AS place FROM {0}");
  for (const { id, place } of await rowsOf(placed)) expect(Number(id) % 6).toBe(place);
  await expect(rowsOf(nodes.shuffle(numbered, 5, { by: "id % 6" }))).rejects.toThrow(
    "partition key 5 is out of range 0-4",
  );
});

test("ranges by given points: a point belongs to the range above it, NULL comes last", async () => {
  const source = nodes.sql(await urls(), "SELECT nullif(id, 7) AS id FROM {0}");
  const ids = async (node: PlanNode): Promise<string[]> => {
    const shown = nodes.sql(
      node,
      "SELECT {ranges} AS p, min(id) AS a, max(id) AS b, count(*) AS n FROM {0}",
    );
    return plain(await rowsOf(shown));
  };
  const up = nodes.rangePartition(source, [100, 250], { key: "id", dimension: "ranges" });
  expect(await ids(up)).toEqual([
    '{"p":0,"a":0,"b":99,"n":99}',
    '{"p":1,"a":100,"b":249,"n":150}',
    '{"p":2,"a":250,"b":999,"n":751}',
  ]);
  const more = { key: "id", dimension: "ranges", descending: true, nullsFirst: true };
  expect(await ids(nodes.rangePartition(source, [100, 250], more))).toEqual([
    '{"p":0,"a":250,"b":999,"n":751}',
    '{"p":1,"a":100,"b":249,"n":150}',
    '{"p":2,"a":0,"b":99,"n":99}',
  ]);
  const halves = nodes.rangePartition(await urls(), ["host15", "host5"], { key: "host" });
  const first = nodes.sql(halves, "SELECT DISTINCT host, {__data_partition__} AS p FROM {0}");
  for (const { host, p } of await rowsOf(first)) {
    const text = String(host);
    expect(p).toBe(text < "host15" ? 0 : text < "host5" ? 1 : 2);
  }
});

test("ranges by a sample are ordered and of about equal size, also within partitions", async () => {
  const outer = nodes.shuffle(await urls(), 2, {
    by: "id % 2",
    dimension: "odd",
    keepColumn: false,
  });
  const inner = nodes.rangePartition(outer, 3, { key: "id", dimension: "part" });
  expect(inner.dimensions.map(({ name }) => name)).toEqual(["odd", "part"]);
  const shown = nodes.sql(
    inner,
    "SELECT {odd} AS odd, {part} AS part, min(id) AS a, max(id) AS b, count(*)::INTEGER AS n " +
      "FROM {0}",
  );
  const rows = (await rowsOf(shown)).toSorted((x, y) => Number(x.a) - Number(y.a));
  for (const odd of [0, 1]) {
    const own = rows.filter((row) => row.odd === odd);
    expect(own.map(({ part }) => part)).toEqual([0, 1, 2]);
    expect(Math.max(...own.map(({ n }) => Number(n)))).toBeLessThan(180);
    for (const [i, row] of own.entries()) {
      if (i > 0) expect(Number(row.a)).toBeGreaterThan(Number(own[i - 1]?.b));
    }
  }
});

test("nested dimensions: coordinates, broadcast along those that lack, consolidation", async () => {
  const byHost = nodes.hashPartition(await urls(), 3, { columns: "host", dimension: "hosts" });
  const byUrl = nodes.hashPartition(byHost, 4, { columns: "url", dimension: "pages" });
  expect(byUrl.dimensions).toEqual([
    { name: "hosts", count: 3 },
    { name: "pages", count: 4 },
  ]);
  const fine = nodes.sql(
    byUrl,
    "SELECT host, count(*)::INTEGER AS n, {hosts} AS h, {pages} AS p FROM {0} GROUP BY host",
  );
  const coarse = nodes.sql(
    nodes.consolidate(fine, ["hosts"]),
    "SELECT host, sum(n)::INTEGER AS total FROM {0} GROUP BY host",
  );
  const one = nodes.sql(nodes.consolidate(coarse, []), "SELECT sum(total) AS everything FROM {0}");
  const joined = nodes.sql(
    [coarse, fine, one],
    "SELECT host, n, total, everything, h, p FROM {1} JOIN {0} USING (host), {2}",
  );
  expect(joined.dimensions).toEqual(byUrl.dimensions);
  const expected = await sql(
    `SELECT host, count(*)::INTEGER AS n, any_value(total)::INTEGER AS total,
      1000 AS everything, (hash(concat_ws('##', host)) % 3)::INTEGER AS h,
      (hash(concat_ws('##', url)) % 4)::INTEGER AS p
    FROM urls JOIN (SELECT host, count(*) AS total FROM urls GROUP BY host) USING (host)
    GROUP BY host, p`,
  );
  expect(plain(await rowsOf(joined))).toEqual(plain(expected));
  const repeated = nodes.repeatPartition(coarse, 2, { dimension: "copies" });
  expect(await counts(repeated)).toHaveLength(6);
  expect((await rowsOf(repeated)).length).toBe(2 * 23);
});

test("cutting anew forgets dimensions unless it is nested", async () => {
  const byHost = nodes.hashPartition(await urls(), 3, { columns: "host", dimension: "hosts" });
  expect(nodes.hashPartition(byHost, 2, { columns: "url" }).dimensions).toEqual([
    { name: "__data_partition__", count: 2 },
  ]);
  const options = { columns: "url", dimension: "pages", nested: false };
  expect(nodes.hashPartition(byHost, 2, options).dimensions).toEqual([{ name: "pages", count: 2 }]);
  expect(() => nodes.hashPartition(byHost, 2, { columns: "url", dimension: "hosts" })).toThrow(
    /nodes\.test\.ts:\d+: nodes\.hashPartition: the input is cut along hosts already/,
  );
  expect(() => nodes.hashPartition(byHost, 2, { columns: "url", nested: true })).toThrow(
    "a nested cut needs a name",
  );
});

test("dimensions and numbers of partitions that do not fit are refused, both named", async () => {
  const source = await urls();
  const hosts = nodes.hashPartition(source, 3, { columns: "host", dimension: "hosts" });
  const pages = nodes.hashPartition(source, 3, { columns: "url", dimension: "pages" });
  const five = nodes.hashPartition(source, 5, { columns: "host", dimension: "hosts" });
  const join = "SELECT * FROM {0} JOIN {1} USING (id)";
  expect(() => nodes.sql([hosts, pages], join)).toThrow(
    /nodes\.test\.ts:\d+: nodes\.sql: .*different dimensions: hosts 0-2 and pages 0-2/,
  );
  expect(() => nodes.sql([hosts, five], join)).toThrow(/hosts 0-2 and hosts 0-4/);
  expect(() => nodes.union([hosts, source])).toThrow(/same dimensions, not hosts 0-2 and none/);
  expect(() => nodes.sql([hosts], join)).toThrow(/the query names \{1\}, but has 1 input/);
});

test("files that were partitioned before are put where they belong", async () => {
  const cut = nodes.hashPartition(await urls(), 4, { columns: "host", dimension: "hosts" });
  // Cut files have the column, and what is made of them has metadata.
  const kept = await nodes.run(cut);
  const made = nodes.sql(cut, "SELECT id, host FROM {0}");
  const unordered = async (node: Exclude<PlanNode, { kind: "root" }>): Promise<DataSet> => {
    const sets = (await nodes.run(node)).map(({ data }) => data);
    return { ...(sets[0] as DataSet), parts: sets.flatMap(({ parts }) => parts).reverse() };
  };
  const expected = (
    await sql(
      `SELECT count(id)::INTEGER AS n FROM range(4) AS p(i)
      LEFT JOIN urls ON hash(concat_ws('##', host)) % 4 = i GROUP BY i ORDER BY i`,
    )
  ).map(({ n }) => n);
  for (const node of [cut, made]) {
    const source = nodes.dataSource(await unordered(node));
    const loaded = nodes.loadPartitionedDataSet(source, 4, { column: "hosts" });
    expect(await counts(loaded)).toEqual(expected);
  }
  const folders = nodes.dataSource(await unordered(cut));
  const hive = nodes.loadPartitionedDataSet(folders, 4, { column: "hosts", hive: true });
  expect(await counts(hive)).toEqual(expected);
  expect(kept[0]?.data.parts[0]?.path).toContain("/hosts=");
  const three = nodes.loadPartitionedDataSet(folders, 3, { column: "hosts" });
  await expect(rowsOf(three)).rejects.toThrow("partition key 3 is out of range 0-2");
  const mixed = nodes.loadPartitionedDataSet(await urls(), 4, { column: "id" });
  await expect(rowsOf(mixed)).rejects.toThrow(
    /values of id in a file must be one, not \d+, \d+ and/,
  );
  const lost = nodes.loadPartitionedDataSet(await urls(), 4, { column: "nowhere" });
  await expect(rowsOf(lost)).rejects.toThrow(/no column nowhere, and no folder nowhere=/);
});

test("users cut as they like: partitions given, or by a function", async () => {
  const data = ((await urls()) as Extract<PlanNode, { kind: "source" }>).data;
  const sets = [2, 5].map((n): DataSet => ({ ...data, parts: data.parts.slice(0, n) }));
  expect(await counts(nodes.userPartitionedDataSource(sets))).toEqual([200, 500]);
  const cut = nodes.userDefinedPartition(await urls(), 3, fromModule(steps, "byThirds"));
  expect(await counts(cut)).toEqual([400, 600, 0]);
  const inner = nodes.userDefinedPartition(
    nodes.evenlyDistributedPartition(await urls(), 2, { dimension: "halves" }),
    3,
    fromModule(steps, "byThirds"),
    { dimension: "thirds" },
  );
  expect(await counts(inner)).toEqual([200, 300, 0, 200, 300, 0]);
});

test("joins of equal cuts are joins of the whole", async () => {
  const source = await urls();
  const a = nodes.hashPartition(source, 4, { columns: "host" });
  const pages = nodes.sql(source, "SELECT host, count(*) AS pages FROM {0} GROUP BY host");
  const b = nodes.hashPartition(pages, 4, { columns: "host" });
  const joined = nodes.sql([a, b], "SELECT id, pages FROM {0} JOIN {1} USING (host)");
  const expected = await sql("SELECT id, count(*) OVER (PARTITION BY host) AS pages FROM urls");
  expect(plain(await rowsOf(joined))).toEqual(plain(expected));
});

test("several queries, batches and files a thread", async () => {
  const source = await urls();
  const two = nodes.sql(source, [
    "CREATE TEMP TABLE few AS SELECT * FROM {0} WHERE id < 10",
    "SELECT count(*)::INTEGER AS n, {query_index} AS i FROM few",
  ]);
  expect(await rowsOf(two)).toEqual([{ n: 10, i: 1 }]);
  const names =
    "SELECT {batch_index} AS batch, count(*)::INTEGER AS n, '{output_filename}' AS f FROM {0}";
  const batched = await rowsOf(nodes.sql(source, names, { batchBytes: 4000 }));
  expect(batched.length).toBeGreaterThan(3);
  expect(batched.reduce((sum, { n }) => sum + Number(n), 0)).toBe(1000);
  expect(batched.map(({ batch, f }) => f === `part-${batch}`)).not.toContain(false);
  const threads = nodes.sql(source, "SELECT * FROM {0}", { perThreadOutput: true, cpus: 2 });
  expect(plain(await rowsOf(threads))).toEqual(plain(await sql(allUrls)));
  const memory = nodes.sql([], "SELECT {memory_limit} AS bytes", { memoryBytes: 2 ** 28 });
  const [row] = await rowsOf(memory);
  expect(Number(row?.bytes) / 2 ** 28).toBeGreaterThan(0.99);
});

test("a thousand partitions, read by one task in the end", { timeout: 60_000 }, async () => {
  const parts = nodes.evenlyDistributedPartition(await urls(), 1000, { by: "rows" });
  const each = nodes.sql(parts, "SELECT id + {__data_partition__} AS id FROM {0}");
  const all = nodes.sql(nodes.consolidate(each, []), "SELECT sum(id)::INTEGER AS s FROM {0}");
  expect(await rowsOf(all)).toEqual([{ s: 999_000 }]);
});

test("a task without rows can be left out", async () => {
  const cut = nodes.rangePartition(await urls(), [500, 2000], { key: "id" });
  const rows = nodes.sql(cut, "SELECT count(*)::INTEGER AS n FROM {0}", { skipEmpty: true });
  expect((await rowsOf(rows)).map(({ n }) => n)).toEqual([500, 500]);
});

test("functions are told their place, and get whole inputs, batches and streams", async () => {
  const cut = nodes.shuffle(await urls(), 2, { by: "id % 2", dimension: "odd", keepColumn: false });
  const small = nodes.sql([], "SELECT 1000 AS bias");
  type Rows = readonly { readonly id: number; readonly bias: number }[];
  const whole = nodes.compute<Rows>(
    [cut, small],
    ([rows, more], { partition, partitionCounts }) => [
      { n: rows?.length, bias: more?.[0]?.bias, odd: partition.odd, of: partitionCounts.odd },
    ],
  );
  expect(plain(await rowsOf(whole))).toEqual([
    '{"n":500,"bias":1000,"odd":0,"of":2}',
    '{"n":500,"bias":1000,"odd":1,"of":2}',
  ]);
  const batches = nodes.batch<Rows>(
    [cut, small],
    ([rows, more], { batchIndex }) => [
      { batch: batchIndex, n: rows?.length, bias: more?.[0]?.bias },
    ],
    { batchRows: 200 },
  );
  const sizes = plain(await rowsOf(batches));
  expect(sizes).toEqual(
    [0, 0, 1, 1, 2, 2].map((i) => JSON.stringify({ batch: i, n: i < 2 ? 200 : 100, bias: 1000 })),
  );
  const streamed = await rowsOf(nodes.stream(cut, fromModule(steps, "sums"), { batchRows: 300 }));
  expect(streamed.map(({ rows }) => rows).toSorted()).toEqual([200, 200, 300, 300]);
  expect(streamed.reduce((total, { sum }) => total + Number(sum), 0)).toBe(499_500);
});

test("a stream that is killed goes on from its checkpoint, nothing lost or doubled", async () => {
  const log = join(root, "stream.log");
  const ordered = nodes.sql(await urls(), "SELECT id FROM {0} ORDER BY id");
  const options = { format: "arrow" as const, batchRows: 50, checkpointMs: 1 };
  const stream = nodes.stream(ordered, fromModule(steps, "deadly", [log]), options);
  const ids = (await rowsOf(stream)).map(({ id }) => Number(id));
  expect(ids).toEqual(Array.from({ length: 1000 }, (_, i) => i));
  expect(existsSync(`${log}.died`)).toBe(true);
  const calls = readFileSync(log, "utf8").trim().split("\n").length;
  expect(calls).toBeGreaterThan(20);
  expect(calls).toBeLessThan(24);
});

test("scripts write files; a name of their own stays, a clash is told apart", async () => {
  const cut = nodes.evenlyDistributedPartition(await urls(), 2, { dimension: "halves" });
  const lists = nodes.script(cut, fromModule(steps, "listing", ["hello"]));
  const out = join(root, "lists");
  await nodes.run(nodes.dataSink(lists, out));
  expect(readdirSync(out).sort()).toEqual([
    ".MANIFEST.txt",
    "list.halves-0.txt",
    "list.halves-1.txt",
  ]);
  expect(readFileSync(join(out, "list.halves-1.txt"), "utf8").split("\n")).toHaveLength(6);
  const twenty = nodes.repeatPartition(await urls(), 20, { dimension: "copies" });
  const clash = join(root, "clash");
  await nodes.run(nodes.dataSink(nodes.script(twenty, fromModule(steps, "sameName")), clash));
  const names = readdirSync(clash);
  expect(names).toHaveLength(21);
  const listed = readFileSync(join(clash, ".MANIFEST.txt"), "utf8").trim().split("\n");
  expect(listed.map((path) => basename(path)).sort()).toEqual(
    names.filter((name) => name !== ".MANIFEST.txt").sort(),
  );
  expect(new Set(listed.map((path) => readFileSync(path, "utf8"))).size).toBe(20);
  await expect(nodes.run(nodes.script(cut, fromModule(steps, "refusing")))).rejects.toThrow(
    "the script said that it failed",
  );
});

test("projections: columns, expressions and what reading makes, without a task", async () => {
  const source = await urls();
  const view = nodes.projection(source, {
    columns: ["upper(host) AS big", "id"],
    generated: ["filename", "file_row_number"],
  });
  let tasks = 0;
  const stop = sp.listen(({ type }) => {
    if (type === "started") tasks++;
  });
  const rows = await rowsOf(view);
  stop();
  expect(tasks).toBe(0);
  expect(Object.keys(rows[0] ?? {})).toEqual(["big", "id", "filename", "file_row_number"]);
  for (const { id, filename, file_row_number, big } of rows) {
    expect(basename(String(filename))).toBe(`urls-${Math.floor(Number(id) / 100)}.parquet`);
    expect(Number(file_row_number)).toBe(Number(id) % 100);
    expect(big).toMatch(/^HOST\d+$/);
  }
  const pieces = nodes.evenlyDistributedPartition(view, 7, { by: "rows" });
  expect(plain(await rowsOf(nodes.sql(pieces, "SELECT * FROM {0}")))).toEqual(plain(rows));
  const cut = nodes.hashPartition(source, 3, { columns: "host" });
  const later = nodes.sql(
    nodes.projection(cut, { columns: ["id + 1 AS next"] }),
    "SELECT * FROM {0}",
  );
  expect((await rowsOf(later)).flatMap((row) => Object.keys(row))).not.toContain("id");
  expect(await nodes.frame(view).columns()).toEqual(Object.keys(rows[0] ?? {}));
});

test("files of unlike columns by name; unions as files, or by name", async () => {
  await duck.run(`COPY (SELECT 1 AS a) TO '${root}/name-a.parquet' (FORMAT parquet)`);
  await duck.run(`COPY (SELECT 2 AS b, 3 AS a) TO '${root}/name-b.parquet' (FORMAT parquet)`);
  const unlike = (await sp.readParquet(`${root}/name-*.parquet`)).node;
  const byName = nodes.projection(unlike, { unionByName: true });
  expect(plain(await rowsOf(nodes.sql(byName, "SELECT a, b FROM {0}")))).toEqual(
    plain([
      { a: 1, b: null },
      { a: 3, b: 2 },
    ]),
  );
  const source = await urls();
  const few = nodes.sql(source, "SELECT * FROM {0} WHERE id < 10");
  const many = nodes.sql(source, "SELECT * FROM {0} WHERE id >= 10");
  expect(plain(await rowsOf(nodes.union([few, many])))).toEqual(plain(await sql(allUrls)));
  const other = nodes.projection(source, { columns: ["id", "9 AS more"] });
  const mixed = nodes.union([few, other]);
  const [row] = await sql(`SELECT 1`);
  expect(row).toBeDefined();
  expect(
    plain(
      await rowsOf(
        nodes.sql(mixed, "SELECT count(*)::INTEGER AS n, count(more)::INTEGER AS m FROM {0}"),
      ),
    ),
  ).toEqual(['{"n":1010,"m":1000}']);
});

test("several outputs by name, shared nodes once", async () => {
  let started = 0;
  const stop = sp.listen(({ type }) => {
    if (type === "started") started++;
  });
  const shared = nodes.sql(await urls(), "SELECT *, 'once' AS word FROM {0}");
  const low = nodes.sql(shared, "SELECT * FROM {0} WHERE id < 100");
  const counted = nodes.sql(shared, "SELECT count(*) AS n FROM {0}");
  const outputs = await nodes.run(nodes.root({ low, counted }));
  stop();
  expect(Object.keys(outputs)).toEqual(["low", "counted"]);
  expect(outputs.low?.[0]?.data.parts[0]?.numRows).toBe(100);
  expect(started).toBe(3);
  expect(() => nodes.frame(nodes.root({ low }))).toThrow(PlanError);
});

test("sinks link, copy and list; beside files that are there they take other names", async () => {
  const cut = nodes.hashPartition(await urls(), 3, { columns: "host", keepColumn: false });
  const out = join(root, "sink", "deep");
  const sink = nodes.dataSink(cut, out, { kind: "copy" });
  await nodes.run(sink);
  const first = readdirSync(out).sort();
  expect(first.every((name) => /^(part-0000[012]-\d+\.parquet|\.MANIFEST\.txt)$/.test(name))).toBe(
    true,
  );
  const written = `SELECT id, host, url FROM read_parquet('${out}/*.parquet')`;
  expect(plain(await sql(written))).toEqual(plain(await sql(allUrls)));
  await nodes.run(nodes.dataSink(cut, out, { kind: "link" }));
  expect(readdirSync(out)).toHaveLength(2 * (first.length - 1) + 1);
  expect(plain(await sql(written))).toEqual(
    plain([...(await sql(allUrls)), ...(await sql(allUrls))]),
  );
  const list = join(root, "manifest");
  const outputs = await nodes.run(nodes.dataSink(cut, list, { kind: "manifest" }));
  expect(readdirSync(list)).toEqual([".MANIFEST.txt"]);
  const paths = readFileSync(join(list, ".MANIFEST.txt"), "utf8").trim().split("\n");
  expect(paths).toEqual(outputs[0]?.data.parts.map(({ path }) => path));
  expect(paths.every((path) => existsSync(path))).toBe(true);
  const named = join(root, "named");
  const pieces = nodes.evenlyDistributedPartition(await urls(), 3, { by: "rows" });
  await nodes.run(nodes.dataSink(pieces, named, { outputName: "urls" }));
  expect(readdirSync(named).sort()).toEqual([
    ".MANIFEST.txt",
    ...[0, 1, 2].map((i) => `urls-0000${i}-0.parquet`),
  ]);
  expect(plain(await sql(`SELECT * FROM read_parquet('${named}/*.parquet')`))).toEqual(
    plain(await sql(allUrls)),
  );
  const few = nodes.rangePartition(await urls(), [500, 5000], { key: "id" });
  const full = join(root, "full");
  await nodes.run(nodes.dataSink(few, full, { removeEmpty: true }));
  expect(readdirSync(full).filter((name) => name.startsWith("part-00002"))).toEqual([]);
  expect(readdirSync(join(root, "sink"))).toEqual(["deep"]);
});

test("a sink whose plan fails leaves nothing", async () => {
  const bad = nodes.sql(
    nodes.evenlyDistributedPartition(await urls(), 4),
    "SELECT CASE WHEN id = 950 THEN error('no') ELSE id END AS id FROM {0}",
  );
  const out = join(root, "never");
  await expect(nodes.run(nodes.dataSink(bad, out))).rejects.toThrow("no");
  expect(existsSync(out)).toBe(false);
  expect(readdirSync(root).filter((name) => name.includes("never"))).toEqual([]);
});

test("each partition's files say where they belong", async () => {
  const cut = nodes.hashPartition(await urls(), 2, { columns: "host", dimension: "hosts" });
  const [, second] = await nodes.run(nodes.sql(cut, "SELECT id FROM {0}"));
  expect(second?.partition).toEqual({ hosts: 1 });
  const path = second?.data.parts[0]?.path;
  const metadata = await sql(
    `SELECT decode(key) AS k, decode(value) AS v FROM parquet_kv_metadata('${path}')`,
  );
  expect(metadata).toContainEqual({ k: "SMALLPOND:hosts", v: "1" });
});

test("frames and nodes mix", async () => {
  const frame = (await sp.readParquet(`${files}/*.parquet`)).repartition(3, { hashBy: "host" });
  const grouped = nodes.sql(frame, "SELECT host, count(*) AS n FROM {0} GROUP BY host");
  expect(await nodes.frame(grouped).filter("n > 0").count()).toBe(23);
  expect(nodes.frame(grouped).node).toBe(grouped);
});

test("wrong arguments are refused with the call and the line", async () => {
  const source = await urls();
  const where = /nodes\.test\.ts:\d+: nodes\./;
  const refused: readonly (() => unknown)[] = [
    () => nodes.hashPartition(source, 0, { columns: "id" }),
    () => nodes.hashPartition(source, 3, {}),
    () => nodes.hashPartition(source, 5_000_000, { columns: "id" }),
    () => nodes.evenlyDistributedPartition(source, 2.5),
    () => nodes.evenlyDistributedPartition(source, 2, { by: "columns" as never }),
    () => nodes.evenlyDistributedPartition(source, 2, { byRows: true } as never),
    () => nodes.rangePartition(source, [3, 3], { key: "id" }),
    () => nodes.rangePartition(source, [3, "4"], { key: "id" }),
    () => nodes.rangePartition(source, [Number.NaN], { key: "id" }),
    () => nodes.repeatPartition(source, 2, { dimension: "not a name" }),
    () => nodes.repeatPartition(source, 2, { dimension: "rand_seed" }),
    () => nodes.sql(source, []),
    () => nodes.sql(source, "SELECT 1", { cpus: 0 }),
    () => nodes.sql(source, "SELECT 1", { memoryBytes: -1 }),
    () => nodes.limit(source, -1),
    () => nodes.consolidate(source, ["nowhere"]),
    () => nodes.projection(source, { generated: ["rowid" as never] }),
    () => nodes.dataSink(source, "s3://bucket/x"),
    () => nodes.dataSink(source, `${files}/urls-0.parquet`),
    () => nodes.dataSink(source, root, { kind: "move" as never }),
    () => nodes.batch([], () => []),
    () => nodes.root({}),
  ];
  for (const call of refused) {
    expect(call).toThrow(PlanError);
    expect(call, String(call)).toThrow(where);
  }
});
