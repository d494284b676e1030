// Data of random pipelines: small files of every format with NULLs, text beyond ASCII, nested
// values, and a file without rows; each beside the same rows as a table of the reference's DuckDB.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { DuckDBConnection } from "@duckdb/node-api";
import type { DataFrame, Session } from "../../src/index.ts";

/** Columns that a step may use; which a frame still has is the generator's to know. */
export const wideColumns = ["id", "k", "name", "d", "b", "t", "s", "l"] as const;
const narrowColumns = ["id", "k", "name", "d"] as const;

/** A source as both sides read it. */
export interface Source {
  readonly name: string;
  readonly columns: readonly string[];
  /** The reference's table. */
  readonly table: string;
  /** Whether it can be cut by rows as it is. */
  readonly rows: boolean;
  read(session: Session): Promise<DataFrame>;
}

const rowsQuery = (from: number, count: number): string => `
  SELECT (range + ${from})::BIGINT AS id,
    CASE WHEN hash(range, 1) % 7 = 0 THEN NULL ELSE (hash(range + ${from}) % 5)::INTEGER END AS k,
    CASE hash(range + ${from}, 2) % 8 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN 'a##b'
      WHEN 3 THEN 'it''s "x", {0}' WHEN 4 THEN 'größer 東京 🦆' WHEN 5 THEN '{cpu_limit}'
      ELSE 'n' || hash(range) % 20 END AS name,
    CASE WHEN hash(range, 3) % 9 = 0 THEN NULL ELSE (hash(range, 4) % 4000) / 4.0 - 300 END::DOUBLE
      AS d,
    CASE WHEN hash(range, 5) % 4 = 0 THEN NULL ELSE hash(range, 6) % 2 = 0 END AS b,
    TIMESTAMP '2024-02-28 23:59:58' + INTERVAL (hash(range, 7) % 100000) SECOND AS t,
    CASE WHEN hash(range, 8) % 6 = 0 THEN NULL ELSE {'x': (hash(range, 9) % 50)::INTEGER,
      'y': CASE WHEN hash(range, 10) % 3 = 0 THEN NULL ELSE 'y' || range % 4 END} END AS s,
    CASE WHEN hash(range, 11) % 6 = 0 THEN NULL
      ELSE list_transform(range((hash(range, 12) % 4)::BIGINT), i -> 'l' || i || range % 3) END AS l
  FROM range(${count})`;

/** Writes the files and fills the reference. */
export async function makeSources(
  root: string,
  reference: DuckDBConnection,
): Promise<readonly Source[]> {
  for (const name of ["wide", "csv", "json"]) mkdirSync(join(root, name), { recursive: true });
  const counts = [90, 0, 61, 1, 120];
  const small = narrowColumns.join(", ");
  for (const [i, count] of counts.entries()) {
    const rows = rowsQuery(i * 1000, count);
    const some = `SELECT ${small} FROM (${rows})`;
    await reference.run(`COPY (${rows}) TO '${root}/wide/${i}.parquet' (FORMAT parquet)`);
    // A line that starts with an empty field and nothing else would be no line.
    await reference.run(`COPY (${some}) TO '${root}/csv/${i}.csv' (HEADER false)`);
    await reference.run(`COPY (${some}) TO '${root}/json/${i}.json'`);
  }
  writeFileSync(join(root, "csv", "9.csv"), "");
  const schema = { id: "BIGINT", k: "INTEGER", name: "VARCHAR", d: "DOUBLE" };
  const typed = "columns = {id: 'BIGINT', k: 'INTEGER', name: 'VARCHAR', d: 'DOUBLE'}";
  const plainText = `${typed}, header = false, auto_detect = false`;
  const tables: Readonly<Record<string, string>> = {
    wide: `SELECT * FROM read_parquet('${root}/wide/*.parquet')`,
    csv: `SELECT * FROM read_csv('${root}/csv/*.csv', ${plainText})`,
    json: `SELECT * FROM read_json('${root}/json/*.json', ${typed}, format = 'newline_delimited')`,
    items: `SELECT ${small.replace("k", "k::BIGINT AS k")} FROM (${rowsQuery(5000, 30)})`,
  };
  for (const [name, query] of Object.entries(tables)) {
    await reference.run(`CREATE TABLE ${name} AS ${query}`);
  }
  const items = (await reference.runAndReadAll("SELECT * FROM items")).getRowObjectsJS();
  const source = (
    name: string,
    rows: boolean,
    read: (session: Session) => Promise<DataFrame>,
  ): Source => {
    const columns = name === "wide" ? wideColumns : narrowColumns;
    return { name, columns, table: name, rows, read };
  };
  return [
    source("wide", true, (session) => session.readParquet(`${root}/wide`)),
    source("wide", true, (session) => session.readParquet(`${root}/wide/*.parquet`)),
    source("csv", true, (session) => session.readCsv(`${root}/csv/*.csv`, { schema })),
    source("json", true, (session) => session.readJson(`${root}/json/*.json`, { schema })),
    source("items", true, (session) => session.fromItems(items)),
  ];
}
