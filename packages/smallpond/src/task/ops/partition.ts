// A task that deals rows out to partitions by a number that an expression gives.

import { join } from "node:path";
import type { DuckDBConnection } from "@duckdb/node-api";
import type { DataSet, FilePart } from "../../dataset/dataset.ts";
import { fromClause, identifier, literal } from "../../dataset/sql-text.ts";
import { storable } from "../../dataset/wide-integers.ts";
import { fillTemplate, parseTemplate } from "../../plan/template.ts";
import type { Task } from "../task.ts";
import { execute, partOf, taskCopyOptions, withQuery } from "./write.ts";

type PartitionOp = Extract<Task["op"], { kind: "partition" }>;

interface Written {
  readonly partition: number;
  readonly part: FilePart;
}

/** Rows dealt out by an expression; DuckDB's own partitioned write does the work. */
export async function cut(
  task: Task,
  op: PartitionOp,
  inputs: readonly DataSet[],
  connection: DuckDBConnection,
  folder: string,
): Promise<DataSet[]> {
  const clauses = inputs.map(fromClause);
  const name = op.column ?? "__data_partition__";
  const column = identifier(name);
  // An earlier cut may have left its column; this one replaces it, and the expression may use it.
  const others = op.columns?.map(identifier).join(", ") ?? `COLUMNS(c -> c <> ${literal(name)})`;
  const expression = fillIn(op.expression, clauses);
  const given = op.from === undefined ? undefined : fillIn(op.from, clauses);
  const rows = given === undefined ? clauses[0] : `(${await storable(given, connection)}\n)`;
  const source = `SELECT ${others}, CAST(${expression} AS BIGINT) AS ${column} FROM ${rows}`;
  const query = op.inRange ? source : checked(source, column, op.count);
  const options =
    `${taskCopyOptions(task)}, PARTITION_BY (${column}), ` +
    `WRITE_PARTITION_COLUMNS ${op.column !== undefined}, OVERWRITE_OR_IGNORE true, RETURN_STATS`;
  const copy = `COPY (${query}) TO ${literal(folder)} (${options})`;
  const files = await withQuery(task, source, async () => {
    const result = await connection.runAndReadAll(copy);
    return result.getRows().map((row) => written(row, `${join(folder, name)}=`));
  });
  const full = Map.groupBy(files, ({ partition }) => partition);
  const missing =
    full.size < op.count ? [await writeEmpty(task, op, source, folder, connection)] : [];
  return Array.from({ length: op.count }, (_, i) => {
    const parts = full.get(i)?.map(({ part }) => part) ?? missing;
    // The folders' names are the writer's; what a row has of them is in the files.
    return { format: "parquet", hivePartitioning: false, parts };
  });
}

const fillIn = (text: string, clauses: readonly string[]): string =>
  fillTemplate(parseTemplate(text), clauses, {});

/** The same rows; one whose number is out of range is an error. */
function checked(source: string, column: string, count: number): string {
  const shown = `coalesce(CAST(${column} AS VARCHAR), 'NULL')`;
  const problem = `error('partition key ' || ${shown} || ' is out of range 0-${count - 1}')`;
  const inRange = `${column} BETWEEN 0 AND ${count - 1}`;
  return (
    `SELECT * REPLACE (CASE WHEN ${inRange} THEN ${column} ELSE ${problem} END AS ${column}) ` +
    `FROM (${source})`
  );
}

/** A file as the writer itself describes it: path, rows, bytes; nothing is opened for it. */
function written(row: readonly unknown[], prefix: string): Written {
  const [path, rows, bytes] = row as [string, bigint, bigint];
  if (!path.startsWith(prefix)) throw new Error(`unexpected output file ${path}`);
  const partition = Number.parseInt(path.slice(prefix.length), 10);
  return { partition, part: { path, numRows: Number(rows), bytes: Number(bytes) } };
}

/** A file without rows, so that an empty partition still has its columns. */
async function writeEmpty(
  task: Task,
  op: PartitionOp,
  source: string,
  folder: string,
  connection: DuckDBConnection,
): Promise<FilePart> {
  const path = join(folder, "empty.parquet");
  const columns = op.column === undefined ? "* EXCLUDE (__data_partition__)" : "*";
  const none = `SELECT ${columns} FROM (${source}) LIMIT 0`;
  await execute(task, `COPY (${none}) TO ${literal(path)} (FORMAT parquet)`, connection);
  return { ...partOf(path, 0), placeholder: true };
}
