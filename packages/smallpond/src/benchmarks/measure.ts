// What the benchmark programs share: a session of one-core executors, times, and a checksum over
// all rows that does not mind their order. The programs themselves are in the files beside it.

import { randomUUID } from "node:crypto";
import { availableParallelism, totalmem } from "node:os";
import { InputError } from "@open-infra/errors";
import { type DataSet, knownRows } from "../dataset/dataset.ts";
import type { DataFrame } from "../session/dataframe.ts";
import { defaultDimension } from "../session/node-factory.ts";
import type { SessionOptions } from "../session/options.ts";
import { init, type Session } from "../session/session.ts";

/** Where a benchmark runs. */
export interface BenchmarkOptions {
  /** Processes of one core each. @default this machine's cores */
  readonly executors?: number;
  /** How the session runs; `numExecutors` and `executorCpus` are the benchmark's. */
  readonly session?: Omit<SessionOptions, "numExecutors" | "executorCpus">;
  /** Given the session before it works, to watch it. */
  readonly onSession?: (session: Session) => void;
}

/** One step of a benchmark. */
export interface Timing {
  readonly seconds: number;
  readonly mibPerSecond: number;
}

/** What two data sets of equal rows have in common, in whatever order. */
export interface RowSum {
  readonly rows: number;
  /** Sum of DuckDB's hashes of the rows, hexadecimal. */
  readonly checksum: string;
}

/** A session for a benchmark, with executors and their processes up: no step pays for a start. */
export async function benchmark<T>(
  options: BenchmarkOptions,
  body: (session: Session, executors: number) => Promise<T>,
): Promise<T> {
  const executors = options.executors ?? availableParallelism();
  whole("executors", executors, 1);
  const executorMemoryBytes =
    options.session?.executorMemoryBytes ?? Math.floor((totalmem() * 0.6) / executors);
  await using session = await init({
    ...options.session,
    numExecutors: executors,
    executorCpus: 1,
    executorMemoryBytes,
  });
  options.onSession?.(session);
  // Never the same rows, so that a job that goes on does not take it as done.
  const items = await session.fromItems(Array.from({ length: executors }, () => randomUUID()));
  const cut = items.repartition(executors, { byRows: true });
  await cut.mapBatches((batch) => batch, { name: "start" }).compute();
  return await body(session, executors);
}

/** Runs a step that moves `bytes`. */
export async function measured<T>(
  bytes: number,
  step: () => Promise<T>,
): Promise<readonly [T, Timing]> {
  const startMs = performance.now();
  const value = await step();
  const seconds = (performance.now() - startMs) / 1000;
  return [value, { seconds, mibPerSecond: bytes / 2 ** 20 / seconds }];
}

/** The data's own columns, without the one that a cut left. */
export const ownRows: string = `SELECT COLUMNS(c -> c <> '${defaultDimension}') FROM {0}`;

/** Rows and checksum of a frame, a task a partition. */
export async function rowSum(frame: DataFrame): Promise<RowSum> {
  const figures = "count(*) AS n, CAST(sum(hash(t)) AS VARCHAR) AS total";
  const query = `SELECT ${figures} FROM (${ownRows}) AS t`;
  const sums = await frame.select(query, { name: "checksum" }).takeAll();
  const rows = sums.reduce((sum, { n }) => sum + Number(n), 0);
  const total = sums.reduce((sum, { total: part }) => sum + BigInt(String(part ?? 0)), 0n);
  return { rows, checksum: total.toString(16) };
}

/** Whether rows and checksum are alike. */
export const sameRows = (a: RowSum, b: RowSum): boolean =>
  a.rows === b.rows && a.checksum === b.checksum;

/** Bytes of the files that hold the data. */
export function fileBytes(data: readonly DataSet[]): number {
  return data.flatMap(({ parts }) => parts).reduce((sum, { bytes = 0 }) => sum + bytes, 0);
}

/** Rows of each partition, where known; computed Parquet knows its own. */
export const partitionRows = (data: readonly DataSet[]): readonly number[] =>
  data.map((set) => knownRows(set) ?? 0);

/** @throws InputError unless it is a whole number from `low` on */
export function whole(parameter: string, value: number, low: number): void {
  if (!Number.isSafeInteger(value) || value < low) {
    throw new InputError(parameter, `${value}`, `a whole number of at least ${low}`);
  }
}
