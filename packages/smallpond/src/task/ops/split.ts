// A task that cuts a data set by files or by rows; it touches only footers and writes nothing.

import type { DuckDBConnection } from "@duckdb/node-api";
import { type DataSet, knownRows, withParts } from "../../dataset/dataset.ts";
import { splitEvenly, splitRows } from "../../dataset/split.ts";
import { literal } from "../../dataset/sql-text.ts";

/** Contiguous groups of files. */
export function splitByFiles(data: DataSet, count: number): DataSet[] {
  return splitEvenly(data.parts, count).map((parts) => withParts(data, parts));
}

/** Ranges of rows of nearly equal size. */
export async function splitByRows(
  input: DataSet,
  count: number,
  connection: DuckDBConnection,
): Promise<DataSet[]> {
  const data = await withRows(input, connection);
  return splitRows(data.parts, count).map((parts) => withParts(data, parts));
}

/** Every part of a Parquet data set with its rows. */
export async function withRows(data: DataSet, connection: DuckDBConnection): Promise<DataSet> {
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
