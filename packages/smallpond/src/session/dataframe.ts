// The DataFrame: a plan's node and the calls that make further nodes or run it. Nothing runs until
// data is asked for; what was computed once in a session is not computed again.

import { InputError } from "@open-infra/errors";
import type { Table } from "apache-arrow";
import { concatData, type DataSet, knownRows, type Schema } from "../dataset/dataset.ts";
import { fromClause, identifier, literal } from "../dataset/sql-text.ts";
import { PlanError } from "../errors.ts";
import { functionRef, type ModuleFunction } from "../functions/function-ref.ts";
import type { FunctionMode } from "../functions/run-function.ts";
import { explainBoth, explainPlan } from "../plan/explain.ts";
import { type NodeOptions, type PlanNode, partitionCount } from "../plan/node.ts";
import { shapeQuery } from "../plan/shape.ts";
import { parseTemplate } from "../plan/template.ts";
import type { ExportForm } from "../task/ops/export.ts";
import type { ParquetOptions } from "../task/task.ts";
import {
  type ArrowFunction,
  type BatchFunction,
  type BatchOptions,
  type CsvWriteOptions,
  expectOptions,
  type FunctionOptions,
  type JoinOptions,
  type JsonWriteOptions,
  type LooseRow,
  type ParquetWriteOptions,
  type RepartitionOptions,
  type Row,
  type RowFunction,
  type StreamFunction,
  type WriteOptions,
} from "./frame-options.ts";
import { GroupedFrame } from "./grouped.ts";
import { equalityHash, groupHash, hashOf, sortKey } from "./keys.ts";
import { callerOf, defaultDimension, type NodeFactory } from "./node-factory.ts";
import type { Session } from "./session.ts";
import { textTable } from "./show.ts";
import { writeFrame } from "./writers.ts";

/** All columns but the one that a cut left. */
const ownColumns = `COLUMNS(c -> c <> '${defaultDimension}')`;

/** What becomes of a frame once it is computed; for lazy writes. */
type Sink = (frame: DataFrame) => Promise<void>;

/** Lazy, partitioned rows. */
export class DataFrame {
  readonly node: PlanNode;
  readonly #session: Session;
  readonly #nodes: NodeFactory;
  readonly #sink: Sink | undefined;
  #computed: readonly DataSet[] | undefined;
  #sunk: Promise<void> | undefined;

  /** Made by the session. */
  constructor(session: Session, nodes: NodeFactory, node: PlanNode, sink?: Sink) {
    this.#session = session;
    this.#nodes = nodes;
    this.#sink = sink;
    this.node = node;
    session.noteMade(node);
  }

  get numPartitions(): number {
    return partitionCount(this.node.dimensions);
  }

  /**
   * Cuts the data anew: by files, contiguous groups of nearly equal counts; by rows; by the hash of
   * columns; or by a column or expression that is the partition's number, where any other than 0 to
   * count − 1 fails the task. Text is made into Parquet first where rows are to be counted.
   *
   * @throws InputError, PlanError
   */
  repartition(count: number, options: RepartitionOptions = {}): DataFrame {
    expectOptions("repartition", options);
    const { byRows = false, hashBy, by, ...rest } = options;
    expectCount("repartition: count", count, 1);
    const given = [
      byRows && "byRows",
      hashBy !== undefined && "hashBy",
      by !== undefined && "by",
    ].filter(Boolean);
    if (given.length > 1) {
      throw new InputError("repartition", given.join(" and "), "only one of them");
    }
    const source = callerOf();
    if (hashBy !== undefined) {
      const columns = typeof hashBy === "string" ? [hashBy] : hashBy;
      if (columns.length === 0) throw new InputError("repartition: hashBy", "[]", "a column");
      return this.#hashed(columns, count, hashOf(columns), rest);
    }
    if (by !== undefined) {
      const cut = { expression: by, count, column: defaultDimension, label: by };
      return this.#with(this.#nodes.cut(this.node, cut, rest, source));
    }
    const input = byRows ? this.#nodes.countable(this.node, count, source) : this.node;
    return this.#with(this.#nodes.split(input, byRows ? "rows" : "files", count, source));
  }

