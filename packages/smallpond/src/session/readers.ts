// From what a user names to data sets: files and their options, tables of Delta Lake and Iceberg,
// rows and Arrow tables from memory.

import { existsSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { resolve } from "node:path";
import type { DuckDBConnection } from "@duckdb/node-api";
import { InputError } from "@open-infra/errors";
import { Table, tableToIPC, vectorFromArray } from "apache-arrow";
import type { DataSet, JsonOptions, Schema, TextOptions } from "../dataset/dataset.ts";
import { isRemote, loadExtension, resolveRemote } from "../dataset/remote.ts";
import { resolveFiles, type SourcePart } from "../dataset/resolve.ts";
import type { EnginePool } from "../executor/engine.ts";
import { writeArrow } from "../functions/arrow-write.ts";
import { writeRows } from "../functions/table-writer.ts";
import type { JobFolder } from "../task/commit.ts";
import { bytesKey, contentKey } from "../task/key.ts";
import { expectOptions, type Row } from "./frame-options.ts";

/** How delimited text is read. */
export interface CsvReadOptions extends TextOptions {
  /** Names and DuckDB types of all columns, in order. */
  readonly schema: Schema;
  /** @default "," */
  readonly delimiter?: string;
  /** The first line has names, which are not looked at. @default false */
  readonly header?: boolean;
  /** Folders with what is below them. @default false */
  readonly recursive?: boolean;
}

/** How JSON is read. */
export interface JsonReadOptions extends JsonOptions {
  /** Names and DuckDB types; keys that are not among them are left out. */
  readonly schema: Schema;
  readonly recursive?: boolean;
}

/** How Parquet is read. */
export interface ParquetReadOptions {
  readonly columns?: readonly string[];
  readonly recursive?: boolean;
  /** Columns are matched by name, and missing ones are NULL. @default false, by position */
  readonly unionByName?: boolean;
  /** `key=value` folders of the paths are columns. @default false */
  readonly hivePartitioning?: boolean;
}

/** The values of a column. */
export type ColumnValues = ArrayLike<unknown> & Iterable<unknown>;

/** Paths, folders or globs. */
export type Paths = string | readonly string[];

const limits = { threads: 1, memoryBytes: 2 ** 30, seed: 0 };

/** Finds and describes what is to be read. */
export class Readers {
  readonly #engine: EnginePool;
  readonly #folder: JobFolder;

  constructor(engine: EnginePool, folder: JobFolder) {
    this.#engine = engine;
    this.#folder = folder;
  }

  async csv(paths: Paths, options: CsvReadOptions): Promise<DataSet> {
    expectSchema("readCsv", options);
    expectOptions("readCsv", options);
    const { schema, delimiter = ",", header = false, recursive = false, ...text } = options;
    const parts = await this.#files(paths, "readCsv", recursive);
    const more = Object.keys(text).length > 0 ? { text } : {};
    return { format: "csv", parts, schema, delimiter, header, ...more };
  }

  async json(paths: Paths, options: JsonReadOptions): Promise<DataSet> {
    expectSchema("readJson", options);
    expectOptions("readJson", options);
    const { schema, recursive = false, ...json } = options;
    const parts = await this.#files(paths, "readJson", recursive);
    return { format: "json", parts, schema, ...(Object.keys(json).length > 0 && { json }) };
  }

  async parquet(paths: Paths, options: ParquetReadOptions): Promise<DataSet> {
    expectOptions("readParquet", options);
    const { columns, recursive = false, unionByName, hivePartitioning } = options;
    return {
      format: "parquet",
      parts: await this.#files(paths, "readParquet", recursive, ".parquet"),
      ...(columns !== undefined && { columns }),
      ...(unionByName !== undefined && { unionByName }),
      // A folder may be named like a partition and mean nothing by it, as in the original.
      hivePartitioning: hivePartitioning ?? false,
    };
  }

  /** A table as it is now; DuckDB's extension of that name reads it. */
  async table(path: string, kind: "delta" | "iceberg"): Promise<DataSet> {
    const caller = kind === "delta" ? "readDelta" : "readIceberg";
    const log = kind === "delta" ? "_delta_log" : "metadata";
    let modifiedMs = Date.now();
    if (!isRemote(path)) {
      const names = await readdir(resolve(path, log)).catch(() => undefined);
      if (names === undefined) {
        throw new InputError(`${caller}: path`, path, `a table's folder, with ${log} in it`);
      }
      const times = names.map(async (name) => (await stat(resolve(path, log, name))).mtimeMs);
      modifiedMs = Math.max(0, ...(await Promise.all(times)));
    }
    await this.#with((connection) => loadExtension(kind, caller, connection));
    const part = { path: isRemote(path) ? path : resolve(path), modifiedMs };
    const reader = kind === "delta" ? "delta_scan" : "iceberg_scan";
    return { format: "table", reader, parts: [part] };
  }

  /** @throws InputError for none, as their columns are not known */
  async items(items: readonly unknown[]): Promise<DataSet> {
    if (items.length === 0) throw new InputError("fromItems: items", "empty", "at least one item");
    const rows = items.map((item) => (isRow(item) ? item : { item }));
    const path = this.#folder.item(
      `items-${contentKey(rows.map((row) => [Object.keys(row), jsonSafe(row)]))}.parquet`,
    );
    return await this.#kept(path, (connection) => writeRows(rows, path, connection));
  }

  async arrow(table: Table): Promise<DataSet> {
    const path = this.#folder.item(`arrow-${bytesKey(tableToIPC(table))}.parquet`);
    return await this.#kept(path, (connection) => writeArrow(table, path, connection));
  }

  async columns(columns: Readonly<Record<string, ColumnValues>>): Promise<DataSet> {
    const entries = Object.entries(columns);
    const [first] = entries;
    if (first === undefined) throw new InputError("fromColumns", "no column", "at least one");
    for (const [name, { length }] of entries) {
      if (length === first[1].length) continue;
      const expected = `${first[1].length} values, as ${first[0]} has`;
      throw new InputError(`fromColumns: ${name}`, `${length} values`, expected);
    }
    const vectors = entries.map(([name, values]) => [name, vectorFromArray(values as never)]);
    return await this.arrow(new Table(Object.fromEntries(vectors)));
  }

  /** A file of the job that is written once. */
  async #kept(
    path: string,
    write: (connection: DuckDBConnection) => Promise<void>,
  ): Promise<DataSet> {
    if (!existsSync(path)) await this.#with(write);
    return { format: "parquet", parts: await resolveFiles(path, "items") };
  }

  async #with<T>(body: (connection: DuckDBConnection) => Promise<T>): Promise<T> {
    return await this.#engine.with({ ...limits, once: true }, body);
  }

  async #files(
    paths: Paths,
    caller: string,
    recursive: boolean,
    extension = "",
  ): Promise<SourcePart[]> {
    const parts: SourcePart[] = [];
    for (const path of typeof paths === "string" ? [paths] : paths) {
      const found = isRemote(path)
        ? await this.#with((connection) => resolveRemote(path, caller, connection))
        : await resolveFiles(path, caller, recursive, extension);
      for (const part of found) parts.push(part);
    }
    if (parts.length === 0) throw new InputError(`${caller}: paths`, "empty", "at least one path");
    return parts;
  }
}

function expectSchema(caller: string, options: { readonly schema: Schema } | undefined): void {
  if (Object.keys(options?.schema ?? {}).length > 0) return;
  throw new InputError(`${caller}: schema`, "missing", "names and DuckDB types of the columns");
}

const isRow = (item: unknown): item is Row =>
  item !== null && typeof item === "object" && !Array.isArray(item) && !(item instanceof Date);

/** Values that JSON has no form for, as text; only for a key. */
function jsonSafe(value: unknown): unknown {
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value === "number" && !Number.isFinite(value)) return `${value}`;
  if (value instanceof Uint8Array) return [...value];
  if (value instanceof Date) return `${value.getTime()}`;
  if (Array.isArray(value)) return value.map(jsonSafe);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, jsonSafe(item)]));
}
