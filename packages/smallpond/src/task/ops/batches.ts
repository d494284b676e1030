// A data set in batches of bounded size, from what files say of themselves.

import type { DuckDBConnection } from "@duckdb/node-api";
import { type DataSet, withParts } from "../../dataset/dataset.ts";
import { splitEvenly, splitRows } from "../../dataset/split.ts";
import { literal } from "../../dataset/sql-text.ts";
import { withRows } from "./split.ts";

/**
 * Batches of about so many bytes before compression, Parquet by rows, other data by files; at least
 * one, and never of a part of a row.
 */
export async function sizedBatches(
  data: DataSet,
  batchBytes: number,
  connection: DuckDBConnection,
): Promise<readonly DataSet[]> {
  if (data.parts.length === 0) return [data];
  if (data.format !== "parquet") {
    const bytes = data.parts.reduce((sum, part) => sum + (part.bytes ?? 0), 0);
    const count = Math.min(data.parts.length, Math.ceil(bytes / batchBytes));
    return splitEvenly(data.parts, Math.max(1, count)).map((parts) => withParts(data, parts));
  }
  const counted = await withRows(data, connection);
  const perRow = await bytesPerRow(counted, connection);
  let rows = 0;
  let bytes = 0;
  for (const { path, numRows = 0 } of counted.parts) {
    rows += numRows;
    bytes += numRows * (perRow.get(path) ?? 0);
  }
  const count = Math.max(1, Math.min(rows, Math.ceil(bytes / batchBytes)));
  return splitRows(counted.parts, count).map((parts) => withParts(counted, parts));
}

async function bytesPerRow(
  data: DataSet,
  connection: DuckDBConnection,
): Promise<ReadonlyMap<string, number>> {
  const paths = [...new Set(data.parts.map(({ path }) => path))].map(literal).join(", ");
  const query =
    "SELECT file_name, sum(total_uncompressed_size)::DOUBLE / " +
    "greatest(1, sum(row_group_num_rows) FILTER (column_id = 0)) " +
    `FROM parquet_metadata([${paths}]) GROUP BY file_name`;
  const rows = (await connection.runAndReadAll(query)).getRows();
  return new Map(rows.map(([path, bytes]) => [String(path), Number(bytes)]));
}