  /** Rows for which a condition (SQL) or a function of the row holds. */
  filter<I = LooseRow>(
    condition: string | RowFunction<I, unknown>,
    options: NodeOptions = {},
  ): DataFrame {
    expectOptions("filter", options, "node");
    if (typeof condition === "string") {
      // On lines of its own, so that a comment at its end takes nothing along.
      return this.#sql(`SELECT * FROM {0} WHERE (${closed(condition)})`, options);
    }
    return this.#call("filter", condition, options);
  }

  /** A SELECT list, or a function from a row to a row. */
  map<I = LooseRow>(list: string | RowFunction<I, Row>, options: FunctionOptions = {}): DataFrame {
    expectOptions("map", options, "function");
    if (typeof list === "string") return this.#sql(`SELECT ${closed(list)} FROM {0}`, options);
    return this.#call("map", list, options);
  }

  /** An expression that gives a list, or a function from a row to rows; its items become rows. */
  flatMap<I = LooseRow>(
    list: string | RowFunction<I, readonly Row[]>,
    options: FunctionOptions = {},
  ): DataFrame {
    expectOptions("flatMap", options, "function");
    if (typeof list === "string") {
      return this.#sql(`SELECT unnest(${closed(list)}) FROM {0}`, options);
    }
    return this.#call("flatMap", list, options);
  }

  /**
   * A function from many rows to rows, or of Arrow tables with `format: "arrow"`. With `streaming`
   * it is called once a partition, with an async iterable of batches, and gives an iterable.
   */
  mapBatches(
    fn: StreamFunction<Table>,
    options: BatchOptions & { readonly streaming: true; readonly format: "arrow" },
  ): DataFrame;
  mapBatches<I = LooseRow>(
    fn: StreamFunction<readonly I[]>,
    options: BatchOptions & { readonly streaming: true },
  ): DataFrame;
  mapBatches(fn: ArrowFunction, options: BatchOptions & { readonly format: "arrow" }): DataFrame;
  mapBatches<I = LooseRow>(fn: BatchFunction<I>, options?: BatchOptions): DataFrame;
  mapBatches(fn: ModuleFunction | ((...args: never[]) => unknown), options: BatchOptions = {}) {
    expectOptions("mapBatches", options);
    const { format = "rows" } = options;
    if (format !== "rows" && format !== "arrow") {
      throw new InputError("mapBatches: format", String(format), "rows or arrow");
    }
    return this.#call("mapBatches", fn, options);
  }

  /** A query over each partition, `{0}`; as the session's `partialSql` over this frame alone. */
  select(query: string, options: NodeOptions = {}): DataFrame {
    expectOptions("select", options, "node");
    return this.#sql(query, options);
  }

  /** With one more column, or another value for one: `withColumn("total", "price * n")`. */
  withColumn(name: string, expression: string, options: NodeOptions = {}): DataFrame {
    const others = `COLUMNS(c -> c <> ${literal(name)})`;
    return this.map(`${others}, (${closed(expression)}) AS ${identifier(name)}`, options);
  }

  /** Without some columns. A column that there is not fails the task. */
  drop(...names: readonly string[]): DataFrame {
    if (names.length === 0) return this;
    return this.map(`* EXCLUDE (${names.map(identifier).join(", ")})`);
  }

  /** Columns under other names: `rename({ old: "new" })`. */
  rename(names: Readonly<Record<string, string>>): DataFrame {
    const pairs = Object.entries(names).map(([a, b]) => `${identifier(a)} AS ${identifier(b)}`);
    return pairs.length === 0 ? this : this.map(`* RENAME (${pairs.join(", ")})`);
  }

