// What every kind of task needs to write: statements whose failures carry the user's query, Parquet
// options as SQL, files as parts.

import { statSync } from "node:fs";
import type { DuckDBConnection } from "@duckdb/node-api";
import { type DataSet, type FilePart, knownRows } from "../../dataset/dataset.ts";
import { literal } from "../../dataset/sql-text.ts";
import { storable } from "../../dataset/wide-integers.ts";
import { TaskError } from "../../errors.ts";
import type { ParquetOptions, Task } from "../task.ts";

export function partOf(path: string, numRows: number): FilePart {
  return { path, numRows, bytes: statSync(path).size };
}

export function copyOptions({
  compression,
  compressionLevel,
  rowGroupRows,
  version,
  dictionary,
}: ParquetOptions): string {
  const options = ["FORMAT parquet", `COMPRESSION ${compression}`];
  if (compressionLevel !== undefined && compression === "zstd") {
    options.push(`COMPRESSION_LEVEL ${compressionLevel}`);
  }
  if (rowGroupRows !== undefined) options.push(`ROW_GROUP_SIZE ${rowGroupRows}`);
  if (version !== undefined) options.push(`PARQUET_VERSION V${version}`);
  // Of two values or more, none fits in a dictionary of one.
  if (dictionary === false) options.push("DICTIONARY_SIZE_LIMIT 1");
  return options.join(", ");
}

/** As {@link copyOptions} for a task, with its place and itself in the files' metadata. */
export function taskCopyOptions({ parquet, partition, key }: Task): string {
  const own = { __task_key__: key, ...partition };
  const entries = Object.entries(own).map(([name, value]) => {
    return `${literal(metadataPrefix + name)}: ${literal(String(value))}`;
  });
  return `${copyOptions(parquet)}, KV_METADATA {${entries.join(", ")}}`;
}

/** Of names in the key-value metadata of our files, and of the original's. */
export const metadataPrefix = "SMALLPOND:";

/** A file without rows, but with the columns of a query. */
export async function writeNone(
  task: Task,
  query: string,
  path: string,
  connection: DuckDBConnection,
): Promise<FilePart> {
  const stored = await storable(query, connection);
  const copy = `COPY (SELECT * FROM (${stored}\n) LIMIT 0) TO ${literal(path)}`;
  await execute(task, `${copy} (${taskCopyOptions(task)})`, connection, query);
  return partOf(path, 0);
}

/** Whether it is known that there is nothing to work on. */
export function allEmpty(inputs: readonly DataSet[]): boolean {
  return inputs.length > 0 && inputs.every((data) => knownRows(data) === 0);
}

/** Runs a statement; gives the rows it changed. Failures carry the query the user wrote. */
export async function execute(
  task: Task,
  sql: string,
  connection: DuckDBConnection,
  shown: string = sql,
): Promise<number> {
  const result = await withQuery(task, shown, () => connection.run(sql));
  return Number(result.rowsChanged);
}

/** What a body gives; its failures become a task's, with the query that a person should see. */
export async function withQuery<T>(task: Task, shown: string, body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new TaskError(task.node, 1, "sql", `${message}\nquery: ${shown}`, { cause });
  }
}

/** What a body gives; its failures become a task's, as those of what the user wrote. */
export async function withFunction<T>(task: Task, body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (cause) {
    if (cause instanceof TaskError) throw cause;
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new TaskError(task.node, 1, "function", message, { cause });
  }
}
