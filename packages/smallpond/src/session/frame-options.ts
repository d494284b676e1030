// What the calls of a DataFrame take, and the check that an option's name is one there is.

import { InputError } from "@open-infra/errors";
import type { Table } from "apache-arrow";
import type { Schema } from "../dataset/dataset.ts";
import type { ModuleFunction } from "../functions/function-ref.ts";
import type { NodeOptions } from "../plan/node.ts";
import type { ParquetOptions } from "../task/task.ts";

/** How `repartition` cuts: by files unless one of these is given. */
export interface RepartitionOptions extends NodeOptions {
  readonly byRows?: boolean;
  /** Columns whose equal values go to one partition: `hash(concat_ws('##', columns)) % count`. */
  readonly hashBy?: string | readonly string[];
  /** A column or SQL expression that is the partition's number. */
  readonly by?: string;
}

/** How a function is called. */
export interface FunctionOptions extends NodeOptions {
  /** Names and DuckDB types of what it returns; without, by its values. */
  readonly schema?: Schema;
  /** Rows of a batch. @default 122,880 */
  readonly batchRows?: number;
  /**
   * Results are put aside after so many rows of a partition, at the end of a batch: an attempt that
   * follows one that was killed goes on from there. By time alone without.
   */
  readonly checkpointRows?: number;
  /** The same after so long; 0 is never. @default 180,000 */
  readonly checkpointMs?: number;
}

/** How `mapBatches` calls its function. */
export interface BatchOptions extends FunctionOptions {
  /** What the function is given: arrays of rows, or Arrow tables. It may give either. */
  readonly format?: "rows" | "arrow";
  /** The function is called once, with an async iterable of batches, and gives an iterable. */
  readonly streaming?: boolean;
}

/** A row as a function without type annotations sees it. */
// biome-ignore lint/suspicious/noExplicitAny: columns are not known to the compiler.
export type LooseRow = Readonly<Record<string, any>>;
export type Row = Readonly<Record<string, unknown>>;
/** A function of one row: pure, or of a module (`fromModule`). */
export type RowFunction<I, R> = ModuleFunction | ((row: I) => R | Promise<R>);

type Batch = readonly Row[] | Table;
/** A function of many rows. */
export type BatchFunction<I> = ModuleFunction | ((batch: readonly I[]) => Batch | Promise<Batch>);
/** A function of an Arrow table. */
export type ArrowFunction = ModuleFunction | ((batch: Table) => Batch | Promise<Batch>);
/** A function of all batches of a partition, as they come. */
export type StreamFunction<B> =
  | ModuleFunction
  | ((batches: AsyncIterable<B>) => AsyncIterable<Batch> | Iterable<Batch>);

/** What `join` takes. */
export interface JoinOptions {
  readonly on: string | readonly string[];
  readonly how?: "inner" | "left" | "right" | "full" | "semi" | "anti";
}

/** What is done with a folder that has something in it. */
export type WriteMode =
  /** Files are put beside those there; a name that is taken gets a number. */
  | "append"
  /** What was there goes when the new is complete. */
  | "overwrite"
  /** An InputError, before anything is computed. */
  | "error"
  /** Nothing is computed or written. */
  | "ignore";

/** How results go into a folder. */
export interface WriteOptions {
  /** @default "append" */
  readonly mode?: WriteMode;
  /** Columns whose values become folders, `ticker=A/`; they are not in the files. */
  readonly partitionBy?: string | readonly string[];
}

/** How Parquet goes into a folder. */
export interface ParquetWriteOptions extends WriteOptions, Partial<ParquetOptions> {
  /**
   * `link`: hard links of the job's own files, an error on another file system. `copy`: files of
   * their own. `link-or-copy`. `manifest`: no files but `.MANIFEST.txt`, a path a line, of files
   * that stay in the job's folder. @default "link-or-copy"
   */
  readonly kind?: "link" | "copy" | "link-or-copy" | "manifest";
}

/** How delimited text goes into a folder. */
export interface CsvWriteOptions extends WriteOptions {
  /** @default true */
  readonly header?: boolean;
  /** @default "," */
  readonly delimiter?: string;
  readonly compression?: "none" | "gzip" | "zstd";
}

/** How JSON, one object a line, goes into a folder. */
export interface JsonWriteOptions extends WriteOptions {
  readonly compression?: "none" | "gzip" | "zstd";
}

/** All of them, as the compiler sees to. */
const nodeOptionNames: Readonly<Record<keyof NodeOptions, true>> = {
  name: true,
  cpus: true,
  memoryBytes: true,
  gpus: true,
  timeoutMs: true,
  parquet: true,
  udfs: true,
  skipEmpty: true,
  outputName: true,
  batchBytes: true,
  perThreadOutput: true,
};
const nodeOptions = Object.keys(nodeOptionNames);
const checkpointOptions = ["checkpointRows", "checkpointMs"];
const writeOptions = ["mode", "partitionBy"];
const parquetOptions = ["compression", "compressionLevel", "rowGroupRows", "version", "dictionary"];

/** The names of options that each call takes. */
export const optionNames: Readonly<Record<string, readonly string[]>> = {
  repartition: ["byRows", "hashBy", "by", ...nodeOptions],
  node: nodeOptions,
  function: ["schema", "batchRows", ...checkpointOptions, ...nodeOptions],
  mapBatches: ["format", "streaming", "schema", "batchRows", ...checkpointOptions, ...nodeOptions],
  sort: ["partitions"],
  join: ["on", "how"],
  writeParquet: ["kind", ...writeOptions, ...parquetOptions],
  writeCsv: ["header", "delimiter", "compression", ...writeOptions],
  writeJson: ["compression", ...writeOptions],
  readCsv: [
    "schema",
    "delimiter",
    "header",
    "quote",
    "escape",
    "nullText",
    "skipRows",
    "dateFormat",
    "timestampFormat",
    "maxLineBytes",
    "ignoreErrors",
    "recursive",
    "compression",
  ],
  readJson: ["schema", "format", "maxObjectBytes", "ignoreErrors", "recursive", "compression"],
  readParquet: ["columns", "recursive", "unionByName", "hivePartitioning"],
};

/** @throws InputError that names an option that there is not, and those there are */
export function expectOptions(caller: string, options: object, allowed: string = caller): void {
  const names = optionNames[allowed] as readonly string[];
  for (const name of Object.keys(options)) {
    if (!names.includes(name)) throw new InputError(`${caller}: option`, name, names.join(", "));
  }
}
