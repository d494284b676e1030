// The DataFrame: a plan's node and the calls that make further nodes or run it. Nothing runs until
// data is asked for; what was computed once in a session is not computed again.

import { copyFile, link, mkdir, rename, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { InputError } from "@open-infra/errors";
import { concatData, type DataSet, type Schema } from "../dataset/dataset.ts";
import { fromClause, identifier } from "../dataset/sql-text.ts";
import { functionRef, type ModuleFunction } from "../functions/function-ref.ts";
import type { FunctionMode } from "../functions/run-function.ts";
import { explainBoth, explainPlan } from "../plan/explain.ts";
import type { NodeOptions, PlanNode } from "../plan/node.ts";
import { partitionCount } from "../plan/node.ts";
import { shapeQuery } from "../plan/shape.ts";
import { parseTemplate } from "../plan/template.ts";
import { callerOf, defaultDimension, type NodeFactory } from "./node-factory.ts";
import type { Session } from "./session.ts";

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
}

/** A row as a function without type annotations sees it. */
// biome-ignore lint/suspicious/noExplicitAny: columns are not known to the compiler.
export type LooseRow = Readonly<Record<string, any>>;
/** A function of one row: pure, or of a module (`fromModule`). */
export type RowFunction<I, R> = ModuleFunction | ((row: I) => R | Promise<R>);
/** A function of many rows. */
export type BatchFunction<I> =
  | ModuleFunction
  | ((rows: readonly I[]) => readonly Row[] | Promise<readonly Row[]>);

export type Row = Readonly<Record<string, unknown>>;

/** Lazy, partitioned rows. */
export class DataFrame {
  readonly node: PlanNode;
  readonly #session: Session;
  readonly #nodes: NodeFactory;
  #computed: readonly DataSet[] | undefined;

  /** Made by the session. */
  constructor(session: Session, nodes: NodeFactory, node: PlanNode) {
    this.#session = session;
    this.#nodes = nodes;
    this.node = node;
    session.noteMade(node);
  }

  get numPartitions(): number {
    return partitionCount(this.node.dimensions);
  }

  /** Cuts the data anew. @throws InputError, PlanError */
  repartition(count: number, options: RepartitionOptions = {}): DataFrame {
    const { byRows = false, hashBy, by, ...rest } = options;
    if (!Number.isInteger(count) || count < 1) {
      throw new InputError("repartition: count", `${count}`, "an integer of at least 1");
    }
    const given = [byRows && "byRows", hashBy && "hashBy", by && "by"].filter(Boolean);
    if (given.length > 1)
      throw new InputError("repartition", given.join(" and "), "only one of them");
    const source = callerOf();
    if (hashBy !== undefined) {
      const columns = typeof hashBy === "string" ? [hashBy] : hashBy;
      const cut = {
        expression: `${hashOf(columns)} % ${count}`,
        count,
        inRange: true as const,
        column: defaultDimension,
        label: `hash(${columns.join(", ")})`,
        together: columns,
      };
      return this.#with(this.#nodes.cut(this.node, cut, rest, source));
    }
    if (by !== undefined) {
      const cut = { expression: by, count, column: defaultDimension, label: by };
      return this.#with(this.#nodes.cut(this.node, cut, rest, source));
    }
    return this.#with(this.#nodes.split(this.node, byRows ? "rows" : "files", count, source));
  }

  /** Rows for which a condition (SQL) or a function of the row holds. */
  filter<I = LooseRow>(
    condition: string | RowFunction<I, unknown>,
    options: NodeOptions = {},
  ): DataFrame {
    if (typeof condition === "string") {
      return this.#sql(`SELECT * FROM {0} WHERE (${condition})`, options);
    }
    return this.#call("filter", condition, options);
  }

  /** A SELECT list, or a function from a row to a row. */
  map<I = LooseRow>(list: string | RowFunction<I, Row>, options: FunctionOptions = {}): DataFrame {
    if (typeof list === "string") return this.#sql(`SELECT ${list} FROM {0}`, options);
    return this.#call("map", list, options);
  }

  /** An expression that gives a list, or a function from a row to rows; its items become rows. */
  flatMap<I = LooseRow>(
    list: string | RowFunction<I, readonly Row[]>,
    options: FunctionOptions = {},
  ): DataFrame {
    if (typeof list === "string") return this.#sql(`SELECT unnest(${list}) FROM {0}`, options);
    return this.#call("flatMap", list, options);
  }

  /** A function from many rows to rows. */
  mapBatches<I = LooseRow>(fn: BatchFunction<I>, options: FunctionOptions = {}): DataFrame {
    return this.#call("mapBatches", fn, options);
  }

  /** A query over each partition, `{0}`; as the session's `partialSql` over this frame alone. */
  select(query: string, options: NodeOptions = {}): DataFrame {
    return this.#sql(query, options);
  }

  /** Sorts each partition by itself. */
  partialSort(by: string | readonly string[], options: NodeOptions = {}): DataFrame {
    const list = typeof by === "string" ? by : by.join(", ");
    return this.#sql(`SELECT * FROM {0} ORDER BY ${list}`, options);
  }

