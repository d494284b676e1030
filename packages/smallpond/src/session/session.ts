// A session: a job's folder, its executors and scheduler, and the calls that start DataFrames.

import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { availableParallelism, freemem, homedir } from "node:os";
import { join } from "node:path";
import { InputError } from "@open-infra/errors";
import type { DataSet, Schema } from "../dataset/dataset.ts";
import { resolveFiles } from "../dataset/resolve.ts";
import { PlanError, SessionClosedError } from "../errors.ts";
import { EnginePool, engineVersion } from "../executor/engine.ts";
import { Fleet } from "../executor/fleet.ts";
import { writeRows } from "../functions/table-writer.ts";
import type { NodeOptions, PlanNode } from "../plan/node.ts";
import type { OptimizedPlan } from "../plan/optimize/optimize.ts";
import { planTasks, type TaskGraph } from "../plan/planner.ts";
import { parseTemplate } from "../plan/template.ts";
import type { FaultOptions } from "../scheduler/policy.ts";
import { Scheduler, type TaskEvent } from "../scheduler/scheduler.ts";
import { JobFolder } from "../task/commit.ts";
import type { StorageOptions } from "../task/disk.ts";
import { contentKey } from "../task/key.ts";
import { JobLock } from "../task/lock.ts";
import type { ParquetOptions } from "../task/task.ts";
import { DataFrame, type Row } from "./dataframe.ts";
import { firstPartitions } from "./first-partitions.ts";
import { callerOf, NodeFactory } from "./node-factory.ts";
import { PlanOptimizer } from "./plan-optimizer.ts";
import { JobReport, type NodeFigures } from "./report.ts";

/** How a session runs. */
export interface SessionOptions extends FaultOptions, StorageOptions {
  /** Names the job's folder; the same one again resumes it. @default random */
  readonly jobId?: string;
  /** Below it all jobs' folders lie, on a file system that all executors share. */
  readonly dataRoot?: string;
  /** Executor processes. @default 1, with all cores */
  readonly numExecutors?: number;
  /** Cores of an executor. @default this machine's, shared out */
  readonly executorCpus?: number;
  readonly executorMemoryBytes?: number;
  /** Executors started anew for lost ones, in all. @default 3 */
  readonly maxRestarts?: number;
  readonly seed?: number;
  /** False runs plans as they are written, a task for every step. @default true */
  readonly optimize?: boolean;
  /** How results are written. @default zstd 3 */
  readonly parquet?: Partial<ParquetOptions>;
  /** How rows on their way to another partition are written. @default lz4, pages of version 2 */
  readonly shuffleParquet?: Partial<ParquetOptions>;
}

const tickMs = 100;
const longestTickMs = 500;
const defaultParquet: ParquetOptions = { compression: "zstd", compressionLevel: 3 };
/** Measured in NOTES.md: delta encodings and lz4 take half of zstd's time for a tenth more bytes. */
const defaultShuffle: ParquetOptions = { compression: "lz4", version: 2, dictionary: false };

/** Starts a session; its executors come up when the first action needs them. */
export async function init(options: SessionOptions = {}): Promise<Session> {
  const session = new Session(options);
  await session.start();
  return session;
}

