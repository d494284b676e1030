// A task that calls a user's function over rows. What it has made is put aside from time to time,
// and an attempt that follows a broken one goes on from there. The rows come in the same order each
// time, as DuckDB keeps the order of files and of rows in them whatever its threads. A streaming
// function is not broken off so: what it keeps between batches nobody else could know.

import { join } from "node:path";
import { deserialize, serialize } from "node:v8";
import type { DuckDBConnection } from "@duckdb/node-api";
import type { DataSet, FilePart } from "../../dataset/dataset.ts";
import { fromClause, identifier, literal } from "../../dataset/sql-text.ts";
import { storableTable } from "../../dataset/wide-integers.ts";
import {
  type CallProgress,
  callOverRows,
  type FunctionCall,
  type ResultSink,
  type SinkState,
} from "../../functions/run-function.ts";
import { CheckpointChain, checkpointFolder } from "../checkpoint-chain.ts";
import type { Task } from "../task.ts";
import { execute, partOf, taskCopyOptions, withFunction } from "./write.ts";

const defaultCheckpointMs = 180_000;
/** Rows that a function of one row gets between two looks at the clock. */
const rowsAtOnce = 2048;

/** A function's results, through a table that may spill. */
export async function runFunction(
  task: Task,
  call: FunctionCall,
  data: DataSet,
  connection: DuckDBConnection,
  folder: string,
): Promise<DataSet> {
  const table = `results_${task.key}`;
  const write = (path: string): Promise<FilePart> => moveTable(task, table, path, connection);
  const progress = progressOf(task, call, data, folder, write);
  const query = `SELECT * FROM ${fromClause(data)}`;
  await withFunction(task, () => callOverRows(call, query, table, connection, progress));
  const last = await write(progress?.lastFile ?? join(folder, "part-0.parquet"));
  // Types come from values, so partitions may differ in width; reading by name joins them.
  return { format: "parquet", parts: [...(progress?.parts ?? []), last], unionByName: true };
}

/** Writes a table to a file, and drops it. */
export async function moveTable(
  task: Task,
  table: string,
  path: string,
  connection: DuckDBConnection,
): Promise<FilePart> {
  const stored = await storableTable(`SELECT * FROM ${identifier(table)}`, connection);
  const copy = `COPY (${stored}) TO ${literal(path)} (${taskCopyOptions(task)})`;
  const rows = await execute(task, copy, connection);
  await execute(task, `DROP TABLE ${identifier(table)}`, connection);
  return partOf(path, rows);
}

/** What a checkpoint says beside its files. */
export type KeptState = Omit<SinkState, "held">;

/** Undefined for what cannot go on from the middle. */
function progressOf(
  task: Task,
  call: FunctionCall,
  data: DataSet,
  folder: string,
  write: (path: string) => Promise<FilePart>,
): Progress | undefined {
  const { checkpointRows = Infinity, checkpointMs = defaultCheckpointMs, streaming } = call;
  const place = checkpointFolder(folder, task.key);
  // What lies behind a table's path may be another version the next time.
  if (streaming || place === undefined || data.format === "table") return undefined;
  if (checkpointRows === Infinity && checkpointMs === 0) return undefined;
  const checkpoints = new CheckpointChain<KeptState>(place, folder);
  return new Progress(checkpoints, checkpointRows, checkpointMs || Infinity, write);
}

/** Of one attempt, and where it puts what it has made. */
export class Progress implements CallProgress {
  readonly skipRows: number;
  readonly resumed?: SinkState;
  readonly batchRows: number;
  readonly parts: FilePart[] = [];
  readonly #checkpoints: CheckpointChain<KeptState>;
  readonly #everyRows: number;
  readonly #everyMs: number;
  readonly #write: (path: string) => Promise<FilePart>;
  #lastRows: number;
  #lastMs = performance.now();

  constructor(
    checkpoints: CheckpointChain<KeptState>,
    everyRows: number,
    everyMs: number,
    write: (path: string) => Promise<FilePart>,
  ) {
    this.#checkpoints = checkpoints;
    this.#everyRows = everyRows;
    this.#everyMs = everyMs;
    this.#write = write;
    this.batchRows = Math.min(rowsAtOnce, everyRows);
    const earlier = checkpoints.resume();
    this.skipRows = earlier?.inputRows ?? 0;
    this.#lastRows = this.skipRows;
    if (earlier === undefined) return;
    this.parts.push(...earlier.files.map(({ path, rows }) => partOf(path, rows)));
    const held = earlier.held === undefined ? [] : deserialize(earlier.held);
    this.resumed = { ...earlier.state, held };
  }

  /** Undefined while there is no other. */
  get lastFile(): string | undefined {
    return this.parts.length === 0 ? undefined : this.#checkpoints.nextFile();
  }

  async done(inputRows: number, sink: ResultSink): Promise<void> {
    const rows = inputRows - this.#lastRows;
    const isDue = rows >= this.#everyRows || performance.now() - this.#lastMs >= this.#everyMs;
    if (!isDue || rows === 0 || !sink.state.held.every(isPlain)) return;
    const part = await sink.drain(() => this.#write(this.#checkpoints.nextFile()));
    if (part !== undefined) this.parts.push(part);
    const { kind, schema, held } = sink.state;
    const file = part && { path: part.path, rows: part.numRows ?? 0 };
    const bytes = held.length === 0 ? undefined : serialize(held);
    // JSON leaves out what is undefined, which reads as the same.
    this.#checkpoints.save(inputRows, { kind, schema }, file, bytes);
    this.#lastRows = inputRows;
    this.#lastMs = performance.now();
  }
}

/** Whether a value survives being written by V8: objects of a class would lose it. */
function isPlain(value: unknown): boolean {
  if (typeof value === "function" || typeof value === "symbol") return false;
  if (value === null || typeof value !== "object") return true;
  if (Array.isArray(value)) return value.every(isPlain);
  if (value instanceof Date || ArrayBuffer.isView(value)) return true;
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) return false;
  return Object.values(value).every(isPlain);
}