  /**
   * The rows of this frame and of others, columns matched by name, one that a frame lacks NULL.
   * Columns that cuts left are dropped.
   */
  union(...others: readonly DataFrame[]): DataFrame {
    const frames: readonly DataFrame[] = [this, ...others];
    const count = Math.max(...frames.map(({ numPartitions }) => numPartitions));
    const uncut = frames.every(({ node }) => node.dimensions.length === 0);
    const same = frames.every(
      ({ node, numPartitions }) => node.dimensions.length === 1 && numPartitions === count,
    );
    // A frame that was never cut would be given whole to every partition of the others.
    const aligned = uncut || same ? frames : frames.map((frame) => frame.#spread(count));
    const selects = frames.map((_, i) => `SELECT ${ownColumns} FROM {${i}}`);
    const query = selects.join(" UNION ALL BY NAME ");
    const inputs = aligned.map(({ node }) => node);
    return this.#with(this.#nodes.sql(inputs, parseTemplate(query), {}, callerOf()));
  }

  /** Sorts each partition by itself. */
  partialSort(by: string | readonly string[], options: NodeOptions = {}): DataFrame {
    expectOptions("partialSort", options, "node");
    return this.#sql(`SELECT * FROM {0} ORDER BY ${sortKey(by).order}`, options);
  }

  /** Deals rows out at random, as many partitions as there are, and mixes each. */
  randomShuffle(options: NodeOptions = {}): DataFrame {
    expectOptions("randomShuffle", options, "node");
    const count = this.numPartitions;
    const expression = `floor(random() * ${count})`;
    const cut = { expression, count, column: undefined, label: "random()", inRange: true as const };
    const dealt = this.#with(this.#nodes.cut(this.node, cut, options, callerOf()));
    return dealt.partialSort("random()", options);
  }

  /**
   * Sorts all rows: partitions by ranges of the first key, found from a sample, then each of them.
   * Rows of equal first keys are in one partition.
   *
   * @param by `price`, `price DESC NULLS FIRST, id`, or a list of such.
   */
  sort(by: string | readonly string[], options: { readonly partitions?: number } = {}): DataFrame {
    expectOptions("sort", options);
    const { key, descending, nullsFirst, order } = sortKey(by);
    const count = options.partitions ?? this.numPartitions;
    expectCount("sort: partitions", count, 1);
    if (count === 1) {
      const whole = this.numPartitions === 1 ? this : this.repartition(1);
      return whole.partialSort(order);
    }
    const cut = { key, descending, count, ...(nullsFirst && { nullsFirst }) };
    return this.#with(this.#nodes.range(this.node, cut, callerOf())).partialSort(order);
  }

