// Arrow tables into DuckDB tables, column by column and chunk by chunk: numbers by copying memory,
// text by its bytes; nested columns value by value.

import {
  type DuckDBConnection,
  DuckDBDataChunk,
  type DuckDBType,
  type DuckDBValue,
  type DuckDBVector,
} from "@duckdb/node-api";
import { InputError } from "@open-infra/errors";
import { type Data, type DataType, type Schema, type Table, Type } from "apache-arrow";
import type { Schema as DuckSchema } from "../dataset/dataset.ts";
import { identifier, literal } from "../dataset/sql-text.ts";
import { duckTypeOf } from "./arrow-types.ts";
import { arrowValues } from "./arrow-values.ts";

/** Rows of one DuckDB chunk at most. */
const chunkRows = 2048;

/** Names and DuckDB types of an Arrow schema. @throws InputError for two columns of one name */
export function duckSchema(schema: Schema): DuckSchema {
  const columns: Record<string, string> = {};
  for (const { name, type } of schema.fields) {
    if (name in columns) throw new InputError("column", `${name}, twice`, "names that differ");
    columns[name] = duckTypeOf(type, name);
  }
  return columns;
}

/** Writes a table to one Parquet file. */
export async function writeArrow(
  table: Table,
  path: string,
  connection: DuckDBConnection,
): Promise<void> {
  const writer = new ArrowWriter(connection, "arrow_items");
  await writer.add(table);
  await writer.end();
  await connection.run(`COPY arrow_items TO ${literal(path)} (FORMAT parquet)`);
  await connection.run("DROP TABLE arrow_items");
}

/** Appends Arrow tables of one schema to a temporary DuckDB table. */
export class ArrowWriter {
  readonly #connection: DuckDBConnection;
  readonly #table: string;
  readonly #given: DuckSchema | undefined;
  #schema: DuckSchema | undefined;
  #appender: Awaited<ReturnType<DuckDBConnection["createAppender"]>> | undefined;
  #types: DuckDBType[] = [];
  /** As the table is made: the Arrow columns' own, where a schema asks for others. */
  #own: DuckSchema = {};

  /** @param own Of the Arrow tables, if an earlier writer has seen some. */
  constructor(connection: DuckDBConnection, table: string, schema?: DuckSchema, own?: DuckSchema) {
    this.#connection = connection;
    this.#table = table;
    this.#given = schema;
    this.#own = own ?? {};
  }

  /** Columns of the Arrow tables so far. */
  get own(): DuckSchema {
    return this.#own;
  }

  get opened(): boolean {
    return this.#appender !== undefined;
  }

  /** After {@link end}: more tables go into a new one of the same columns. */
  reopen(): void {
    this.#appender = undefined;
  }

  get #seen(): DuckSchema | undefined {
    return Object.keys(this.#own).length > 0 ? this.#own : undefined;
  }

  /** @throws InputError if the columns are not those of the first table */
  async add(table: Table): Promise<void> {
    const own = duckSchema(table.schema);
    if (this.#appender === undefined) await this.#open(this.#seen ?? own);
    const expected = Object.keys(this.#own);
    const wrong = Object.keys(own).find((name) => own[name] !== this.#own[name]);
    if (wrong !== undefined || Object.keys(own).length !== expected.length) {
      const show = (schema: DuckSchema): string =>
        Object.entries(schema)
          .map(([name, type]) => `${name} ${type}`)
          .join(", ");
      throw new InputError("columns of the Arrow table", show(own), show(this.#own));
    }
    for (const batch of table.batches) {
      const columns = expected.map((_, i) => batch.getChildAt(i)?.data[0] as Data);
      for (let at = 0; at < batch.numRows; at += chunkRows) {
        const rows = Math.min(chunkRows, batch.numRows - at);
        const chunk = DuckDBDataChunk.create(this.#types, rows);
        for (const [i, column] of columns.entries()) {
          const vector = chunk.getColumnVector(i);
          fill(vector, column, at, rows);
          vector.flush();
        }
        this.#appender?.appendDataChunk(chunk);
      }
    }
  }

  /** Finishes the table; of no Arrow table at all, with the columns of `ifNone`. */
  async end(ifNone: DuckSchema = {}): Promise<void> {
    if (this.#appender === undefined) {
      await this.#open(this.#seen ?? this.#given ?? ifNone);
    }
    this.#appender?.closeSync();
    const given = this.#given;
    if (given === undefined) return;
    const table = identifier(this.#table);
    const missing = Object.keys(given).find((name) => !(name in this.#own));
    if (missing !== undefined) {
      const has = Object.keys(this.#own).join(", ");
      throw new InputError("columns of the Arrow table", has, `${missing}, as the schema says`);
    }
    const list = Object.entries(given).map(
      ([name, type]) => `CAST(${identifier(name)} AS ${type}) AS ${identifier(name)}`,
    );
    const copy = `SELECT ${list.join(", ")} FROM ${table}`;
    await this.#connection.run(`CREATE OR REPLACE TEMP TABLE ${table} AS ${copy}`);
  }

  async #open(schema: DuckSchema): Promise<void> {
    this.#own = schema;
    const columns = Object.entries(schema).map(([name, type]) => `${identifier(name)} ${type}`);
    if (columns.length === 0) throw new InputError("Arrow table", "no columns", "at least one");
    const create = `CREATE TEMP TABLE ${identifier(this.#table)} (${columns.join(", ")})`;
    await this.#connection.run(create);
    this.#appender = await this.#connection.createAppender(this.#table);
    this.#types = columns.map((_, i) => this.#appender?.columnType(i) as DuckDBType);
  }
}

const isFixed = (type: DataType): boolean => {
  if (type.typeId === Type.Int) return true;
  return type.typeId === Type.Float && (type as unknown as { precision: number }).precision > 0;
};

/** Rows `at` to `at + rows` of a column into a vector. */
function fill(vector: DuckDBVector, data: Data, at: number, rows: number): void {
  const into = vector as unknown as {
    readonly items?: { set(values: unknown): void };
    readonly validity?: { setItemValid(i: number, valid: boolean): void };
    setItem(i: number, value: DuckDBValue): void;
  };
  if (isFixed(data.type) && into.items !== undefined) {
    into.items.set((data.values as Float64Array).subarray(at, at + rows));
    if (data.nullCount === 0) return;
    for (let i = 0; i < rows; i++) {
      if (!data.getValid(at + i)) into.validity?.setItemValid(i, false);
    }
    return;
  }
  const read = arrowValues(data);
  for (let i = 0; i < rows; i++) into.setItem(i, read(at + i));
}
