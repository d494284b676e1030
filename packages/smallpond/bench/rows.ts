// The rows that the benches work on, and the jobs and peers that they time: 16 M rows in 8 Parquet
// files of some 480 MB, with a key of a million values, as the reference measured the original.

import { mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { type DuckDBConnection, DuckDBInstance } from "@duckdb/node-api";
import { type BenchRow, median } from "@open-infra/testing";
import { init, type Session } from "../src/index.ts";

/** Threads of ours and of every peer. */
export const threads: number = Math.min(2, availableParallelism());

/** A folder with input files, gone at the end; jobs and peers write beside them. */
export class Workplace implements AsyncDisposable {
  readonly root: string = mkdtempSync(join(tmpdir(), "smallpond-bench-"));
  readonly input: string = join(this.root, "in-*.parquet");
  readonly source: string = `read_parquet('${this.input}')`;
  readonly duck: DuckDBConnection;
  readonly rows: number;
  #jobs = 0;

  private constructor(duck: DuckDBConnection, rows: number) {
    this.duck = duck;
    this.rows = rows;
  }

  /** Makes the files: id, k (of `rows / 16` values), v, and 16 letters that compress badly. */
  static async open(rows: number): Promise<Workplace> {
    const instance = await DuckDBInstance.create(":memory:", { threads: `${threads}` });
    const place = new Workplace(await instance.connect(), rows);
    const each = rows / 8;
    for (let file = 0; file < 8; file++) {
      const number = `range + ${file * each}`;
      const query =
        `SELECT ${number} AS id, (hash(${number}) % ${rows / 16})::BIGINT AS k, ` +
        `(hash(${number}, 1) % 1000000) / 100.0 AS v, ` +
        `substr(md5((${number})::VARCHAR), 1, 16) AS s FROM range(${each})`;
      const path = join(place.root, `in-${file}.parquet`);
      await place.duck.run(`COPY (${query}) TO '${path}' (FORMAT parquet)`);
    }
    return place;
  }

  /** A path that nothing is at. */
  fresh(): string {
    return join(this.root, `out-${this.#jobs++}`);
  }

  /** Milliseconds of a peer's work; what it wrote to the path it is given is deleted. */
  async timed(body: (path: string) => unknown): Promise<number> {
    const path = this.fresh();
    const startMs = performance.now();
    await body(path);
    const tookMs = performance.now() - startMs;
    rmSync(path, { recursive: true, force: true });
    return tookMs;
  }

  /** Milliseconds of a job in a new session whose executors are up. */
  async job(body: (session: Session) => Promise<unknown>): Promise<number> {
    const dataRoot = this.fresh();
    const session = await init({ dataRoot, jobId: "job", executorCpus: threads });
    await session.partialSql("SELECT 1 AS one").compute();
    const startMs = performance.now();
    await body(session);
    const tookMs = performance.now() - startMs;
    await session.shutdown();
    rmSync(dataRoot, { recursive: true, force: true });
    return tookMs;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.duck.closeSync();
    rmSync(this.root, { recursive: true, force: true });
  }
}

/** One thing that is timed; calls of several come in turn. */
export type Contender = () => Promise<number>;

/** Median milliseconds of each, from rounds in which each has its turn. */
export async function inTurn<K extends string>(
  contenders: Readonly<Record<K, Contender>>,
  rounds: number,
): Promise<Record<K, number>> {
  const names = Object.keys(contenders) as K[];
  const samples = new Map<K, number[]>(names.map((name) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    for (const name of names) samples.get(name)?.push(await contenders[name]());
  }
  return Object.fromEntries(names.map((name) => [name, median(samples.get(name) ?? [])])) as Record<
    K,
    number
  >;
}

/** A row of ours beside a peer. */
export function against(
  name: string,
  shape: string,
  oursMs: number,
  peer: string,
  peerMs: number,
): BenchRow {
  return { case: name, shape, us: oursMs * 1000, peer, peerRatio: peerMs / oursMs };
}

/** Of nodejs-polars, what is used here. */
interface Polars {
  scanParquet(path: string): LazyFrame;
  col(name: string): Expression;
}
interface Expression {
  sum(): Expression;
  count(): Expression;
  alias(name: string): Expression;
}
interface LazyFrame {
  groupBy(key: string): { agg(...columns: Expression[]): LazyFrame };
  collect(): Promise<{ writeParquet(path: string, options?: object): unknown }>;
}

/** nodejs-polars from `bench/peers`, or why it is not there. */
export async function loadPolars(): Promise<Polars | string> {
  process.env.POLARS_MAX_THREADS = `${threads}`;
  const folder = createRequire(new URL("./peers/package.json", import.meta.url));
  try {
    const module = await import(pathToFileURL(folder.resolve("nodejs-polars")).href);
    return module.default as Polars;
  } catch {
    return "nodejs-polars: npx npm install --prefix packages/smallpond/bench/peers";
  }
}
