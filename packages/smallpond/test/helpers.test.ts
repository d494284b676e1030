// The calls that the original lacks: groupBy, join, sort, distinct, schema, explain; and shuffles.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type DataFrame, init, type Session } from "../src/index.ts";
import { readTasks } from "../src/session/rerun.ts";

const root = mkdtempSync(join(tmpdir(), "smallpond-helpers-"));
const rows = Array.from({ length: 1000 }, (_, i) => ({
  id: i,
  kind: i % 13 === 0 ? null : `k${(i * 7) % 5}`,
  price: ((i * 7919) % 1000) / 10,
}));
let sp: Session;
let frame: DataFrame;

beforeAll(async () => {
  sp = await init({ jobId: "test", dataRoot: root, numExecutors: 1, executorCpus: 2 });
  frame = (await sp.fromItems(rows)).repartition(4, { byRows: true });
});

afterAll(async () => {
  await sp.shutdown();
  rmSync(root, { recursive: true, force: true });
});

test("groupBy brings equal keys together by itself", async () => {
  const counts = await frame.groupBy("kind").agg({ n: "count(*)", most: "max(price)" }).takeAll();
  expect(counts).toHaveLength(6);
  for (const { kind, n, most } of counts) {
    const same = rows.filter((row) => row.kind === kind);
    expect(Number(n)).toBe(same.length);
    expect(most).toBe(Math.max(...same.map(({ price }) => price)));
  }
});

test("sort orders all rows, NULLs last, ties by the further keys", async () => {
  const up = await frame.sort("price, id").takeAll();
  const expected = rows.toSorted((a, b) => a.price - b.price || a.id - b.id).map(({ id }) => id);
  expect(up.map(({ id }) => Number(id))).toEqual(expected);
  const down = await frame.sort(["kind DESC", "id"]).takeAll();
  const rank = (kind: string | null): string => kind ?? "";
  const wanted = rows.toSorted((a, b) => {
    const [x, y] = [rank(a.kind), rank(b.kind)];
    return x === y ? a.id - b.id : x < y ? 1 : -1;
  });
  expect(down.map(({ id }) => Number(id))).toEqual(wanted.map(({ id }) => id));
  expect(await frame.sort("price DESC").limit(3).map("price").takeAll()).toEqual(
    rows
      .map(({ price }) => ({ price }))
      .sort((a, b) => b.price - a.price)
      .slice(0, 3),
  );
});

test("join cuts both sides alike, or gives a small one whole", async () => {
  const other = (await sp.fromItems(rows.filter(({ id }) => id % 3 === 0))).map(
    "id, price * 2 AS p2",
  );
  const broadcast = frame.join(other, { on: "id" });
  const cut = frame.join(other.repartition(3, { byRows: true }), { on: "id", how: "left" });
  expect(await broadcast.count()).toBe(334);
  expect(await cut.count()).toBe(1000);
  expect(await cut.filter("p2 IS NULL").count()).toBe(666);
  expect(await frame.join(other, { on: "id", how: "anti" }).count()).toBe(666);
  expect(await other.join(frame, { on: "id", how: "full" }).count()).toBe(1000);
});

test("distinct, schema and explain", async () => {
  const kinds = await frame.map("kind").distinct();
  expect(await kinds.count()).toBe(6);
  expect(await frame.map("id + 1 AS next, kind").schema()).toEqual({
    next: "BIGINT",
    kind: "VARCHAR",
  });
  const text = await frame
    .repartition(3, { hashBy: "kind" })
    .filter("price > 5")
    .explain({ optimized: false });
  expect(text).toMatch(
    /sql#\d+ SELECT \* FROM \{0\} WHERE \(price > 5\) → 3 partitions {2}\(helpers/,
  );
  expect(text).toMatch(/partition#\d+ by hash\(kind\) → 3 partitions/);
});

test("a job leaves its figures, its timeline and its tasks", async () => {
  const session = await init({ jobId: "report", dataRoot: root, numExecutors: 1, executorCpus: 1 });
  const items = (await session.fromItems(rows)).repartition(3, { byRows: true });
  await items.map("id + 1 AS id", { name: "plus" }).compute();
  await session.shutdown();
  const log = join(root, "report", "log");
  const [head, ...lines] = readFileSync(join(log, "metrics.csv"), "utf8").trim().split("\n");
  const plus = lines.find((line) => line.startsWith("plus,"))?.split(",") ?? [];
  const columns = head?.split(",") ?? [];
  expect(plus[columns.indexOf("tasks")]).toBe("3");
  expect(plus[columns.indexOf("output_rows_sum")]).toBe("1000");
  for (const measure of ["elapsed_ms", "cpu_ms", "max_rss_bytes", "input_rows", "output_bytes"]) {
    for (const figure of ["cnt", "sum", "min", "max", "avg", "p50", "p75", "p95", "p99"]) {
      expect(columns).toContain(`${measure}_${figure}`);
    }
  }
  expect(plus[columns.indexOf("input_rows_cnt")]).toBe("3");
  expect(readFileSync(join(log, "graph.dot"), "utf8")).toMatch(/"source#\d+" -> "split#\d+"/);
  expect(readFileSync(join(log, "graph.svg"), "utf8")).toContain(">plus</text>");
  const { traceEvents } = JSON.parse(readFileSync(join(log, "timeline_exec.json"), "utf8"));
  const spans = traceEvents.filter((event: { name: string }) => event.name === "plus");
  expect(spans).toHaveLength(3);
  expect((await readTasks(log)).filter(({ node }) => node === "plus")).toHaveLength(3);
});

test("a shuffle keeps rows and changes their order; recompute runs the step again", async () => {
  const mixed = frame.randomShuffle();
  const ids = (await mixed.takeAll()).map(({ id }) => Number(id));
  expect(ids.toSorted((a, b) => a - b)).toEqual(rows.map(({ id }) => id));
  let inversions = 0;
  for (let i = 0; i < 1000; i++) {
    for (let j = i + 1; j < 1000; j++) if ((ids[i] as number) > (ids[j] as number)) inversions++;
  }
  expect(inversions).toBeGreaterThan(220_000);
  expect(inversions).toBeLessThan(280_000);
  let started = 0;
  const stop = sp.listen((event) => event.type === "started" && started++);
  await mixed.recompute();
  stop();
  expect(started).toBe(4);
});
