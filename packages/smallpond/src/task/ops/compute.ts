// A task that calls a user's function over whole inputs: tables, batches of the first input, or
// streams. What batches and streams give is put aside from time to time, with the number of batches
// it came from, where another attempt at the task finds it and goes on.

import { join } from "node:path";
import type { DuckDBConnection } from "@duckdb/node-api";
import type { Table } from "apache-arrow";
import type { DataSet, FilePart, Schema } from "../../dataset/dataset.ts";
import { fromClause, identifier, literal } from "../../dataset/sql-text.ts";
import { arrowBatches, arrowTable } from "../../functions/arrow-read.ts";
import { loadFunction } from "../../functions/function-ref.ts";
import { isIterable, ResultSink, rowBatches } from "../../functions/run-function.ts";
import { openReader } from "../beside.ts";
import type { ComputeCall, Task, TaskOp } from "../task.ts";
import { Checkpoints } from "./checkpoints.ts";
import { allEmpty, execute, partOf, taskCopyOptions, withFunction } from "./write.ts";

/** What a function is told beside its inputs. */
export interface ComputeContext {
  /** Its place in each dimension, by name. */
  readonly partition: Readonly<Record<string, number>>;
  /** Partitions along each of them. */
  readonly partitionCounts: Readonly<Record<string, number>>;
  /** Batches of the first input before this one; with `stream`, before the first it is given. */
  readonly batchIndex: number;
  /** The same for the same task and job seed, another one for other partitions. */
  readonly seed: number;
  readonly cpus: number;
  /** The plan's node. */
  readonly node: string;
}

/** Rows or tables, as the node's `format` says. */
export type ComputeInput = Table | readonly Readonly<Record<string, unknown>>[];

type AnyFunction = (...args: unknown[]) => unknown;

/** What a function gives, as Parquet. */
export async function runCompute(
  task: Task,
  { call, skipEmpty }: Extract<TaskOp, { kind: "compute" }>,
  inputs: readonly DataSet[],
  connection: DuckDBConnection,
  folder: string,
): Promise<DataSet> {
  const fn = await withFunction(task, () => loadFunction(call.fn));
  const work = new Computing(task, call, inputs, connection, folder);
  const skipped = skipEmpty === true && allEmpty(inputs);
  try {
    const parts = await withFunction(task, () => (skipped ? work.none() : work.run(fn)));
    return { format: "parquet", parts, unionByName: true };
  } finally {
    work.close();
  }
}

class Computing {
  readonly #task: Task;
  readonly #call: ComputeCall;
  readonly #queries: readonly string[];
  readonly #connection: DuckDBConnection;
  readonly #folder: string;
  readonly #parts: FilePart[] = [];
  /** A connection a stream: whatever else one does ends the stream. */
  readonly #readers: DuckDBConnection[] = [];
  #columns: Schema = {};
  #sink: ResultSink | undefined;
  #files = 0;

  constructor(
    task: Task,
    call: ComputeCall,
    inputs: readonly DataSet[],
    connection: DuckDBConnection,
    folder: string,
  ) {
    this.#task = task;
    this.#call = call;
    this.#queries = inputs.map((data) => `SELECT * FROM ${fromClause(data)}`);
    this.#connection = connection;
    this.#folder = folder;
  }