  /** Rows with equal keys together, so that each partition can be aggregated by itself. */
  groupBy(...columns: readonly (string | readonly string[])[]): GroupedFrame {
    const keys = columns.flat();
    if (keys.length === 0) throw new InputError("groupBy", "no column", "at least one");
    return new GroupedFrame(this.#gathered(keys), keys);
  }

  /** One row of each. Needs the schema, which a function without one does not give. */
  async distinct(): Promise<DataFrame> {
    const columns = (await this.columns()).filter((name) => name !== defaultDimension);
    const list = columns.map(identifier).join(", ");
    return this.#gathered(columns).map(`DISTINCT ${list}`);
  }

  /**
   * Rows of both with equal keys, by `=`: NULL meets nothing. The right side is given whole to
   * every partition if it is one partition, else both are cut by the keys, whatever their types.
   */
  join(right: DataFrame, options: JoinOptions): DataFrame {
    expectOptions("join", options);
    const { how = "inner" } = options;
    const keys = typeof options.on === "string" ? [options.on] : options.on;
    if (keys.length === 0) throw new InputError("join: on", "no column", "at least one");
    const kinds = ["inner", "left", "right", "full", "semi", "anti"];
    if (!kinds.includes(how)) throw new InputError("join: how", how, kinds.join(", "));
    // A whole right side would give its unmatched rows once a partition. One that was cut into a
    // single partition is no whole one: its dimension meets the left side's.
    const whole = right.node.dimensions.length === 0;
    const broadcast = whole && how !== "right" && how !== "full";
    const count = Math.max(this.numPartitions, right.numPartitions);
    const cut = (frame: DataFrame): DataFrame => {
      if (count === 1 || broadcast) return frame;
      return frame.#hashed(keys, count, equalityHash(keys), {});
    };
    const query =
      `SELECT ${ownColumns} FROM (SELECT ${ownColumns} FROM {0}) ${how.toUpperCase()} JOIN ` +
      `(SELECT ${ownColumns} FROM {1}) USING (${keys.map(identifier).join(", ")})`;
    const inputs = [cut(this).node, cut(right).node];
    return this.#with(this.#nodes.sql(inputs, parseTemplate(query), {}, callerOf()));
  }

  /** Column names and DuckDB types; runs the plan only where a function hides them. */
  async schema(): Promise<Schema> {
    await this.#session.found(this.node);
    const known = shapeQuery(this.node);
    if (known === undefined && this.#session.explains) {
      throw new PlanError("only running tells the columns of a function: give it a schema");
    }
    const shape = known ?? `SELECT * FROM ${fromClause(concatData(await this.compute()))}`;
    const rows = await this.#session.query(`DESCRIBE ${shape}`);
    return Object.fromEntries(
      rows.map((row) => [String(row.column_name), String(row.column_type)]),
    );
  }

  /** Column names; see {@link schema}. */
  async columns(): Promise<readonly string[]> {
    return Object.keys(await this.schema());
  }

  /**
   * The plan as text, as written and as it will run, with the rules that made the one of the other,
   * the line of each call, and what its tasks took so far.
   *
   * @param options With `optimized: false`, only as written.
   */
  async explain(options: { readonly optimized?: boolean } = {}): Promise<string> {
    await this.#session.found(this.node);
    const figures = this.#session.figures();
    if (options.optimized === false) return explainPlan(this.node, figures);
    return explainBoth(this.node, await this.#session.optimized(this.node), figures);
  }

  /** The first rows over all partitions, as one partition. */
  limit(count: number): DataFrame {
    expectCount("limit", count, 0);
    return this.#with(this.#nodes.limit(this.node, count, callerOf()));
  }

  /** Runs it; the data of each partition. */
  async compute(): Promise<readonly DataSet[]> {
    const kept = this.#sink === undefined ? {} : { forKeeps: true };
    this.#computed ??= await this.#session.execute(this.node, kept);
    if (this.#sink !== undefined) {
      this.#sunk ??= this.#sink(this);
      try {
        await this.#sunk;
      } catch (error) {
        this.#sunk = undefined;
        throw error;
      }
    }
    return this.#computed;
  }

  /** Computes this step again, though it was computed before. Steps before it are not. */
  async recompute(): Promise<readonly DataSet[]> {
    this.#sunk = undefined;
    this.#computed = await this.#session.execute(this.node, { again: true });
    return await this.compute();
  }

  isComputed(): boolean {
    return this.#computed !== undefined;
  }

  async count(): Promise<number> {
    const data = await this.#filled();
    if (data === undefined) return 0;
    const known = knownRows(data);
    if (known !== undefined) return known;
    const rows = await this.#session.query(`SELECT count(*) AS n FROM ${fromClause(data)}`);
    return Number(rows[0]?.n ?? 0);
  }

  /** The first rows, computing no more partitions than that takes. */
  async take(count: number): Promise<readonly Row[]> {
    expectCount("take", count, 0);
    const { node } = this;
    const sets = this.#computed ?? (await this.#session.executeFirst(node, count));
    const data = sets.filter((set) => set.parts.length > 0);
    if (data.length === 0) return [];
    return this.#session.query(`SELECT * FROM ${fromClause(concatData(data))} LIMIT ${count}`);
  }

  async takeAll(): Promise<readonly Row[]> {
    const data = await this.#filled();
    return data === undefined ? [] : this.#session.query(`SELECT * FROM ${fromClause(data)}`);
  }

  /** All rows as an Arrow table. Types that Arrow lacks come as text, HUGEINT as a decimal. */
  async toArrow(): Promise<Table> {
    const data = (await this.#filled()) ?? concatData(await this.compute());
    return await this.#session.queryArrow(`SELECT * FROM ${fromClause(data)}`);
  }

  /** The first rows as a text table for people. */
  async show(count = 20): Promise<string> {
    const rows = await this.take(count);
    return textTable(rows.length > 0 ? Object.keys(rows[0] as Row) : await this.columns(), rows);
  }

  /**
   * Computes it and puts Parquet files into a folder, `part-<partition>-<n>.parquet`, all or none.
   * By default they are put beside what is there; see {@link ParquetWriteOptions}.
   *
   * @throws InputError for a folder with files and mode `error`
   */
  async writeParquet(path: string, options: ParquetWriteOptions = {}): Promise<void> {
    expectOptions("writeParquet", options);
    await this.#write(path, this.#parquetForm(options), options);
  }

  /** The same, when it is next computed; `session.wait` computes several such frames at once. */
  writeParquetLazy(path: string, options: ParquetWriteOptions = {}): DataFrame {
    expectOptions("writeParquet", options);
    const form = this.#parquetForm(options);
    return new DataFrame(this.#session, this.#nodes, this.node, (frame) =>
      frame.#write(path, form, options, frame.#computed),
    );
  }

  /** As {@link writeParquet}, in delimited text with a header, `part-<partition>-0.csv`. */
  async writeCsv(path: string, options: CsvWriteOptions = {}): Promise<void> {
    expectOptions("writeCsv", options);
    const { header = true, delimiter = ",", compression = "none" } = options;
    const partitionBy = listOf(options.partitionBy);
    await this.#write(
      path,
      { format: "csv", partitionBy, header, delimiter, compression },
      options,
    );
  }

  /** As {@link writeParquet}, in JSON, one object a line, `part-<partition>-0.json`. */
  async writeJson(path: string, options: JsonWriteOptions = {}): Promise<void> {
    expectOptions("writeJson", options);
    const { compression = "none" } = options;
    const partitionBy = listOf(options.partitionBy);
    await this.#write(path, { format: "json", partitionBy, compression }, options);
  }

  #parquetForm({ mode, kind, partitionBy, ...parquet }: ParquetWriteOptions): ExportForm {
    const base = { format: "parquet" as const, partitionBy: listOf(partitionBy) };
    if (Object.keys(parquet).length === 0) return base;
    const own: ParquetOptions = { ...this.#session.parquet, ...parquet };
    return { ...base, parquet: own };
  }

  async #write(
    path: string,
    form: ExportForm,
    options: WriteOptions & Pick<ParquetWriteOptions, "kind">,
    computed?: readonly DataSet[],
  ): Promise<void> {
    const compute = async (): Promise<readonly DataSet[]> => {
      const data = computed ?? (await this.#session.execute(this.node, { forKeeps: true }));
      this.#computed ??= data;
      return data;
    };
    if (this.#session.explains) {
      await compute();
      return;
    }
    const runTasks = this.#session.runTasks.bind(this.#session);
    const { parquet } = this.#session;
    if (options.kind === "manifest") this.#session.keepOutput();
    await writeFrame({ compute, runTasks, parquet }, path, form, options);
  }

  /** All data, or undefined if no partition has a file. */
  async #filled(): Promise<DataSet | undefined> {
    const data = (await this.compute()).filter((set) => set.parts.length > 0);
    return data.length === 0 ? undefined : concatData(data);
  }

  /** Itself if rows with equal keys are together already, else cut by the keys. */
  #gathered(keys: readonly string[], count: number = this.numPartitions): DataFrame {
    const { node } = this;
    if (count === 1 && this.numPartitions === 1) return this;
    const same = node.kind === "partition" && node.together.join("\0") === keys.join("\0");
    if (same && node.count === count) return this;
    return this.#hashed(keys, count, groupHash(keys), {});
  }

