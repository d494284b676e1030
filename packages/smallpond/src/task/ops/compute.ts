// A task that calls a user's function over whole inputs: tables, batches of the first input, or
// streams. What batches and streams give is put aside from time to time, as calls over rows do it,
// and an attempt that follows a broken one goes on from there.

import { join } from "node:path";
import type { DuckDBConnection } from "@duckdb/node-api";
import type { Table } from "apache-arrow";
import type { DataSet, FilePart, Schema } from "../../dataset/dataset.ts";
import { fromClause } from "../../dataset/sql-text.ts";
import { arrowBatches, arrowTable } from "../../functions/arrow-read.ts";
import { loadFunction } from "../../functions/function-ref.ts";
import { isIterable, ResultSink, rowBatches } from "../../functions/run-function.ts";
import { openReader } from "../beside.ts";
import { CheckpointChain, checkpointFolder } from "../checkpoint-chain.ts";
import type { ComputeCall, Task, TaskOp } from "../task.ts";
import { type KeptState, moveTable, Progress } from "./call.ts";
import { allEmpty, withFunction } from "./write.ts";

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
    const parts = await withFunction(task, () => work.run(skipped ? undefined : fn));
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
  /** A connection a stream: whatever else one does ends the stream. */
  readonly #readers: DuckDBConnection[] = [];

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

  /** @param fn Without one, a file without rows. */
  async run(fn: AnyFunction | undefined): Promise<readonly FilePart[]> {
    const { schema, mode } = this.#call;
    const progress = this.#progress();
    const columns = await this.#columns();
    const table = this.#table;
    const sink = new ResultSink(this.#connection, table, schema, columns, progress?.resumed);
    const done = { rows: progress?.skipRows ?? 0 };
    let before = done.rows;
    for await (const result of fn === undefined ? [] : this.#results(fn, done)) {
      // It has asked for another batch since the last result: the sink has all of those before.
      if (done.rows !== before) {
        before = done.rows;
        await progress?.done(done.rows, sink);
      }
      await sink.add(result, mode);
    }
    await sink.end();
    const last = await this.#write(progress?.lastFile ?? join(this.#folder, "part-0.parquet"));
    return [...(progress?.parts ?? []), last];
  }

  #progress(): Progress | undefined {
    const { checkpointMs } = this.#call;
    const place = checkpointFolder(this.#folder, this.#task.key);
    if (checkpointMs === undefined || place === undefined) return undefined;
    const chain = new CheckpointChain<KeptState>(place, this.#folder);
    return new Progress(chain, Infinity, checkpointMs, (path) => this.#write(path));
  }

  get #table(): string {
    return `results_${this.#task.key}`;
  }

  async #write(path: string): Promise<FilePart> {
    return await moveTable(this.#task, this.#table, path, this.#connection);
  }

  async *#results(fn: AnyFunction, done: Done): AsyncGenerator<unknown> {
    const { mode, batchRows } = this.#call;
    const context = (): ComputeContext => this.#context(Math.ceil(done.rows / batchRows));
    if (mode === "table") {
      yield await fn(await this.#whole(this.#queries), context());
    } else if (mode === "batch") {
      const others = await this.#whole(this.#queries.slice(1));
      for await (const batch of this.#counted(done)) yield await fn([batch, ...others], context());
    } else {
      const streams = this.#queries.map((_, i) =>
        i === 0 ? this.#counted(done) : this.#batches(i, 0),
      );
      const results = await fn(streams, context());
      if (!isIterable(results)) throw new TypeError(notIterable(results));
      yield* results;
    }
  }

  async *#counted(done: Done): AsyncGenerator<ComputeInput> {
    for await (const batch of this.#batches(0, done.rows)) {
      yield batch;
      done.rows += rowsOf(batch);
    }
  }

  async *#batches(input: number, skip: number): AsyncGenerator<ComputeInput> {
    const reader = await openReader(this.#connection);
    this.#readers.push(reader);
    const { batchRows } = this.#call;
    yield* this.#read(this.#queries[input] as string, batchRows, reader, skip);
  }

  #read(
    query: string,
    batchRows: number,
    connection: DuckDBConnection,
    skip = 0,
  ): AsyncGenerator<ComputeInput> {
    return this.#call.format === "arrow"
      ? arrowBatches(query, batchRows, connection, skip)
      : rowBatches(query, batchRows, connection, skip);
  }

  async #whole(queries: readonly string[]): Promise<readonly ComputeInput[]> {
    const inputs: ComputeInput[] = [];
    for (const query of queries) {
      if (this.#call.format === "arrow") inputs.push(await arrowTable(query, this.#connection));
      else {
        const all = this.#read(query, Infinity, this.#connection);
        inputs.push((await all.next()).value ?? []);
      }
    }
    return inputs;
  }

  #context(batchIndex: number): ComputeContext {
    const { partition, partitionCounts = {}, seed, resources, node } = this.#task;
    return { partition, partitionCounts, batchIndex, seed, cpus: resources.cpus, node };
  }

  /** Columns of the first input, which a result without rows has if nobody says otherwise. */
  async #columns(): Promise<Schema> {
    const query = this.#queries[0] ?? "SELECT true AS nothing";
    const shape = await this.#connection.run(`SELECT * FROM (${query}) LIMIT 0`);
    return Object.fromEntries(
      shape.deduplicatedColumnNames().map((name, i) => [name, String(shape.columnType(i))]),
    );
  }
}

/** Rows of the first input in batches after which the function has asked for another. */
interface Done {
  rows: number;
}

const rowsOf = (batch: ComputeInput): number => ("numRows" in batch ? batch.numRows : batch.length);

const notIterable = (value: unknown): string =>
  `a stream's function gives an iterable of batches, as a generator does, not ${String(value)}`;
