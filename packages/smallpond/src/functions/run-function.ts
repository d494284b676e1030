// Runs a user's function over the rows of a query and writes what it returns, a batch at a time, so
// that memory holds a batch and DuckDB's table of results, which may spill.

import type { DuckDBConnection } from "@duckdb/node-api";
import { InputError } from "@open-infra/errors";
import type { Table } from "apache-arrow";
import type { Schema } from "../dataset/dataset.ts";
import { withReader } from "../task/beside.ts";
import { arrowBatches } from "./arrow-read.ts";
import { ArrowWriter } from "./arrow-write.ts";
import { type FunctionRef, loadFunction } from "./function-ref.ts";
import { plainNumbers } from "./plain-numbers.ts";
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
  /** What `mapBatches` is given and may give: arrays of rows, or Arrow tables. @default "rows" */
  readonly format?: "rows" | "arrow";
  /** `mapBatches` is called once, with an iterable of batches, and gives one. */
  readonly streaming?: boolean;
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
  const shape = await connection.run(`SELECT * FROM (${query}) LIMIT 0`);
  const inputSchema = Object.fromEntries(
    shape.deduplicatedColumnNames().map((name, i) => [name, String(shape.columnType(i))]),
  );
  const fixed = call.schema ?? (call.mode === "filter" ? inputSchema : undefined);
  const sink = new ResultSink(connection, table, fixed, inputSchema);
  await withReader(connection, async (reader) => {
    const batches =
      call.format === "arrow"
        ? arrowBatches(query, call.batchRows, reader)
        : rowBatches(query, call.batchRows, reader);
    const results = call.streaming ? streamed(fn, batches) : oneByOne(call.mode, fn, batches);
    for await (const result of results) await sink.add(result, call.mode);
  });
  await sink.end();
}

/** Arrays of exactly `batchRows` rows, the last one of what is left. */
export async function* rowBatches(
  query: string,
  batchRows: number,
  connection: DuckDBConnection,
): AsyncGenerator<readonly Row[]> {
  const input = await connection.stream(query);
  const types = input.deduplicatedColumnNames().map((name, i) => [name, `${input.columnType(i)}`]);
  const plain = plainNumbers(Object.fromEntries(types));
  let batch: Row[] = [];
  for await (const rows of input.yieldRowObjectJs()) {
    for (const row of rows as Row[]) {
      batch.push(plain(row));
      if (batch.length < batchRows) continue;
      yield batch;
      batch = [];
    }
  }
  if (batch.length > 0) yield batch;
}

type AnyFunction = (...args: unknown[]) => unknown;

async function* oneByOne(
  mode: FunctionMode,
  fn: AnyFunction,
  batches: AsyncIterable<Table | readonly Row[]>,
): AsyncGenerator<unknown> {
  for await (const batch of batches) {
    yield mode === "mapBatches" ? await fn(batch) : await apply(mode, fn, batch as Row[]);
  }
}

async function* streamed(
  fn: AnyFunction,
  batches: AsyncIterable<unknown>,
): AsyncGenerator<unknown> {
  const results = await fn(batches);
  if (!isIterable(results)) {
    throw new InputError(
      "what the streaming function of mapBatches returned",
      String(results),
      "an iterable of batches, as a generator function gives",
    );
  }
  yield* results;
}

/** Whether a value can be looped over; text cannot, here. */
export function isIterable(value: unknown): value is AsyncIterable<unknown> {
  if (value === null || typeof value !== "object") return false;
  return Symbol.asyncIterator in value || Symbol.iterator in value;
}

/** Takes what a function returned: Arrow tables or rows, whichever its first result is. */
export class ResultSink {
  readonly #connection: DuckDBConnection;
  readonly #table: string;
  readonly #schema: Schema | undefined;
  readonly #ifNone: Schema;
  #arrow: ArrowWriter | undefined;
  #rows: TableWriter | undefined;

  constructor(
    connection: DuckDBConnection,
    table: string,
    schema: Schema | undefined,
    ifNone: Schema,
  ) {
    this.#connection = connection;
    this.#table = table;
    this.#schema = schema;
    this.#ifNone = ifNone;
  }

  async add(result: unknown, mode: string): Promise<void> {
    const table = isArrowTable(result) ? result : undefined;
    if ((table === undefined ? this.#arrow : this.#rows) !== undefined) {
      throw new InputError(
        `what the function of ${mode} returned`,
        "rows once and an Arrow table another time",
        "always the same",
      );
    }
    if (table !== undefined) {
      this.#arrow ??= new ArrowWriter(this.#connection, this.#table, this.#schema);
      await this.#arrow.add(table);
    } else await this.#openRows().add(expectRows(result, mode));
  }

  async end(): Promise<void> {
    if (this.#arrow !== undefined) await this.#arrow.end();
    else await this.#openRows().end();
  }

  #openRows(): TableWriter {
    this.#rows ??= new TableWriter(this.#connection, this.#table, this.#schema, this.#ifNone);
    return this.#rows;
  }
}

/** Also a table of another copy of the library, which a user's module may have loaded. */
function isArrowTable(value: unknown): value is Table {
  if (value === null || typeof value !== "object") return false;
  return Array.isArray((value as Table).batches) && "schema" in value;
}

async function apply(
  mode: FunctionMode,
  fn: (...args: unknown[]) => unknown,
  rows: readonly Row[],
): Promise<readonly Row[]> {
  const results: Row[] = [];
  for (const row of rows) {
    const value = await fn(row);
    if (mode === "filter") {
      if (value) results.push(row);
    } else if (mode === "map") results.push(expectRow(value, "map"));
    else for (const result of expectRows(value, "flatMap")) results.push(result);
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
    caller !== "flatMap" ? "an array of objects or an Arrow table" : "an array of objects",
  );
}
