// Runs a user's function over the rows of a query and writes what it returns, a batch at a time, so
// that memory holds a batch and DuckDB's table of results, which may spill.

import type { DuckDBConnection } from "@duckdb/node-api";
import { InputError } from "@open-infra/errors";
import type { Schema } from "../dataset/dataset.ts";
import { type FunctionRef, loadFunction } from "./function-ref.ts";
import { TableWriter } from "./table-writer.ts";

/** What a function is given and gives. */
export type FunctionMode =
  /** A row to a row. */
  | "map"
  /** A row to whether it stays. */
  | "filter"
  /** A row to rows. */
  | "flatMap"
  /** Rows to rows, many at once. */
  | "mapBatches";

export interface FunctionCall {
  readonly fn: FunctionRef;
  readonly mode: FunctionMode;
  readonly batchRows: number;
  /** Types of the result; from its values without. */
  readonly schema?: Schema;
}

type Row = Record<string, unknown>;

/**
 * Fills `table` with what the function makes of the query's rows.
 *
 * @throws what the function throws; InputError if it returns no row where one is due
 */
export async function callOverRows(
  call: FunctionCall,
  query: string,
  table: string,
  connection: DuckDBConnection,
): Promise<void> {
  const fn = await loadFunction(call.fn);
  const input = await connection.stream(query);
  const inputSchema = Object.fromEntries(
    input.columnNames().map((name, i) => [name, String(input.columnType(i))]),
  );
  const fixed = call.schema ?? (call.mode === "filter" ? inputSchema : undefined);
  const writer = new TableWriter(connection, table, fixed, inputSchema);
  let batch: Row[] = [];
  for await (const rows of input.yieldRowObjectJs()) {
    batch.push(...(rows as Row[]));
    while (batch.length >= call.batchRows) {
      await writer.add(await apply(call.mode, fn, batch.slice(0, call.batchRows)));
      batch = batch.slice(call.batchRows);
    }
  }
  if (batch.length > 0) await writer.add(await apply(call.mode, fn, batch));
  await writer.end();
}

async function apply(
  mode: FunctionMode,
  fn: (...args: unknown[]) => unknown,
  rows: readonly Row[],
): Promise<readonly Row[]> {
  if (mode === "mapBatches") return expectRows(await fn(rows), "mapBatches");
  const results: Row[] = [];
  for (const row of rows) {
    const value = await fn(row);
    if (mode === "filter") {
      if (value) results.push(row);
    } else if (mode === "map") results.push(expectRow(value, "map"));
    else results.push(...expectRows(value, "flatMap"));
  }
  return results;
}

function expectRow(value: unknown, caller: string): Row {
  if (value !== null && typeof value === "object" && !Array.isArray(value)) return value as Row;
  throw new InputError(`what the function of ${caller} returned`, String(value), "an object");
}

function expectRows(value: unknown, caller: string): readonly Row[] {
  if (Array.isArray(value)) return value.map((item) => expectRow(item, caller));
  throw new InputError(
    `what the function of ${caller} returned`,
    String(value),
    "an array of objects",
  );
}
