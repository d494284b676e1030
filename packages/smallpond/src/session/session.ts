// A session: a job's folder, its executors and scheduler, and the calls that start DataFrames.

import { join } from "node:path";
import type { Table } from "apache-arrow";
import type { DataSet } from "../dataset/dataset.ts";
import { InfeasibleTaskError, PlanError, SessionClosedError, TaskError } from "../errors.ts";
import { EnginePool, engineVersion } from "../executor/engine.ts";
import { Fleet } from "../executor/fleet.ts";
import { arrowTable } from "../functions/arrow-read.ts";
import { rowBatches } from "../functions/run-function.ts";
import { makeUdf, type Udf, type UdfOptions } from "../functions/udf.ts";
import { PlanNodes } from "../nodes/plan-nodes.ts";
import { abandonSinks, listsFiles, openSinks, sinkStaging } from "../nodes/sink-place.ts";
import { explainBoth } from "../plan/explain.ts";
import { type PlanGraph, planGraph } from "../plan/graph.ts";
import type { NodeOptions, PlanNode } from "../plan/node.ts";
import type { OptimizedPlan } from "../plan/optimize/optimize.ts";
import { planTasks, type TaskGraph } from "../plan/planner.ts";
import { stepsOf } from "../plan/steps.ts";
import { parseTemplate } from "../plan/template.ts";
import { Scheduler, type TaskEvent } from "../scheduler/scheduler.ts";
import { JobFolder } from "../task/commit.ts";
import { JobLock } from "../task/lock.ts";
import type { ParquetOptions } from "../task/task.ts";
import { DataFrame, SourceFrame } from "./dataframe.ts";
import { endJob } from "./end.ts";
import { firstPartitions } from "./first-partitions.ts";
import { fleetOptions } from "./fleet-options.ts";
import { expectOptions } from "./frame-options.ts";
import { callerOf, NodeFactory } from "./node-factory.ts";
import type { NodeFigures } from "./node-metrics.ts";
import { type JobPlace, jobPlace, type SessionOptions, withEnvironment } from "./options.ts";
import { PlanOptimizer } from "./plan-optimizer.ts";
import {
  type ColumnValues,
  type CsvReadOptions,
  type JsonReadOptions,
  type ParquetReadOptions,
  type Paths,
  Readers,
} from "./readers.ts";
import { JobReport } from "./report.ts";

const tickMs = 100;
/** Of a timer that only keeps the process alive; anything below a timer's limit. */
const aliveMs = 2 ** 30;
const longestTickMs = 500;
const defaultParquet: ParquetOptions = { compression: "zstd", compressionLevel: 3 };
/** NOTES.md: delta encodings and lz4 take half of zstd's time for a tenth more bytes. */
const defaultShuffle: ParquetOptions = { compression: "lz4", version: 2, dictionary: false };

/** Starts a session; its executors come up when the first action needs them. */
export async function init(options: SessionOptions = {}): Promise<Session> {
  const session = new Session(options);
  await session.start();
  return session;
}

/** See {@link init}. */
export class Session implements AsyncDisposable {
  readonly folder: JobFolder;
  /** The low-level API. */
  readonly nodes: PlanNodes;
  readonly #place: JobPlace;
  readonly #options: SessionOptions;
  readonly #nodes = new NodeFactory();
  readonly #plans: PlanOptimizer;
  readonly #scheduler: Scheduler;
  readonly #fleet: Fleet;
  readonly #engine: EnginePool;
  readonly #readers: Readers;
  readonly #made = new Set<PlanNode>();
  readonly #report: JobReport;
  #clock: NodeJS.Timeout | undefined;
  #lock: JobLock | undefined;
  #awakeMs = 0;
  #lastTickMs: number = performance.now();
  #open = true;
  /** Of the last action, if it failed. */
  #failure: unknown;
  #keepOutput = false;

