// A task that deals rows out to partitions by a number that an expression gives.

import { join } from "node:path";
import type { DuckDBConnection } from "@duckdb/node-api";
import type { DataSet, FilePart } from "../../dataset/dataset.ts";
import { fromClause, identifier, literal } from "../../dataset/sql-text.ts";
import { fillTemplate, parseTemplate } from "../../plan/template.ts";
import type { Task } from "../task.ts";
import { copyOptions, execute, partOf } from "./write.ts";

/** Rows dealt out by an expression; DuckDB's own partitioned write does the work. */
export async function cut(
  task: Task,
  op: Extract<Task["op"], { kind: "partition" }>,
  inputs: readonly DataSet[],
  connection: DuckDBConnection,
  folder: string,
): Promise<DataSet[]> {
  const clauses = inputs.map(fromClause);
  const name = op.column ?? "__data_partition__";
  const column = identifier(name);
  // An earlier cut may have left its column; this one replaces it, and the expression may use it.
  const others = `COLUMNS(c -> c <> ${literal(name)})`;
  const expression = fillTemplate(parseTemplate(op.expression), clauses, {});
  const key = `CAST(${expression} AS BIGINT) AS ${column}`;
  const source = `SELECT ${others}, ${key} FROM ${clauses[0]}`;
  const shown = `coalesce(CAST(${column} AS VARCHAR), 'NULL')`;
  const problem = `error('partition key ' || ${shown} || ' is out of range 0-${op.count - 1}')`;
  const inRange = `${column} BETWEEN 0 AND ${op.count - 1}`;
  const checked =
    `SELECT * REPLACE (CASE WHEN ${inRange} THEN ${column} ELSE ${problem} END AS ${column}) ` +
    `FROM (${source})`;
  const options =
    `${copyOptions(task.parquet)}, PARTITION_BY (${column}), ` +
    `WRITE_PARTITION_COLUMNS ${op.column !== undefined}, OVERWRITE_OR_IGNORE true`;
  await execute(task, `COPY (${checked}) TO ${literal(folder)} (${options})`, connection, source);
  const files = await writtenFiles(folder, name, connection);
  const missing =
    files.length < op.count ? await writeEmpty(task, source, folder, connection) : undefined;
  return Array.from({ length: op.count }, (_, i) => {
    const parts = files.filter((file) => file.partition === i).map(({ part }) => part);
    return { format: "parquet", parts: parts.length > 0 || !missing ? parts : [missing] };
  });
}

async function writtenFiles(
  folder: string,
  column: string,
  connection: DuckDBConnection,
): Promise<{ partition: number; part: FilePart }[]> {
  const pattern = join(folder, `${column}=*`, "*.parquet");
  const glob = `SELECT count(*) FROM glob(${literal(pattern)})`;
  if (Number((await connection.runAndReadAll(glob)).getRows()[0]?.[0]) === 0) return [];
  const query = `SELECT file_name, num_rows FROM parquet_file_metadata(${literal(pattern)})`;
  const { length } = `${column}=`;
  return (await connection.runAndReadAll(query)).getRows().map(([path, rows]) => {
    const name = String(path)
      .slice(folder.length + 1)
      .split("/")[0] as string;
    return { partition: Number(name.slice(length)), part: partOf(String(path), Number(rows)) };
  });
}

/** A file without rows, so that an empty partition still has its columns. */
async function writeEmpty(
  task: Task,
  source: string,
  folder: string,
  connection: DuckDBConnection,
): Promise<FilePart> {
  const path = join(folder, "empty.parquet");
  const keep = task.op.kind === "partition" && task.op.column !== undefined;
  const columns = keep ? "*" : "* EXCLUDE (__data_partition__)";
  const none = `SELECT ${columns} FROM (${source}) LIMIT 0`;
  await execute(task, `COPY (${none}) TO ${literal(path)} (FORMAT parquet)`, connection);
  return partOf(path, 0);
}
