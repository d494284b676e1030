// Integers of 128 bits on their way through files and into JavaScript. Parquet has none, and DuckDB
// would write their leading digits as DOUBLE: `sum` of integers is one. They are stored as
// DECIMAL(38, 0), which holds every sum of 64-bit integers, and read as integers again.

import { type DuckDBConnection, type DuckDBDecimalType, DuckDBTypeId } from "@duckdb/node-api";
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
  return await replaced(query, connection, (type) =>
    type.typeId === DuckDBTypeId.HUGEINT || type.typeId === DuckDBTypeId.UHUGEINT
      ? "DECIMAL(38, 0)"
      : undefined,
  );
}

/** A query with the same rows, whose long decimals without fraction are integers. */
export async function readable(query: string, connection: DuckDBConnection): Promise<string> {
  return await replaced(query, connection, (type) => {
    if (type.typeId !== DuckDBTypeId.DECIMAL) return undefined;
    const { width, scale } = type as DuckDBDecimalType;
    return scale === 0 && width > exactDigits ? "HUGEINT" : undefined;
  });
}

async function replaced(
  query: string,
  connection: DuckDBConnection,
  castOf: (type: { readonly typeId: DuckDBTypeId }) => string | undefined,
): Promise<string> {
  const casts = new Map<string, string>();
  const names = new Set<string>();
  let statement: Awaited<ReturnType<DuckDBConnection["prepare"]>>;
  try {
    statement = await connection.prepare(query);
  } catch {
    return query;
  }
  try {
    for (let i = 0; i < statement.columnCount; i++) {
      const name = statement.columnName(i);
      // A name that is there twice cannot be meant by itself.
      if (names.has(name.toLowerCase())) return query;
      names.add(name.toLowerCase());
      const type = castOf(statement.columnType(i));
      if (type !== undefined) casts.set(name, type);
    }
  } finally {
    statement.destroySync();
  }
  if (casts.size === 0) return query;
  const list = [...casts].map(([name, type]) => {
    return `CAST(${identifier(name)} AS ${type}) AS ${identifier(name)}`;
  });
  return `SELECT * REPLACE (${list.join(", ")}) FROM (${query}\n)`;
}
