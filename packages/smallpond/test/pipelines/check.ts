// Whether a pipeline's data is what the reference says: columns, rows with how often each comes,
// the partition that each row is in, order, and how many rows of a limit.

import type { DuckDBConnection } from "@duckdb/node-api";
import { concatData, type DataSet } from "../../src/dataset/dataset.ts";
import { fromClause } from "../../src/dataset/sql-text.ts";
import type { Pipeline } from "./generator.ts";

/** What differs, in words; undefined if nothing does. */
export async function difference(
  pipeline: Pipeline,
  data: readonly DataSet[],
  reference: DuckDBConnection,
): Promise<string | undefined> {
  const rows = async (sql: string): Promise<unknown[][]> =>
    (await reference.runAndReadAll(sql)).getRows() as unknown[][];
  const count = async (sql: string): Promise<number> =>
    Number((await rows(`SELECT count(*) FROM (${sql})`))[0]?.[0]);
  const { columns, table, promised, placed } = pipeline;
  const full = data.filter((set) => set.parts.length > 0);
  if (full.length === 0) return "no partition has a file";
  const ours = fromClause(concatData(full));
  const shape = async (from: string): Promise<string> =>
    (await rows(`DESCRIBE SELECT * FROM ${from}`)).map(([name, type]) => `${name} ${type}`).join();
  const [have, want] = [await shape(ours), await shape(table)];
  if (have !== want) return `columns ${have}; expected ${want}`;
  const list = columns.join(", ");
  const mine = `SELECT ${list} FROM ${ours}`;
  const theirs = `SELECT ${list} FROM ${table}`;
  const extra = await count(`${mine} EXCEPT ALL ${theirs}`);
  if (extra > 0) return `${extra} rows that should not be there`;
  if (promised.kind === "some") {
    const due = Math.min(promised.count, await count(theirs));
    const got = await count(mine);
    return got === due ? undefined : `${got} rows of a limit that should give ${due}`;
  }
  const missing = await count(`${theirs} EXCEPT ALL ${mine}`);
  if (missing > 0) return `${missing} rows are missing`;
  if (placed !== undefined && columns.includes("__data_partition__")) {
    if (data.length !== placed.count) return `${data.length} partitions, not ${placed.count}`;
    for (const [i, set] of data.entries()) {
      const number = placed.formula ?? "__data_partition__";
      const wrong = await count(
        `FROM ${fromClause(set)} WHERE ${number} <> ${i} OR __data_partition__ <> ${i}`,
      );
      if (wrong > 0) return `${wrong} rows of partition ${i} belong into another one`;
    }
  }
  if (promised.kind === "order") {
    const groups = promised.global ? [concatData(full)] : full;
    for (const set of groups) {
      const got = await rows(`SELECT id FROM ${fromClause(set)}`);
      const due = await rows(`SELECT id FROM ${fromClause(set)} ORDER BY ${promised.by}`);
      if (String(got) !== String(due))
        return `rows are not in the order of ${promised.by}: ${got} instead of ${due}`;
    }
  }
  return undefined;
}
