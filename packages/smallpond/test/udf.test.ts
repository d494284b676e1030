// SQL that calls functions in TypeScript, on real executors.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type DataFrame, fromModule, init, PlanError, type Session } from "../src/index.ts";

const root = mkdtempSync(join(tmpdir(), "smallpond-udf-"));
let sp: Session;
let frame: DataFrame;

beforeAll(async () => {
  sp = await init({ jobId: "udf", dataRoot: root, numExecutors: 1, executorCpus: 2 });
  const items = Array.from({ length: 5000 }, (_, i) => ({ a: i, b: i % 3 === 0 ? null : i * 2 }));
  frame = (await sp.fromItems(items)).repartition(2, { byRows: true });
});

afterAll(async () => {
  await sp.shutdown();
  rmSync(root, { recursive: true, force: true });
});

test("a pure function, and one of a module, beside DuckDB's own", async () => {
  const gcdOf = (a: bigint, b: bigint): bigint => {
    while (b !== 0n) [a, b] = [b, a % b];
    return a;
  };
  const pure = sp.udf("gcd_ts", { parameters: ["BIGINT", "BIGINT"], returns: "BIGINT", fn: gcdOf });
  const rows = frame.map("gcd_ts(a, 60) AS ours, gcd(a, 60) AS theirs", { udfs: [pure] });
  expect(await rows.filter("ours IS DISTINCT FROM theirs").count()).toBe(0);
  expect(await rows.count()).toBe(5000);
  const shout = sp.udf("shout", {
    parameters: ["VARCHAR"],
    returns: "VARCHAR",
    fn: fromModule(new URL("./udf-steps.ts", import.meta.url), "shout"),
  });
  const loud = sp.partialSql("SELECT shout('é' || a) AS s FROM {0} WHERE a < 3", frame, {
    udfs: [shout],
  });
  expect((await loud.takeAll()).map(({ s }) => s).sort()).toEqual(["É0!", "É1!", "É2!"]);
});

test("NULLs are skipped unless they are asked for; varargs; filters", async () => {
  const plain = sp.udf("twice", {
    parameters: ["BIGINT"],
    returns: "BIGINT",
    fn: (b: bigint) => b * 2n,
  });
  expect(
    await frame
      .map("twice(b) AS t", { udfs: [plain] })
      .filter("t IS NULL")
      .count(),
  ).toBe(1667);
  const seen = sp.udf("is_null", {
    parameters: ["BIGINT"],
    returns: "BOOLEAN",
    nulls: "call",
    fn: (b: bigint | null) => b === null,
  });
  expect(await frame.filter("is_null(b)", { udfs: [seen] }).count()).toBe(1667);
  const most = sp.udf("most", {
    varArgs: "BIGINT",
    returns: "BIGINT",
    fn: (...values: bigint[]) => values.reduce((x, y) => (x > y ? x : y)),
  });
  const rows = await frame.map("most(a, 7, 3) AS m", { udfs: [most] }).take(9);
  expect(rows.map(({ m }) => Number(m))).toEqual([7, 7, 7, 7, 7, 7, 7, 7, 8]);
});

test("lists, structs, maps and dates in and out", async () => {
  const split = sp.udf("letters", {
    parameters: ["VARCHAR"],
    returns: "STRUCT(n INTEGER, items VARCHAR[])[]",
    fn: (text: string) => [{ n: text.length, items: [...text] }, { n: 0 }],
  });
  const rows = await sp.partialSql("SELECT letters('abc') AS l", { udfs: [split] }).takeAll();
  expect(rows).toEqual([
    {
      l: [
        { n: 3, items: ["a", "b", "c"] },
        { n: 0, items: null },
      ],
    },
  ]);
  const keys = sp.udf("keys_of", {
    parameters: ["MAP(VARCHAR, INTEGER)", "STRUCT(d DATE)"],
    returns: "MAP(VARCHAR, DATE)",
    fn: (map: { key: string; value: number }[], row: { d: Date }) =>
      new Map(map.map(({ key, value }) => [key, new Date(+row.d + value * 86_400_000)])),
  });
  const dates = sp.partialSql(
    "SELECT keys_of(MAP {'x': 1, 'y': 2}, {'d': DATE '2020-02-28'})::VARCHAR AS m",
    { udfs: [keys] },
  );
  expect(await dates.takeAll()).toEqual([{ m: "{x=2020-02-29, y=2020-03-01}" }]);
});

test("an error names the function and the query; a captured variable is found early", async () => {
  const failing = sp.udf("failing", {
    parameters: ["BIGINT"],
    returns: "BIGINT",
    fn: (a: bigint) => JSON.parse(`{${a}`),
  });
  const run = frame.map("failing(a) AS x", { udfs: [failing] }).compute();
  await expect(run).rejects.toThrow(/UDF failing: .*JSON[\s\S]*query: SELECT failing\(a\) AS x/);
  const late = sp.udf("late", { returns: "BIGINT", fn: async () => 1n });
  await expect(frame.map("late() AS x", { udfs: [late] }).compute()).rejects.toThrow(/it is async/);
  const half = sp.udf("half", { parameters: ["BIGINT"], returns: "BIGINT", fn: () => 0.5 });
  await expect(frame.map("half(a) AS x", { udfs: [half] }).compute()).rejects.toThrow(
    /UDF half: a value is 0\.5; expected a whole number, for BIGINT/,
  );
  const outside = 3n;
  expect(() =>
    sp.udf("captures", {
      parameters: ["BIGINT"],
      returns: "BIGINT",
      fn: (a: bigint) => a + outside,
    }),
  ).toThrow(PlanError);
  const odd = sp.udf("odd", { parameters: ["NO_TYPE"], returns: "BIGINT", fn: () => 1n });
  await expect(frame.map("odd(a) AS x", { udfs: [odd] }).compute()).rejects.toThrow(
    /udf odd: type is NO_TYPE/,
  );
  expect(() => sp.udf("a b", { returns: "BIGINT", fn: () => 1n })).toThrow(/udf: name is a b/);
});

test("an edited function is computed anew, the same one is not", async () => {
  const started = async (times: DataFrame): Promise<number> => {
    let count = 0;
    const stop = sp.listen(({ type }) => type === "started" && count++);
    await times.compute();
    stop();
    return count;
  };
  const make = (fn: (a: bigint) => bigint): DataFrame => {
    const step = sp.udf("step", { parameters: ["BIGINT"], returns: "BIGINT", fn });
    return frame.map("step(a) AS x", { udfs: [step] });
  };
  expect(await started(make((a) => a + 1n))).toBe(2);
  expect(await started(make((a) => a + 1n))).toBe(0);
  expect(await started(make((a) => a + 2n))).toBe(2);
});
