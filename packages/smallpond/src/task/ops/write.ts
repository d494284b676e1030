// What every kind of task needs to write: statements whose failures carry the user's query, Parquet
// options as SQL, files as parts.

import { statSync } from "node:fs";
import type { DuckDBConnection } from "@duckdb/node-api";
import type { FilePart } from "../../dataset/dataset.ts";
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
    const reason = limitMet(cause) ?? "sql";
    throw new TaskError(task.node, 1, reason, `${message}\nquery: ${shown}`, { cause });
  }
}

/** What a body gives; its failures become a task's, as those of what the user wrote. */
export async function withFunction<T>(task: Task, body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (cause) {
    if (cause instanceof TaskError) throw cause;
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new TaskError(task.node, 1, limitMet(cause) ?? "function", message, { cause });
  }
}

/** A limit of the machine that a failure met: not the user's fault, and perhaps not met again. */
function limitMet(cause: unknown): "memory" | "disk" | undefined {
  const message = cause instanceof Error ? cause.message : String(cause);
  const { code } = (cause ?? {}) as NodeJS.ErrnoException;
  if (code === "ENOSPC" || code === "EDQUOT") return "disk";
  if (/Out of Memory/i.test(message)) return "memory";
  return /No space left|disk full/i.test(message) ? "disk" : undefined;
}