  #hashed(
    columns: readonly string[],
    count: number,
    hash: string,
    options: NodeOptions,
  ): DataFrame {
    const cut = {
      expression: `${hash} % ${count}`,
      count,
      inRange: true as const,
      column: defaultDimension,
      label: `hash(${columns.join(", ")})`,
      together: columns,
    };
    return this.#with(this.#nodes.cut(this.node, cut, options, callerOf()));
  }

  /** As many partitions along the one dimension, by rows. */
  #spread(count: number): DataFrame {
    const { node } = this;
    if (node.dimensions.length === 1 && this.numPartitions === count) return this;
    return this.repartition(count, { byRows: true });
  }

  #sql(query: string, options: NodeOptions & Partial<FunctionOptions>): DataFrame {
    const { schema, batchRows, checkpointRows, checkpointMs, ...rest } = options;
    const names = this.node.dimensions.map(({ name }) => name);
    const pieces = parseTemplate(query, names);
    return this.#with(this.#nodes.sql([this.node], pieces, rest, callerOf()));
  }

  #call(
    mode: FunctionMode,
    fn: ModuleFunction | ((...args: never[]) => unknown),
    options: BatchOptions,
  ): DataFrame {
    const { schema, batchRows = 122_880, format = "rows", streaming = false, ...others } = options;
    const { checkpointRows, checkpointMs, ...rest } = others;
    expectCount(`${mode}: batchRows`, batchRows, 1);
    if (checkpointRows !== undefined) expectCount(`${mode}: checkpointRows`, checkpointRows, 1);
    if (checkpointMs !== undefined) expectCount(`${mode}: checkpointMs`, checkpointMs, 0);
    if (streaming && (checkpointRows ?? checkpointMs ?? 0) > 0) {
      throw new InputError(`${mode}: checkpoints`, "streaming", "a function without state");
    }
    const source = callerOf();
    const call = {
      fn: functionRef(fn, source),
      mode,
      batchRows,
      ...(schema !== undefined && { schema }),
      ...(format === "arrow" && { format }),
      ...(streaming && { streaming }),
      ...(checkpointRows !== undefined && { checkpointRows }),
      ...(checkpointMs !== undefined && { checkpointMs }),
    };
    return this.#with(this.#nodes.call(this.node, call, rest, source));
  }

  #with(node: PlanNode): DataFrame {
    return new DataFrame(this.#session, this.#nodes, node);
  }
}