  constructor(given: SessionOptions) {
    const options = withEnvironment(given);
    this.#options = options;
    this.#plans = new PlanOptimizer(options.optimize);
    this.#place = jobPlace(options);
    this.folder = new JobFolder(this.#place.root, options);
    const fleet = fleetOptions(options, this.#place, {
      onStart: (handle) => this.#scheduler.addExecutor(handle),
      onExpect: (capacity) => this.#scheduler.expectExecutor(capacity),
      onNoMore: () => this.#scheduler.expectNoMore(),
      onNone: (error) => this.#scheduler.stop(error),
    });
    this.#fleet = new Fleet(fleet);
    this.#scheduler = new Scheduler(this.folder, {
      ...options,
      // A launcher's own words come first, and sooner.
      ...(fleet.launcher !== undefined && { noExecutorMs: 2 * fleet.startTimeoutMs }),
      onLost: (executor) => this.#fleet.replace(executor),
    });
    this.#report = new JobReport(join(this.folder.root, "log"), this.jobId);
    this.#scheduler.listen((event) => this.#report.take(event));
    this.#scheduler.listenExecutors((event) => this.#report.executor(event));
    this.#engine = new EnginePool(join(this.folder.root, "staging", "spill.driver"));
    this.#readers = new Readers(this.#engine, this.folder);
    this.nodes = new PlanNodes(this, this.#nodes);
  }

  async start(): Promise<void> {
    this.folder.create();
    this.#lock = await JobLock.acquire(this.folder.root, (error) => this.#scheduler.stop(error));
    this.folder.clearStaging();
    this.#report.begin();
    process.once("beforeExit", this.#end);
    this.#clock = setInterval(() => this.#tick(), tickMs);
    // An idle session must not keep a script alive; a running action does, see #alive.
    this.#clock.unref();
    if (this.explains) return;
    try {
      await this.#alive(() => this.#fleet.start());
    } catch (error) {
      this.#failure = error;
      await this.shutdown();
      throw error;
    }
  }

  /** For a script that comes to its end without a shutdown. */
  readonly #end = (): void => void this.shutdown();

  /** Keeps the process alive meanwhile: executors, being idle between actions, do not. */
  async #alive<T>(body: () => Promise<T>): Promise<T> {
    const holder = setInterval(() => {}, aliveMs);
    try {
      return await body();
    } finally {
      clearInterval(holder);
    }
  }

  /** Whether actions only print their plans; see {@link SessionOptions.explain}. */
  get explains(): boolean {
    return this.#options.explain ?? false;
  }

  async #explain(node: PlanNode): Promise<readonly DataSet[]> {
    const plan = explainBoth(node, await this.#plans.optimize(node), []);
    process.stdout.write(`action at ${callerOf() || "unknown"}\n${plan}\n\n`);
    return [];
  }

  /** The scheduler's time stands while this process does: nobody was silent meanwhile. */
  #tick(): void {
    const nowMs = performance.now();
    this.#awakeMs += Math.min(nowMs - this.#lastTickMs, longestTickMs);
    this.#lastTickMs = nowMs;
    this.#scheduler.tick(this.#awakeMs);
  }

  get jobId(): string {
    return this.#place.jobId;
  }

  get jobName(): string {
    return this.#place.jobName;
  }

  get jobTime(): Date {
    return this.#place.jobTime;
  }

  /** Columns and types must be given, as text has none. */
  readCsv(paths: Paths, options: CsvReadOptions): SourceFrame {
    return this.#source("csv", this.#readers.csv(paths, options));
  }

  /** JSON objects, one a line unless the options say so. */
  readJson(paths: Paths, options: JsonReadOptions): SourceFrame {
    return this.#source("json", this.#readers.json(paths, options));
  }

  readParquet(paths: Paths, options: ParquetReadOptions = {}): SourceFrame {
    return this.#source("parquet", this.#readers.parquet(paths, options));
  }

  /** A Delta Lake table, where DuckDB's extension `delta` is installed. @throws InputError */
  readDelta(path: string): SourceFrame {
    return this.#source("table", this.#readers.table(path, "delta"));
  }

  /** An Iceberg table, where DuckDB's extension `iceberg` is installed. @throws InputError */
  readIceberg(path: string): SourceFrame {
    return this.#source("table", this.#readers.table(path, "iceberg"));
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
    expectOptions("partialSql", options ?? {}, "node");
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
  fromItems(items: readonly unknown[]): SourceFrame {
    return this.#source("parquet", this.#readers.items(items));
  }

  /** An Arrow table, also one of no rows. @throws InputError for a type that DuckDB lacks */
  fromArrow(table: Table): SourceFrame {
    return this.#source("parquet", this.#readers.arrow(table));
  }

  /** Columns from memory: arrays or typed arrays of one length. */
  fromColumns(columns: Readonly<Record<string, ColumnValues>>): SourceFrame {
    return this.#source("parquet", this.#readers.columns(columns));
  }

  /** A function in TypeScript for SQL: `sp.partialSql(query, df, { udfs: [gcd] })`. */
  udf(name: string, options: UdfOptions): Udf {
    return makeUdf(name, options, callerOf());
  }

  /**
   * Computes several frames, or actions under way, at once. All have ended when this does.
   *
   * @throws the first one's error in the order given, if any failed
   */
  async wait(...frames: readonly (DataFrame | Promise<unknown>)[]): Promise<void> {
    const ends = await Promise.allSettled(
      frames.map((frame) => (frame instanceof DataFrame ? frame.compute() : frame)),
    );
    for (const end of ends) if (end.status === "rejected") throw end.reason;
  }

  /** The plan's nodes and who reads whom: of some frames, or of all that were made. */
  graph(...frames: readonly DataFrame[]): PlanGraph {
    return planGraph(frames.length > 0 ? frames.map(({ node }) => node) : [...this.#made]);
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
    await this.found(node);
    if (this.explains) return this.#explain(node);
    const graph = await this.#plan(node, options.forKeeps);
    if (options.again) this.#scheduler.forget(graph.roots.flat());
    const data = await this.#run(graph, { signal: options.signal });
    this.#plans.noteFinished(node);
    return data;
  }

  /**
   * Runs no more of a node's partitions than give so many rows, the first ones first; the data of
   * those that ran, each with no more rows than that.
   */
  async executeFirst(node: PlanNode, rows: number): Promise<readonly DataSet[]> {
    await this.found(node);
    if (this.explains) return this.#explain(node);
    const pieces = ["SELECT * FROM ", { input: 0 }, ` LIMIT ${rows}`];
    const graph = await this.#plan(this.#nodes.sql([node], pieces, {}, node.source));
    return await firstPartitions(graph, rows, Math.max(1, this.#fleet.cpus), (some) =>
      this.runTasks(some),
    );
  }

  /** What a node's plan becomes before it runs. */
  async optimized(node: PlanNode): Promise<OptimizedPlan> {
    await this.found(node);
    return await this.#plans.optimize(node);
  }

  /** A DataFrame of a node. */
  frameOf(node: PlanNode): DataFrame {
    return new DataFrame(this, this.#nodes, node);
  }

  /** For DataFrames: a node that a user made. */
  noteMade(node: PlanNode): void {
    this.#made.add(node);
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
      sinkStaging,
    });
    this.#report.action(stepsOf(root, graph as TaskGraph));
    return graph as TaskGraph;
  }

  /** Runs tasks that were not made of a plan's nodes; the data of each root. */
  async runTasks(
    graph: TaskGraph,
    options: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<readonly DataSet[]> {
    return await this.#run(graph, options);
  }

  /** How results are written. */
  get parquet(): ParquetOptions {
    return { ...defaultParquet, ...this.#options.parquet };
  }

  /** For writers of manifests: others read the job's own files after its end. */
  keepOutput(): void {
    this.#keepOutput = true;
  }

  /** Runs an action, and remembers how the last one ended. */
  async #run(
    graph: TaskGraph,
    options: { readonly signal?: AbortSignal | undefined },
  ): Promise<readonly DataSet[]> {
    if (!this.#open) throw new SessionClosedError();
    try {
      await openSinks(graph.tasks);
      if (listsFiles(graph.tasks)) this.keepOutput();
      const data = await this.#alive(() => this.#scheduler.run(graph, options));
      this.#failure = undefined;
      return data;
    } catch (error) {
      this.#failure = error;
      await abandonSinks(graph.tasks);
      if (error instanceof TaskError || error instanceof InfeasibleTaskError)
        error.happenedAt(this.#report.sourceOf(error.task));
      throw error;
    }
  }

  /** As {@link query}, as an Arrow table. */
  async queryArrow(sql: string): Promise<Table> {
    const limits = { threads: 2, memoryBytes: 2 ** 30, seed: 0 };
    return await this.#engine.with(limits, (connection) => arrowTable(sql, connection));
  }

  /** A query run here, over finished data; for results that a person looks at. */
  async query(sql: string): Promise<readonly Record<string, unknown>[]> {
    const limits = { threads: 2, memoryBytes: 2 ** 30, seed: 0 };
    return await this.#engine.with(limits, async (connection) => {
      for await (const rows of rowBatches(sql, Number.POSITIVE_INFINITY, connection)) return rows;
      return [];
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

  #source(format: DataSet["format"], data: Promise<DataSet>): SourceFrame {
    const reading = this.#alive(() => data);
    return new SourceFrame(this, this.#nodes, this.#nodes.reading(format, reading, callerOf()));
  }

  /** Until all that a plan reads was found. @throws what its readers threw */
  async found(node: PlanNode): Promise<void> {
    await this.#nodes.found(node);
  }

  /**
   * Ends the executors, and writes how the job ended to `log/.STATUS`: as a failure if it is told
   * so, if the last action failed, or if the process is to exit with a code. After a success
   * intermediate files are deleted, and results too with `removeOutput`; after a failure all stays.
   */
  async shutdown(options: { readonly failed?: boolean } = {}): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    process.off("beforeExit", this.#end);
    await this.#alive(() => this.#close(options));
  }

  async #close(options: { readonly failed?: boolean }): Promise<void> {
    const exits = process.exitCode !== undefined && Number(process.exitCode) !== 0;
    const failed = options.failed ?? (this.#failure !== undefined || exits);
    this.#scheduler.stop();
    clearInterval(this.#clock);
    await this.#fleet.close();
    this.#engine.close();
    this.#plans.close();
    await this.folder.settled();
    // The last news are of the executors that left.
    this.#report.write();
    const removeOutput = this.#place.removeOutput && !this.#keepOutput;
    await endJob(this.folder.root, { failed, removeOutput });
    this.#lock?.release();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.shutdown();
  }
}
