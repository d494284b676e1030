// Runs a user's function over the rows of a query and writes what it returns, a batch at a time, so
// that memory holds a batch and DuckDB's table of results, which may spill.

import type { DuckDBConnection } from "@duckdb/node-api";
import { InputError } from "@open-infra/errors";
import type { Table } from "apache-arrow";
import type { Schema } from "../dataset/dataset.ts";
import { streamReadable } from "../dataset/wide-integers.ts";
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
  /** Results are put aside after so many rows of the input, for a later attempt. Never without. */
  readonly checkpointRows?: number;
  /** And after so long; 0 is never. @default 180,000 */
  readonly checkpointMs?: number;
}

/** How far a call has come, told after each batch; and where an earlier one was broken off. */
export interface CallProgress {
  readonly skipRows: number;
  readonly resumed?: SinkState;
  /** Rows that a function of one row is given a batch. */
  readonly batchRows: number;
  done(inputRows: number, sink: ResultSink): Promise<void>;
}

/** What a sink must know to go on as if it had never stopped. */
export interface SinkState {
  readonly kind: "rows" | "arrow" | undefined;
  /** Of its table, once that is known. */
  readonly schema: Schema | undefined;
  /** Rows whose types are not known yet. */
  readonly held: readonly Row[];
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
  progress?: CallProgress,
): Promise<void> {
  const fn = await loadFunction(call.fn);
  const shape = await connection.run(`SELECT * FROM (${query}) LIMIT 0`);
  const inputSchema = Object.fromEntries(
    shape.deduplicatedColumnNames().map((name, i) => [name, String(shape.columnType(i))]),
  );
  const fixed = call.schema ?? (call.mode === "filter" ? inputSchema : undefined);
  const sink = new ResultSink(connection, table, fixed, inputSchema, progress?.resumed);
  const batchRows = call.mode === "mapBatches" ? call.batchRows : progress?.batchRows;
  const size = batchRows ?? call.batchRows;
  const tally = { rows: progress?.skipRows ?? 0 };
  await withReader(connection, async (reader) => {
    const batches =
      call.format === "arrow"
        ? arrowBatches(query, size, reader, tally.rows)
        : rowBatches(query, size, reader, tally.rows);
    const counted = count(batches, tally);
    const results = call.streaming ? streamed(fn, counted) : oneByOne(call.mode, fn, counted);
    for await (const result of results) {
      await sink.add(result, call.mode);
      await progress?.done(tally.rows, sink);
    }
  });
  await sink.end();
}

async function* count(
  batches: AsyncIterable<Table | readonly Row[]>,
  tally: { rows: number },
): AsyncGenerator<Table | readonly Row[]> {
  for await (const batch of batches) {
    tally.rows += "numRows" in batch ? batch.numRows : batch.length;
    yield batch;
  }
}

/** Rows of one DuckDB chunk at most. */
const chunkRows = 2048;

/** Arrays of exactly `batchRows` rows, the last one of what is left; not of the first `skip`. */
export async function* rowBatches(
  query: string,
  batchRows: number,
  connection: DuckDBConnection,
  skip = 0,
): AsyncGenerator<readonly Row[]> {
  const input = await streamReadable(query, connection);
  const types = input.deduplicatedColumnNames().map((name, i) => [name, `${input.columnType(i)}`]);
  const plain = plainNumbers(Object.fromEntries(types));
  let left = skip;
  // Whole chunks go as they are: making objects of rows is what takes time.
  while (left >= chunkRows) {
    const chunk = await input.fetchChunk();
    if (chunk === null || chunk.rowCount === 0) return;
    left -= chunk.rowCount;
  }
  let batch: Row[] = [];
  for await (const rows of input.yieldRowObjectJs()) {
    const skipped = Math.min(left, rows.length);
    left -= skipped;
    for (const row of rows.slice(skipped) as Row[]) {
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
    resumed?: SinkState,
  ) {
    this.#connection = connection;
    this.#table = table;
    this.#schema = schema;
    this.#ifNone = ifNone;
    if (resumed?.kind === "arrow") {
      this.#arrow = new ArrowWriter(connection, table, schema, resumed.schema);
    } else if (resumed?.kind === "rows") {
      const known = schema ?? resumed.schema;
      this.#rows = new TableWriter(connection, table, known, ifNone, resumed.held);
    }
  }

  /** What is to be known to go on from here, after {@link drain}. */
  get state(): SinkState {
    if (this.#arrow !== undefined) {
      return { kind: "arrow", schema: this.#arrow.own, held: [] };
    }
    if (this.#rows === undefined) return { kind: undefined, schema: undefined, held: [] };
    return { kind: "rows", schema: this.#rows.schema, held: this.#rows.held };
  }

  /**
   * Completes the table of what has come since the last time, for the body to write and drop.
   *
   * @returns what the body gives; undefined, without a call, if there is no table yet
   */
  async drain<T>(body: () => Promise<T>): Promise<T | undefined> {
    const open = this.#arrow?.opened ?? this.#rows?.opened ?? false;
    if (!open) return undefined;
    await this.end();
    const result = await body();
    this.#arrow?.reopen();
    this.#rows?.reopen();
    return result;
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