/**
 * What a reader gives: a frame at once, whose files are looked for meanwhile. An action on it, or
 * on what was made of it, waits for them and throws what the search did; `await` does so at once.
 */
export class SourceFrame extends DataFrame implements Promise<DataFrame> {
  readonly [Symbol.toStringTag] = "SourceFrame";
  readonly #found: () => Promise<DataFrame>;

  /** Made by the session. */
  constructor(session: Session, nodes: NodeFactory, node: PlanNode) {
    super(session, nodes, node);
    this.#found = async () => {
      await session.found(node);
      return new DataFrame(session, nodes, node);
    };
  }

  // biome-ignore lint/suspicious/noThenProperty: a frame at once, and one to be awaited.
  async then<A = DataFrame, B = never>(
    onFound?: ((frame: DataFrame) => A | PromiseLike<A>) | null,
    onError?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return await this.#found().then(onFound, onError);
  }

  async catch<B = never>(
    onError?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<DataFrame | B> {
    return await this.#found().catch(onError);
  }

  async finally(onEnd?: (() => void) | null): Promise<DataFrame> {
    return await this.#found().finally(onEnd);
  }
}

function expectCount(parameter: string, count: number, least: number): void {
  if (Number.isSafeInteger(count) && count >= least) return;
  throw new InputError(parameter, String(count), `an integer of at least ${least}`);
}

/** SQL whose last line may be a comment. */
function closed(sql: string): string {
  return sql.includes("--") ? `${sql}\n` : sql;
}

const listOf = (columns: string | readonly string[] = []): readonly string[] =>
  typeof columns === "string" ? [columns] : columns;