  /** Deals rows out at random, as many partitions as there are, and mixes each. */
  randomShuffle(options: NodeOptions = {}): DataFrame {
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
   * @param by `price`, `price DESC, id`, or a list of such.
   */
  sort(by: string | readonly string[], options: { readonly partitions?: number } = {}): DataFrame {
    const list = typeof by === "string" ? splitTopLevel(by) : by;
    const first = list[0];
    if (first === undefined || first.trim() === "") {
      throw new InputError("sort: by", String(by), "a column or an expression");
    }
    const direction = /\s+(asc|desc)\s*$/i.exec(first);
    const key = first.slice(0, direction?.index ?? first.length).trim();
    const descending = direction?.[1]?.toLowerCase() === "desc";
    const order = list.join(", ");
    const count = options.partitions ?? this.numPartitions;
    if (count === 1) {
      const whole = this.numPartitions === 1 ? this : this.repartition(1);
      return whole.partialSort(order);
    }
    const node = this.#nodes.range(this.node, { key, descending, count }, callerOf());
    return this.#with(node).partialSort(order);
  }

  /** Rows with equal keys together, so that each partition can be aggregated by itself. */
  groupBy(...keys: readonly string[]): GroupedFrame {
    if (keys.length === 0) throw new InputError("groupBy", "no column", "at least one");
    return new GroupedFrame(this.#gathered(keys), keys);
  }

  /** One row of each. Needs the schema, which a function without one does not give. */
  async distinct(): Promise<DataFrame> {
    const columns = Object.keys(await this.schema()).filter((name) => name !== defaultDimension);
    const list = columns.map(identifier).join(", ");
    return this.#gathered(columns).map(`DISTINCT ${list}`);
  }

  /**
   * Rows of both with equal keys. The right side is given whole to every partition if it is one
   * partition, else both are cut by the keys.
   */
  join(
    right: DataFrame,
    options: {
      readonly on: string | readonly string[];
      readonly how?: "inner" | "left" | "right" | "full" | "semi" | "anti";
    },
  ): DataFrame {
    const { how = "inner" } = options;
    const keys = typeof options.on === "string" ? [options.on] : options.on;
    // A whole right side would give its unmatched rows once a partition.
    const broadcast = right.numPartitions === 1 && how !== "right" && how !== "full";
    const count = Math.max(this.numPartitions, right.numPartitions);
    const left = broadcast ? this : this.#gathered(keys, count);
    const other = broadcast ? right : right.#gathered(keys, count);
    const using = keys.map(identifier).join(", ");
    const hide = `COLUMNS(c -> c <> '${defaultDimension}')`;
    const query =
      `SELECT ${hide} FROM (SELECT ${hide} FROM {0}) ${how.toUpperCase()} JOIN ` +
      `(SELECT ${hide} FROM {1}) USING (${using})`;
    const inputs = [left.node, other.node];
    return this.#with(this.#nodes.sql(inputs, parseTemplate(query), {}, callerOf()));
  }

  /** Column names and DuckDB types; runs the plan only where a function hides them. */
  async schema(): Promise<Schema> {
    const shape =
      shapeQuery(this.node) ?? `SELECT * FROM ${fromClause(concatData(await this.compute()))}`;
    const rows = await this.#session.query(`DESCRIBE ${shape}`);
    return Object.fromEntries(
      rows.map((row) => [String(row.column_name), String(row.column_type)]),
    );
  }

  /**
   * The plan as text, as written and as it will run, with the rules that made the one of the other,
   * the line of each call, and what its tasks took so far.
   *
   * @param options With `optimized: false`, only as written.
   */
  async explain(options: { readonly optimized?: boolean } = {}): Promise<string> {
    const figures = this.#session.figures();
    if (options.optimized === false) return explainPlan(this.node, figures);
    return explainBoth(this.node, await this.#session.optimized(this.node), figures);
  }

  /** The first rows over all partitions, as one partition. */
  limit(count: number): DataFrame {
    if (!Number.isInteger(count) || count < 0) {
      throw new InputError("limit", `${count}`, "an integer of at least 0");
    }
    return this.#with(this.#nodes.limit(this.node, count, callerOf()));
  }

  /** Runs it; the data of each partition. */
  async compute(): Promise<readonly DataSet[]> {
    this.#computed ??= await this.#session.execute(this.node);
    return this.#computed;
  }

  /** Computes this step again, though it was computed before. Steps before it are not. */
  async recompute(): Promise<readonly DataSet[]> {
    this.#computed = await this.#session.execute(this.node, { again: true });
    return this.#computed;
  }

  isComputed(): boolean {
    return this.#computed !== undefined;
  }

  async count(): Promise<number> {
    const data = (await this.compute()).filter((set) => set.parts.length > 0);
    if (data.length === 0) return 0;
    const rows = await this.#session.query(
      `SELECT count(*) AS n FROM ${fromClause(concatData(data))}`,
    );
    return Number(rows[0]?.n ?? 0);
  }

  async take(count: number): Promise<readonly Row[]> {
    const { node } = this;
    const sets = this.#computed ?? (await this.#session.executeFirst(node, count));
    const data = sets.filter((set) => set.parts.length > 0);
    if (data.length === 0) return [];
    return this.#session.query(`SELECT * FROM ${fromClause(concatData(data))} LIMIT ${count}`);
  }

  async takeAll(): Promise<readonly Row[]> {
    const data = (await this.compute()).filter((set) => set.parts.length > 0);
    if (data.length === 0) return [];
    return this.#session.query(`SELECT * FROM ${fromClause(concatData(data))}`);
  }

  /** Puts the partitions' files into a folder, by hard link where the file system allows. */
  async writeParquet(path: string): Promise<void> {
    const computed = await this.#session.execute(this.node, { forKeeps: true });
    this.#computed ??= computed;
    // Ranges of rows, projections and text become files of their own first.
    const data = computed.every(isWholeParquet) ? computed : await this.map("*").compute();
    const staging = `${path}/.staging-${this.#session.jobId}-${process.pid}`;
    await mkdir(staging, { recursive: true });
    const moves: [string, string][] = [];
    for (const [i, set] of data.entries()) {
      for (const [j, part] of set.parts.entries()) {
        const name = `part-${String(i).padStart(5, "0")}-${j}.parquet`;
        const aside = join(staging, name);
        await link(part.path, aside).catch(() => copyFile(part.path, aside));
        moves.push([aside, join(path, basename(name))]);
      }
    }
    for (const [from, to] of moves) await rename(from, to);
    await rm(staging, { recursive: true, force: true });
  }

  /** Itself if rows with equal keys are together already, else cut by the keys. */
  #gathered(keys: readonly string[], count: number = this.numPartitions): DataFrame {
    const { node } = this;
    if (count === 1 && this.numPartitions === 1) return this;
    const same = node.kind === "partition" && node.together.join() === keys.join();
    if (same && node.count === count) return this;
    return this.repartition(count, { hashBy: keys });
  }

  #sql(query: string, options: NodeOptions): DataFrame {
    const names = this.node.dimensions.map(({ name }) => name);
    const pieces = parseTemplate(query, names);
    return this.#with(this.#nodes.sql([this.node], pieces, options, callerOf()));
  }

