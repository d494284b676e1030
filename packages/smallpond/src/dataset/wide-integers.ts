// Integers of 128 bits on their way through files and into JavaScript. Parquet has none, and DuckDB
// would write their leading digits as DOUBLE: `sum` of integers is one. They are stored as
// DECIMAL(38, 0), which holds every sum of 64-bit integers, and read as integers again.

import {
  type DuckDBConnection,
  type DuckDBDecimalType,
  type DuckDBPreparedStatement,
  type DuckDBResult,
  type DuckDBType,
  DuckDBTypeId,
} from "@duckdb/node-api";
import { identifier } from "./sql-text.ts";

/** Decimals of more digits are not exact as JavaScript numbers. */
const exactDigits = 15;

/**
 * A query with the same rows, whose integers of 128 bits are decimals; the query itself where it
 * has none, or cannot be bound: running it tells why.
 */
export async function storable(query: string, connection: DuckDBConnection): Promise<string> {
  // A query that gives such integers says so; others need not be bound twice.
  return /sum|hugeint/i.test(query) ? await storableTable(query, connection) : query;
}

/** As {@link storable}, for rows of a table, which do not say what they are. */
export async function storableTable(query: string, connection: DuckDBConnection): Promise<string> {
  let statement: DuckDBPreparedStatement;
  try {
    statement = await connection.prepare(query);
  } catch {
    return query;
  }
  const columns = Array.from({ length: statement.columnCount }, (_, i) => i);
  const names = columns.map((i) => statement.columnName(i));
  const types = columns.map((i) => statement.columnType(i));
  statement.destroySync();
  const casts = castsOf(names, types, ({ typeId }) =>
    typeId === DuckDBTypeId.HUGEINT || typeId === DuckDBTypeId.UHUGEINT
      ? "DECIMAL(38, 0)"
      : undefined,
  );
  return casts.length === 0 ? query : withCasts(query, casts);
}

/** A query's rows as they come; long decimals without fraction are integers. */
export async function streamReadable(
  query: string,
  connection: DuckDBConnection,
): Promise<DuckDBResult> {
  const result = await connection.stream(query);
  const casts = castsOf(result.columnNames(), result.columnTypes(), (type) => {
    if (type.typeId !== DuckDBTypeId.DECIMAL) return undefined;
    const { width, scale } = type as DuckDBDecimalType;
    return scale === 0 && width > exactDigits ? "HUGEINT" : undefined;
  });
  // Nothing was read yet: only a query that has such columns is asked twice.
  return casts.length === 0 ? result : await connection.stream(withCasts(query, casts));
}

/** `CAST(…) AS …` for each column that gets another type; none where names do not tell columns. */
function castsOf(
  names: readonly string[],
  types: readonly DuckDBType[],
  castOf: (type: DuckDBType) => string | undefined,
): readonly string[] {
  if (new Set(names.map((name) => name.toLowerCase())).size < names.length) return [];
  return names.flatMap((name, i) => {
    const type = castOf(types[i] as DuckDBType);
    const column = identifier(name);
    return type === undefined ? [] : [`CAST(${column} AS ${type}) AS ${column}`];
  });
}

function withCasts(query: string, casts: readonly string[]): string {
  return `SELECT * REPLACE (${casts.join(", ")}) FROM (${query}\n)`;
}
