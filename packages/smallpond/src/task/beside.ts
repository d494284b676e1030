// A second connection to a task's DuckDB. Whatever else runs on a connection ends the stream of
// rows that is read from it, silently: DuckDB then says that there are no more. So what reads rows
// while it writes others reads them through a connection of its own.

import type { DuckDBConnection, DuckDBInstance } from "@duckdb/node-api";

const instances = new WeakMap<DuckDBConnection, DuckDBInstance>();

/** Remembers where a lent connection leads. */
export function noteConnection(connection: DuckDBConnection, instance: DuckDBInstance): void {
  instances.set(connection, instance);
}

/** Another connection to the same DuckDB; whoever asks closes it. */
export async function openReader(connection: DuckDBConnection): Promise<DuckDBConnection> {
  const instance = instances.get(connection);
  if (instance === undefined) throw new Error("a connection that no engine has lent");
  return await instance.connect();
}

/** Another connection to the same DuckDB, as long as the body runs. */
export async function withReader<T>(
  connection: DuckDBConnection,
  body: (reader: DuckDBConnection) => Promise<T>,
): Promise<T> {
  const reader = await openReader(connection);
  try {
    return await body(reader);
  } finally {
    reader.closeSync();
  }
}
