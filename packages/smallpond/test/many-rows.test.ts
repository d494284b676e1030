// Functions over more rows than are held back until their types are known: the rows that come while
// others are written must not be lost.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { EnginePool } from "../src/executor/engine.ts";
import { callOverRows } from "../src/functions/run-function.ts";

const spill = mkdtempSync(join(tmpdir(), "smallpond-rows-"));
const engine = new EnginePool(spill);

afterAll(() => {
  engine.close();
  rmSync(spill, { recursive: true, force: true });
});

const query = "SELECT range AS x FROM range(300000)";
const stream = "async function* (batches) { for await (const batch of batches) yield batch; }";

test.each([
  ["rows", false, "(rows) => rows"],
  ["arrow", false, "(table) => table"],
  ["rows", true, stream],
  ["arrow", true, stream],
] as const)("mapBatches of %s, streaming %s, gives all rows", async (format, streaming, text) => {
  const fn = { kind: "text" as const, text };
  const call = { fn, mode: "mapBatches" as const, batchRows: 7000, format, streaming };
  const limits = { threads: 1, memoryBytes: 2 ** 29, seed: 0, once: true };
  const [row] = await engine.with(limits, async (connection) => {
    await callOverRows(call, query, "results", connection);
    const sums =
      "SELECT count(*)::INTEGER, sum(x)::DOUBLE, count(DISTINCT x)::INTEGER FROM results";
    return (await connection.runAndReadAll(sums)).getRowsJS();
  });
  expect(row).toEqual([300_000, 44_999_850_000, 300_000]);
});
