// Does one task on a DuckDB connection: fills in its inputs, writes its outputs into a folder that
// nobody reads yet, and says what is in them. Moving the folder into place is the executor's.

import { mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import type { DuckDBConnection } from "@duckdb/node-api";
import {
  concatData,
  type DataSet,
  type FilePart,
  knownRows,
  withParts,
} from "../dataset/dataset.ts";
import { splitEvenly, splitRows } from "../dataset/split.ts";
import { fromClause, identifier, literal } from "../dataset/sql-text.ts";
import { TaskError } from "../errors.ts";
import type { FunctionCall } from "../functions/run-function.ts";
import { callOverRows } from "../functions/run-function.ts";
import { fillTemplate, parseTemplate } from "../plan/template.ts";
import type { ParquetOptions, Task } from "./task.ts";

/** A task with its inputs found. */
export interface BoundTask {
  readonly task: Task;
  readonly inputs: readonly DataSet[];
}

/** Outputs, with paths inside `folder`, or of the inputs where nothing was written. */
export async function runTask(
  { task, inputs }: BoundTask,
  connection: DuckDBConnection,
  folder: string,
): Promise<readonly DataSet[]> {
  mkdirSync(folder, { recursive: true });
  const { op } = task;
  switch (op.kind) {
    case "sql":
      return [await runQueries(task, op.queries, inputs, connection, folder)];
    case "call":
      return [await runFunction(task, op.call, concatData(inputs), connection, folder)];
    case "partition":
      return await cut(task, op, inputs, connection, folder);
    case "split-files":
      return splitEvenly(concatData(inputs).parts, op.count).map((parts) =>
        withParts(concatData(inputs), parts),
      );
    case "split-rows": {
      const data = await withRows(concatData(inputs), connection);
      return splitRows(data.parts, op.count).map((parts) => withParts(data, parts));
    }
  }
}

/** A result written by one COPY. */
async function runQueries(
  task: Task,
  queries: readonly string[],
  inputs: readonly DataSet[],
  connection: DuckDBConnection,
  folder: string,
): Promise<DataSet> {
  const clauses = inputs.map(fromClause);
  const names = { rand_seed: task.seed, cpu_limit: task.resources.cpus, batch_index: 0 };
  const filled = queries.map((query, query_index) =>
    fillTemplate(parseTemplate(query), clauses, { ...names, query_index }),
  );
  const last = filled.pop() as string;
  for (const query of filled) await execute(task, query, connection);
  const path = join(folder, "part-0.parquet");
  const copy = `COPY (${last}) TO ${literal(path)} (${copyOptions(task.parquet)})`;
  const rows = await execute(task, copy, connection, last);
  return { format: "parquet", parts: [partOf(path, rows)] };
}

/** A function's results, through a table that may spill. */
async function runFunction(
  task: Task,
  call: FunctionCall,
  data: DataSet,
  connection: DuckDBConnection,
  folder: string,
): Promise<DataSet> {
  const table = `results_${task.key}`;
  try {
    await callOverRows(call, `SELECT * FROM ${fromClause(data)}`, table, connection);
  } catch (cause) {
    if (cause instanceof TaskError) throw cause;
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new TaskError(task.node, 1, "function", message, { cause });
  }
  const path = join(folder, "part-0.parquet");
  const copy = `COPY ${identifier(table)} TO ${literal(path)} (${copyOptions(task.parquet)})`;
  const rows = await execute(task, copy, connection);
  await execute(task, `DROP TABLE ${identifier(table)}`, connection);
  // Types come from values, so partitions may differ in width; reading by name joins them.
  return { format: "parquet", parts: [partOf(path, rows)], unionByName: true };
}

/** Rows dealt out by an expression; DuckDB's own partitioned write does the work. */
async function cut(
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

/** Every part of a Parquet data set with its rows. */
async function withRows(data: DataSet, connection: DuckDBConnection): Promise<DataSet> {
  if (data.format !== "parquet" || knownRows(data) !== undefined) return data;
  const paths = data.parts.map((part) => literal(part.path)).join(", ");
  const query = `SELECT file_name, num_rows FROM parquet_file_metadata([${paths}])`;
  const rows = new Map(
    (await connection.runAndReadAll(query)).getRows().map(([path, n]) => [String(path), Number(n)]),
  );
  const parts = data.parts.map((part) =>
    part.numRows === undefined ? { ...part, numRows: rows.get(part.path) ?? 0 } : part,
  );
  return { ...data, parts };
}

function partOf(path: string, numRows: number): FilePart {
  return { path, numRows, bytes: statSync(path).size };
}

function copyOptions({ compression, compressionLevel, rowGroupRows }: ParquetOptions): string {
  const options = ["FORMAT parquet", `COMPRESSION ${compression}`];
  if (compressionLevel !== undefined && compression === "zstd") {
    options.push(`COMPRESSION_LEVEL ${compressionLevel}`);
  }
  if (rowGroupRows !== undefined) options.push(`ROW_GROUP_SIZE ${rowGroupRows}`);
  return options.join(", ");
}

/** Runs a statement; gives the rows it changed. Failures carry the query the user wrote. */
async function execute(
  task: Task,
  sql: string,
  connection: DuckDBConnection,
  shown: string = sql,
): Promise<number> {
  try {
    const result = await connection.run(sql);
    return Number(result.rowsChanged);
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    const reason = /Out of Memory/i.test(message)
      ? "memory"
      : /No space left|disk full/i.test(message)
        ? "disk"
        : "sql";
    throw new TaskError(task.node, 1, reason, `${message}\nquery: ${shown}`, { cause });
  }
}
