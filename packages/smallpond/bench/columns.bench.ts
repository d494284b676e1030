// What crosses between DuckDB and JavaScript: Arrow tables beside row objects, functions in
// TypeScript beside DuckDB's own expressions; in one session, in turns (A B A B).

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { BenchRow } from "@open-infra/testing";
import { formatRows } from "@open-infra/testing";
import { type DataFrame, init, type Session } from "../src/index.ts";

type Case = () => Promise<unknown>;

async function cases(session: Session, rows: number): Promise<Record<string, Case>> {
  const query = `SELECT range AS a, range * 3 AS b, range / 7.0 AS c, 's' || range AS s
    FROM range(${rows})`;
  const frame = session.partialSql(query);
  const numbers = frame.map("a, b, c");
  await session.wait(frame, numbers);
  const [table, numberTable] = [await frame.toArrow(), await numbers.toArrow()];
  // Another table each time, as the same one is not written twice.
  let serial = 0;
  const inward = (whole: typeof table) => () => session.fromArrow(whole.slice(serial++));
  const step = session.udf("step", {
    parameters: ["BIGINT"],
    returns: "BIGINT",
    fn: (a: bigint) => a + 1n,
  });
  const anew = (make: (n: number) => DataFrame) => () => make(serial++).compute();
  return {
    "toArrow, 3 numbers": () => numbers.toArrow(),
    "takeAll, 3 numbers": () => numbers.takeAll(),
    "toArrow, 3 numbers and text": () => frame.toArrow(),
    "takeAll, 3 numbers and text": () => frame.takeAll(),
    "fromArrow, 3 numbers": inward(numberTable),
    "fromArrow, 3 numbers and text": inward(table),
    udf: anew((n) => numbers.map(`step(a) + ${n} AS x`, { udfs: [step] })),
    sql: anew((n) => numbers.map(`a + 1 + ${n} AS x`)),
    "mapBatches, Arrow": anew((n) =>
      numbers.mapBatches((b) => b, { format: "arrow", name: `n${n}`, batchRows: 100_000 + n }),
    ),
    "mapBatches, rows": anew((n) =>
      numbers.mapBatches((b) => b, { name: `n${n}`, batchRows: 100_000 + n }),
    ),
  };
}

/** @param options.quick A tenth of the rows, one round. */
export async function run(options: { readonly quick?: boolean } = {}): Promise<BenchRow[]> {
  const rows = options.quick ? 100_000 : 1_000_000;
  const dataRoot = mkdtempSync(join(tmpdir(), "smallpond-columns-"));
  const session = await init({ dataRoot, executorCpus: 2 });
  try {
    const all = await cases(session, rows);
    const times: Record<string, number[]> = {};
    for (let round = 0; round < (options.quick ? 1 : 5); round++) {
      for (const [name, body] of Object.entries(all)) {
        const startMs = performance.now();
        await body();
        (times[name] ??= []).push(performance.now() - startMs);
      }
    }
    const us = (name: string): number => {
      const sorted = (times[name] ?? []).toSorted((a, b) => a - b);
      return 1000 * (sorted[sorted.length >> 1] ?? Number.NaN);
    };
    const shape = `${rows / 1e6} M rows`;
    const row = (name: string, other?: string, peer = other): BenchRow => ({
      case: name,
      shape,
      us: us(name),
      rate: `${(rows / us(name)).toFixed(1)} M rows/s`,
      ...(other === undefined
        ? { peer: "no other way in" }
        : { peer: peer as string, peerRatio: us(other) / us(name) }),
    });
    return [
      row("toArrow, 3 numbers", "takeAll, 3 numbers", "takeAll"),
      row("toArrow, 3 numbers and text", "takeAll, 3 numbers and text", "takeAll"),
      row("fromArrow, 3 numbers"),
      row("fromArrow, 3 numbers and text"),
      row("udf", "sql", "the same in SQL"),
      row("mapBatches, Arrow", "mapBatches, rows"),
    ];
  } finally {
    await session.shutdown();
    rmSync(dataRoot, { recursive: true, force: true });
  }
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { quick: { type: "boolean" } } });
  console.log(formatRows(await run({ quick: values.quick ?? false })));
}