  #call(
    mode: FunctionMode,
    fn: ModuleFunction | ((...args: never[]) => unknown),
    options: FunctionOptions,
  ): DataFrame {
    const { schema, batchRows = 122_880, ...rest } = options;
    const source = callerOf();
    const ref = functionRef(fn, source);
    const call = { fn: ref, mode, batchRows, ...(schema !== undefined && { schema }) };
    return this.#with(this.#nodes.call(this.node, call, rest, source));
  }

  #with(node: PlanNode): DataFrame {
    return new DataFrame(this.#session, this.#nodes, node);
  }
}

/** Rows with equal keys in one partition; see {@link DataFrame.groupBy}. */
export class GroupedFrame {
  readonly #frame: DataFrame;
  readonly #keys: readonly string[];

  constructor(frame: DataFrame, keys: readonly string[]) {
    this.#frame = frame;
    this.#keys = keys;
  }

  /** One row a group: the keys, and an aggregate under each name: `{ low: "min(price)" }`. */
  agg(aggregates: Readonly<Record<string, string>>, options: NodeOptions = {}): DataFrame {
    const keys = this.#keys.map(identifier).join(", ");
    const list = Object.entries(aggregates).map(([name, sql]) => `${sql} AS ${identifier(name)}`);
    // The query ends in GROUP BY, so it cannot be a mere SELECT list.
    return this.#frame.select(
      `SELECT ${[keys, ...list].join(", ")} FROM {0} GROUP BY ${keys}`,
      options,
    );
  }

  /** Rows of each group. */
  count(name = "count"): DataFrame {
    return this.agg({ [name]: "count(*)" });
  }
}

/**
 * `hash(concat_ws('##', columns))`. Of one column that is the hash of its text, or of '' for NULL,
 * which DuckDB finds in two thirds of the time.
 */
function hashOf(columns: readonly string[]): string {
  const [only, ...rest] = columns.map(identifier);
  if (rest.length === 0) return `hash(coalesce(CAST(${only} AS VARCHAR), ''))`;
  return `hash(concat_ws('##', ${[only, ...rest].join(", ")}))`;
}

/** Splits at commas outside brackets and quotes. */
function splitTopLevel(list: string): string[] {
  const parts: string[] = [""];
  let depth = 0;
  let quote = "";
  for (const char of list) {
    if (quote !== "") quote = char === quote ? "" : quote;
    else if (char === "'" || char === '"') quote = char;
    else if ("([{".includes(char)) depth++;
    else if (")]}".includes(char)) depth--;
    if (char === "," && depth === 0 && quote === "") parts.push("");
    else parts[parts.length - 1] += char;
  }
  return parts;
}

function isWholeParquet(data: DataSet): boolean {
  if (data.format !== "parquet" || data.columns !== undefined) return false;
  return data.parts.every((part) => part.rows === undefined);
}
