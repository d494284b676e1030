// Rows of JavaScript values into a DuckDB table: types are found first, from a schema or from the
// rows held back so far, then rows go in chunk by chunk.

import {
  type DuckDBConnection,
  DuckDBDataChunk,
  type DuckDBType,
  JSToDuckDBValueConverter,
} from "@duckdb/node-api";
import { InputError } from "@open-infra/errors";
import type { Schema } from "../dataset/dataset.ts";
import { identifier, literal } from "../dataset/sql-text.ts";
import { storableTable } from "../dataset/wide-integers.ts";
import { type Fit, fitOf } from "./fit.ts";
import { SchemaGuess } from "./infer.ts";

type Row = Readonly<Record<string, unknown>>;

/** Rows of one DuckDB chunk at most. */
const chunkRows = 2048;

/** Writes rows to one Parquet file. @throws InputError for values without a type */
export async function writeRows(
  rows: readonly Row[],
  path: string,
  connection: DuckDBConnection,
): Promise<void> {
  const writer = new TableWriter(connection, "items", undefined, {});
  await writer.add(rows);
  await writer.end();
  const stored = await storableTable("SELECT * FROM items", connection);
  await connection.run(`COPY (${stored}) TO ${literal(path)} (FORMAT parquet)`);
  await connection.run("DROP TABLE items");
}

/** Rows held back until their types are known, at most this many. */
const guessRows = 122_880;

/** Takes rows, finds their types, and appends them to a temporary table. */
export class TableWriter {
  readonly #connection: DuckDBConnection;
  readonly #table: string;
  readonly #guess: SchemaGuess | undefined;
  readonly #ifNone: Schema;
  #schema: Schema | undefined;
  #types: DuckDBType[] = [];
  #fits: readonly (Fit | undefined)[] = [];
  #held: Row[] = [];
  #appender: Awaited<ReturnType<DuckDBConnection["createAppender"]>> | undefined;

  constructor(
    connection: DuckDBConnection,
    table: string,
    schema: Schema | undefined,
    ifNone: Schema,
    held: readonly Row[] = [],
  ) {
    this.#connection = connection;
    this.#table = table;
    this.#schema = schema;
    this.#guess = schema === undefined ? new SchemaGuess() : undefined;
    this.#ifNone = ifNone;
    for (const row of held) {
      this.#guess?.add(row);
      this.#held.push(row);
    }
  }

  /** Names and types of the table, once there are any. */
  get schema(): Schema | undefined {
    return this.#schema;
  }

  /** Rows that wait for their types. */
  get held(): readonly Row[] {
    return this.#held;
  }

  get opened(): boolean {
    return this.#appender !== undefined;
  }

  /** After {@link end}: more rows go into a new table of the same types. */
  reopen(): void {
    this.#appender = undefined;
  }

  async add(rows: readonly Row[]): Promise<void> {
    if (this.#appender === undefined) {
      // One by one: as arguments of one call, many rows are more than the stack holds.
      for (const row of rows) {
        this.#guess?.add(row);
        this.#held.push(row);
      }
      if (this.#schema === undefined && this.#held.length < guessRows) return;
      await this.#open();
      return;
    }
    this.#append(rows);
  }

  async end(): Promise<void> {
    if (this.#appender === undefined) await this.#open();
    this.#appender?.closeSync();
  }

  async #open(): Promise<void> {
    const guessed = this.#guess?.empty === false ? this.#guess.schema() : this.#ifNone;
    this.#schema ??= guessed;
    const columns = Object.entries(this.#schema)
      .map(([name, type]) => `${identifier(name)} ${type}`)
      .join(", ");
    await this.#connection.run(`CREATE TEMP TABLE ${identifier(this.#table)} (${columns})`);
    const appender = await this.#connection.createAppender(this.#table);
    this.#types = Object.keys(this.#schema).map((_, i) => appender.columnType(i));
    this.#fits = this.#types.map(fitOf);
    this.#appender = appender;
    this.#append(this.#held);
    this.#held = [];
  }

  #append(rows: readonly Row[]): void {
    const names = Object.keys(this.#schema as Schema);
    for (let at = 0; at < rows.length; at += chunkRows) {
      const slice = rows.slice(at, at + chunkRows);
      for (const row of slice) this.#expectKnown(row);
      const chunk = DuckDBDataChunk.create(this.#types, slice.length);
      const values = slice.map((row) => names.map((name, i) => this.#value(row[name], i)));
      chunk.setRowsConverted(values as never, JSToDuckDBValueConverter as never);
      this.#appender?.appendDataChunk(chunk);
    }
  }

  #value(value: unknown, column: number): unknown {
    if (value === undefined || value === null) return null;
    const type = String(this.#types[column]);
    if (/INT/.test(type) && typeof value === "number" && !Number.isInteger(value)) {
      const name = Object.keys(this.#schema as Schema)[column] as string;
      throw new InputError(
        `column ${name}`,
        `${value}`,
        `${type}, as its first rows were; give a schema`,
      );
    }
    const fit = this.#fits[column];
    return fit === undefined ? value : fit(value);
  }

  #expectKnown(row: Row): void {
    for (const name in row) {
      if (this.#schema !== undefined && name in this.#schema) continue;
      throw new InputError(
        "what the function returned",
        `a row with column ${name}`,
        `the columns ${Object.keys(this.#schema ?? {}).join(", ")}`,
      );
    }
  }
}