  close(): void {
    for (const reader of this.#readers) reader.closeSync();
  }

  /** A file without rows. */
  async none(): Promise<readonly FilePart[]> {
    await this.#describe();
    await this.#flush(true);
    return this.#parts;
  }

  async run(fn: AnyFunction): Promise<readonly FilePart[]> {
    await this.#describe();
    const { checkpointMs } = this.#call;
    if (checkpointMs === undefined) {
      await this.#all(fn, undefined);
      return this.#parts;
    }
    const checkpoints = new Checkpoints(this.#folder, this.#task.key, checkpointMs);
    this.#parts.push(...checkpoints.takeUp());
    this.#files = this.#parts.length;
    await this.#all(fn, checkpoints);
    checkpoints.remove();
    return this.#parts;
  }

  async #all(fn: AnyFunction, checkpoints: Checkpoints | undefined): Promise<void> {
    const progress: Progress = { batches: checkpoints?.batches ?? 0 };
    for await (const result of this.#results(fn, progress)) {
      await this.#open().add(result, this.#call.mode);
      if (!checkpoints?.due) continue;
      await this.#flush(false);
      checkpoints.put(this.#parts, progress.batches);
    }
    await this.#flush(this.#parts.length === 0);
  }

  async *#results(fn: AnyFunction, progress: Progress): AsyncGenerator<unknown> {
    const { mode } = this.#call;
    const context = (batchIndex: number): ComputeContext => this.#context(batchIndex);
    if (mode === "table") {
      yield await fn(await Promise.all(this.#queries.map((_, i) => this.#whole(i))), context(0));
    } else if (mode === "batch") {
      const others = this.#queries.slice(1).map((_, i) => this.#whole(i + 1));
      const known = await Promise.all(others);
      for await (const batch of this.#batches(0, progress.batches)) {
        const result = await fn([batch, ...known], context(progress.batches));
        progress.batches++;
        yield result;
      }
    } else {
      const start = progress.batches;
      const streams = this.#queries.map((_, i) =>
        i === 0 ? this.#counted(start, progress) : this.#batches(i, 0),
      );
      const results = await fn(streams, context(start));
      if (!isIterable(results)) throw new TypeError(notIterable(results));
      yield* results;
    }
  }

  async *#counted(start: number, progress: Progress): AsyncGenerator<ComputeInput> {
    for await (const batch of this.#batches(0, start)) {
      progress.batches++;
      yield batch;
    }
  }

  async *#batches(input: number, skip: number): AsyncGenerator<ComputeInput> {
    const { batchRows, format } = this.#call;
    const query = this.#queries[input] as string;
    const rest = skip === 0 ? query : `${query} OFFSET ${skip * batchRows}`;
    const reader = await openReader(this.#connection);
    this.#readers.push(reader);
    if (format === "arrow") yield* arrowBatches(rest, batchRows, reader);
    else yield* rowBatches(rest, batchRows, reader);
  }

  async #whole(input: number): Promise<ComputeInput> {
    const query = this.#queries[input] as string;
    if (this.#call.format === "arrow") return await arrowTable(query, this.#connection);
    const rows = await this.#connection.runAndReadAll(query);
    return rows.getRowObjectsJS() as Record<string, unknown>[];
  }

  #context(batchIndex: number): ComputeContext {
    const { partition, partitionCounts = {}, seed, resources, node } = this.#task;
    return { partition, partitionCounts, batchIndex, seed, cpus: resources.cpus, node };
  }

  get #table(): string {
    return `results_${this.#task.key}`;
  }

  #open(): ResultSink {
    const { schema } = this.#call;
    this.#sink ??= new ResultSink(this.#connection, this.#table, schema, this.#columns);
    return this.#sink;
  }

  /** Writes what has come so far to a file; with `always`, also if that is nothing. */
  async #flush(always: boolean): Promise<void> {
    if (this.#sink === undefined && !always) return;
    await this.#open().end();
    this.#sink = undefined;
    const path = join(this.#folder, `part-${this.#files++}.parquet`);
    const table = identifier(this.#table);
    const copy = `COPY ${table} TO ${literal(path)} (${taskCopyOptions(this.#task)})`;
    const rows = await execute(this.#task, copy, this.#connection);
    await execute(this.#task, `DROP TABLE ${table}`, this.#connection);
    this.#parts.push(partOf(path, rows));
  }

  /** Columns of the first input, which a result without rows has if nobody says otherwise. */
  async #describe(): Promise<void> {
    const query = this.#queries[0] ?? "SELECT true AS nothing";
    const shape = await this.#connection.run(`SELECT * FROM (${query}) LIMIT 0`);
    this.#columns = Object.fromEntries(
      shape.deduplicatedColumnNames().map((name, i) => [name, String(shape.columnType(i))]),
    );
  }
}

interface Progress {
  /** Of the first input, given to the function. */
  batches: number;
}

const notIterable = (value: unknown): string =>
  `a stream's function gives an iterable of batches, as a generator does, not ${String(value)}`;
