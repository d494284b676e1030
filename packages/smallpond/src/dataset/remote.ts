// Files that are not on a file system: object stores and web servers, which DuckDB's httpfs reads.
// Keys come from the environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`,
// `DUCKDB_S3_ENDPOINT`) or from secrets that DuckDB keeps (`CREATE PERSISTENT SECRET`), so that no
// plan and no task has them. Nothing is downloaded here but lists of files.

import type { DuckDBConnection } from "@duckdb/node-api";
import { InputError } from "@open-infra/errors";
import type { SourcePart } from "./resolve.ts";
import { literal } from "./sql-text.ts";

/** `s3://…`, `https://…`: a path for httpfs. */
export function isRemote(path: string): boolean {
  return /^(s3|s3a|s3n|gcs|gs|r2|https?|hf):\/\//.test(path);
}

/**
 * Loads an extension of DuckDB.
 *
 * @throws InputError that names the extension, if it is not installed and cannot be
 */
export async function loadExtension(
  name: string,
  caller: string,
  connection: DuckDBConnection,
): Promise<void> {
  try {
    await connection.run(`LOAD ${name}`);
  } catch (cause) {
    const wanted = `the DuckDB extension ${name}, which is not installed here`;
    const how = `that extension on every machine of the job: INSTALL ${name} in DuckDB once`;
    throw new InputError(`${caller}: what reads this`, wanted, how, { cause });
  }
}

/** The files of a pattern, with size and time of change. @throws InputError if there are none */
export async function resolveRemote(
  pattern: string,
  caller: string,
  connection: DuckDBConnection,
): Promise<SourcePart[]> {
  await loadExtension("httpfs", caller, connection);
  // DuckDB reads the contents only where they are asked for.
  const query =
    `SELECT filename, size, epoch_ms(last_modified) FROM read_blob(${literal(pattern)}) ` +
    "ORDER BY filename";
  let rows: readonly unknown[][];
  try {
    rows = (await connection.runAndReadAll(query)).getRows();
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new InputError(`${caller}: paths`, pattern, `readable files (${message})`, { cause });
  }
  if (rows.length === 0) throw new InputError(`${caller}: paths`, pattern, "an existing file");
  return rows.map(([path, bytes, modifiedMs]) => ({
    path: String(path),
    bytes: Number(bytes),
    modifiedMs: Number(modifiedMs),
  }));
}