/** See {@link init}. */
export class Session implements AsyncDisposable {
  readonly jobId: string;
  readonly folder: JobFolder;
  readonly #options: SessionOptions;
  readonly #nodes = new NodeFactory();
  readonly #plans: PlanOptimizer;
  readonly #scheduler: Scheduler;
  readonly #fleet: Fleet;
  readonly #engine: EnginePool;
  readonly #report: JobReport;
  #clock: NodeJS.Timeout | undefined;
  #lock: JobLock | undefined;
  #awakeMs = 0;
  #lastTickMs: number = performance.now();
  #open = true;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.#plans = new PlanOptimizer(options.optimize);
    this.jobId = options.jobId ?? randomUUID().slice(0, 8);
    if (!/^[\w.-]+$/.test(this.jobId)) {
      throw new InputError("jobId", this.jobId, "letters, digits, '_', '.' and '-'");
    }
    const root = options.dataRoot ?? join(homedir(), ".cache", "open-infra", "smallpond");
    this.folder = new JobFolder(join(root, this.jobId), options);
    const count = options.numExecutors ?? 1;
    this.#fleet = new Fleet({
      jobRoot: this.folder.root,
      count,
      capacity: {
        cpus: options.executorCpus ?? Math.max(1, Math.floor(availableParallelism() / count)),
        memoryBytes:
          options.executorMemoryBytes ?? Math.floor((freemem() * 0.8) / Math.max(1, count)),
        gpus: 0,
      },
      maxRestarts: options.maxRestarts ?? 3,
      onStart: (handle) => this.#scheduler.addExecutor(handle),
    });
    this.#scheduler = new Scheduler(this.folder, {
      ...options,
      onLost: (executor) => this.#fleet.replace(executor),
    });
    this.#report = new JobReport(join(this.folder.root, "log"));
    this.#scheduler.listen((event) => this.#report.take(event));
    this.#engine = new EnginePool(join(root, this.jobId, "staging", "spill.driver"));
  }

  async start(): Promise<void> {
    this.folder.create();
    this.#lock = await JobLock.acquire(this.folder.root, (error) => this.#scheduler.stop(error));
    this.folder.clearStaging();
    this.#clock = setInterval(() => this.#tick(), tickMs);
    // An idle session must not keep a script alive; a running action has its executors.
    this.#clock.unref();
    this.#fleet.start();
  }

  /** The scheduler's time stands while this process does: nobody was silent meanwhile. */
  #tick(): void {
    const nowMs = performance.now();
    this.#awakeMs += Math.min(nowMs - this.#lastTickMs, longestTickMs);
    this.#lastTickMs = nowMs;
    this.#scheduler.tick(this.#awakeMs);
  }

  /** Columns and types must be given, as text has none. */
  async readCsv(
    paths: string | readonly string[],
    options: { readonly schema: Schema; readonly delimiter?: string; readonly header?: boolean },
  ): Promise<DataFrame> {
    const { schema, delimiter = ",", header = false } = options;
    const parts = await resolveFiles(paths, "readCsv");
    return this.#source({ format: "csv", parts, schema, delimiter, header });
  }

  /** One JSON object a line. */
  async readJson(
    paths: string | readonly string[],
    options: { readonly schema: Schema },
  ): Promise<DataFrame> {
    const parts = await resolveFiles(paths, "readJson");
    return this.#source({ format: "json", parts, schema: options.schema });
  }

  async readParquet(
    paths: string | readonly string[],
    options: {
      readonly columns?: readonly string[];
      readonly recursive?: boolean;
      readonly unionByName?: boolean;
    } = {},
  ): Promise<DataFrame> {
    const parts = await resolveFiles(paths, "readParquet", options.recursive ?? false, ".parquet");
    const { columns, unionByName } = options;
    return this.#source({
      format: "parquet",
      parts,
      ...(columns !== undefined && { columns }),
      ...(unionByName !== undefined && { unionByName }),
    });
  }

  /**
   * A query over each partition of its inputs, `{0}`, `{1}`, …; an input of one partition goes to
   * every partition of the others.
   *
   * @throws PlanError if partitions do not match, or the query names an input that there is not
   */
  partialSql(query: string, ...rest: readonly (DataFrame | NodeOptions)[]): DataFrame {
    const frames = rest.filter((item) => item instanceof DataFrame);
    const options = rest.find((item) => !(item instanceof DataFrame)) as NodeOptions | undefined;
    const inputs = frames.map((frame) => frame.node);
    const names = inputs.flatMap((input) => input.dimensions.map(({ name }) => name));
    const pieces = parseTemplate(query, names);
    for (const piece of pieces) {
      if (typeof piece === "object" && "input" in piece && piece.input >= inputs.length) {
        throw new PlanError(
          `the query names {${piece.input}}, but has ${inputs.length} inputs: ${query}`,
        );
      }
    }
    return new DataFrame(this, this.#nodes, this.#nodes.sql(inputs, pieces, options, callerOf()));
  }

  /**
   * Rows from memory: objects, or plain values as a column `item`.
   *
   * @throws InputError for none, as their columns are not known
   */
  async fromItems(items: readonly unknown[]): Promise<DataFrame> {
    if (items.length === 0) throw new InputError("fromItems: items", "empty", "at least one item");
    const isRow = (item: unknown): item is Row =>
      item !== null && typeof item === "object" && !Array.isArray(item) && !(item instanceof Date);
    const rows = items.map((item) => (isRow(item) ? item : { item }));
    const path = this.folder.item(`items-${contentKey(rows.map(jsonSafe))}.parquet`);
    if (!existsSync(path)) {
      const limits = { threads: 1, memoryBytes: 2 ** 30, seed: 0 };
      await this.#engine.with(limits, (connection) => writeRows(rows, path, connection));
    }
    return this.#source({ format: "parquet", parts: await resolveFiles(path, "fromItems") });
  }

  /** Runs what a node needs; the data of each of its partitions. */
  async execute(
    node: PlanNode,
    options: {
      readonly again?: boolean;
      /** The files go to a user's folder. */
      readonly forKeeps?: boolean;
      readonly signal?: AbortSignal;
    } = {},
  ): Promise<readonly DataSet[]> {
    const graph = await this.#plan(node, options.forKeeps);
    if (options.again) this.#scheduler.forget(graph.roots.flat());
    const data = await this.#scheduler.run(graph, { signal: options.signal });
    this.#plans.noteFinished(node);
    return data;
  }

  /**
   * Runs no more of a node's partitions than give so many rows, the first ones first; the data of
   * those that ran, each with no more rows than that.
   */
  async executeFirst(node: PlanNode, rows: number): Promise<readonly DataSet[]> {
    const pieces = ["SELECT * FROM ", { input: 0 }, ` LIMIT ${rows}`];
    const graph = await this.#plan(this.#nodes.sql([node], pieces, {}, node.source));
    return await firstPartitions(graph, rows, Math.max(1, this.#fleet.cpus), (some) =>
      this.runTasks(some),
    );
  }

  /** What a node's plan becomes before it runs. */
  async optimized(node: PlanNode): Promise<OptimizedPlan> {
    return await this.#plans.optimize(node);
  }

  /** For DataFrames: a node that a user made. */
  noteMade(node: PlanNode): void {
    this.#plans.noteMade(node);
  }

  async #plan(node: PlanNode, forKeeps = false): Promise<TaskGraph> {
    if (!this.#open) throw new SessionClosedError();
    const { root } = await this.#plans.optimize(node);
    const [graph] = planTasks([root], {
      parallelism: Math.max(1, 2 * this.#fleet.cpus),
      seed: this.#options.seed ?? 0,
      engine: engineVersion(),
      parquet: { ...defaultParquet, ...this.#options.parquet },
      shuffleParquet: { ...defaultShuffle, ...this.#options.shuffleParquet },
      forKeeps,
    });
    return graph as TaskGraph;
  }

  /** Runs tasks that were not made of a plan's nodes; the data of each root. */
  async runTasks(
    graph: TaskGraph,
    options: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<readonly DataSet[]> {
    if (!this.#open) throw new SessionClosedError();
    return await this.#scheduler.run(graph, options);
  }

  /** A query run here, over finished data; for results that a person looks at. */
  async query(sql: string): Promise<Record<string, unknown>[]> {
    const limits = { threads: 2, memoryBytes: 2 ** 30, seed: 0 };
    return await this.#engine.with(limits, async (connection) => {
      const reader = await connection.runAndReadAll(sql);
      return reader.getRowObjectsJS() as Record<string, unknown>[];
    });
  }

  /** Process ids of the executors that are there, by name. */
  get executorPids(): Readonly<Record<string, number>> {
    return Object.fromEntries(
      this.#scheduler.executors.map(({ handle }) => [handle.id, handle.pid]),
    );
  }

  /** What the tasks of each node took so far; written to `log/metrics.csv` at the end. */
  figures(): readonly NodeFigures[] {
    return this.#report.figures();
  }

  get progress(): { readonly started: number; readonly finished: number } {
    return this.#report.progress;
  }

  listen(listener: (event: TaskEvent) => void): () => void {
    return this.#scheduler.listen(listener);
  }

  #source(data: DataSet): DataFrame {
    return new DataFrame(this, this.#nodes, this.#nodes.source(data, callerOf()));
  }

  /** Ends the executors. What was computed stays in the job's folder. */
  async shutdown(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    this.#scheduler.stop();
    clearInterval(this.#clock);
    this.#report.write();
    await this.#fleet.close();
    this.#engine.close();
    this.#plans.close();
    await this.folder.settled();
    this.#lock?.release();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.shutdown();
  }
}

/** Values that JSON has no form for, as text; only for a key. */
function jsonSafe(row: Row): unknown {
  return Object.fromEntries(
    Object.entries(row).map(([name, value]) => [
      name,
      typeof value === "bigint" ? `${value}n` : value instanceof Uint8Array ? [...value] : value,
    ]),
  );
}
