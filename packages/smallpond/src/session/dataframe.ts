// The DataFrame: a plan's node and the calls that make further nodes or run it. Nothing runs until
// data is asked for; what was computed once in a session is not computed again.

import { copyFile, link, mkdir, rename, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { InputError } from "@open-infra/errors";
import { concatData, type DataSet, type Schema } from "../dataset/dataset.ts";
import { fromClause, identifier } from "../dataset/sql-text.ts";
import { functionRef, type ModuleFunction } from "../functions/function-ref.ts";
import type { FunctionMode } from "../functions/run-function.ts";
import type { NodeOptions, PlanNode } from "../plan/node.ts";
import { partitionCount } from "../plan/node.ts";
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

/** A function of one row: pure, or of a module (`fromModule`). */
export type RowFunction<R> = ModuleFunction | ((row: Record<string, never>) => R | Promise<R>);
/** A function of many rows. */
export type BatchFunction =
  | ModuleFunction
  | ((rows: readonly Record<string, never>[]) => readonly Row[] | Promise<readonly Row[]>);

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
      const list = columns.map(identifier).join(", ");
      const cut = {
        expression: `hash(concat_ws('##', ${list})) % ${count}`,
        count,
        column: defaultDimension,
        label: `hash(${columns.join(", ")})`,
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
  filter(condition: string | RowFunction<unknown>, options: NodeOptions = {}): DataFrame {
    if (typeof condition === "string") {
      return this.#sql(`SELECT * FROM {0} WHERE (${condition})`, options);
    }
    return this.#call("filter", condition, options);
  }

  /** A SELECT list, or a function from a row to a row. */
  map(list: string | RowFunction<Row>, options: FunctionOptions = {}): DataFrame {
    if (typeof list === "string") return this.#sql(`SELECT ${list} FROM {0}`, options);
    return this.#call("map", list, options);
  }

  /** An expression that gives a list, or a function from a row to rows; its items become rows. */
  flatMap(list: string | RowFunction<readonly Row[]>, options: FunctionOptions = {}): DataFrame {
    if (typeof list === "string") return this.#sql(`SELECT unnest(${list}) FROM {0}`, options);
    return this.#call("flatMap", list, options);
  }

  /** A function from many rows to rows. */
  mapBatches(fn: BatchFunction, options: FunctionOptions = {}): DataFrame {
    return this.#call("mapBatches", fn, options);
  }

  /** Sorts each partition by itself. */
  partialSort(by: string | readonly string[], options: NodeOptions = {}): DataFrame {
    const list = typeof by === "string" ? by : by.join(", ");
    return this.#sql(`SELECT * FROM {0} ORDER BY ${list}`, options);
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
    const frame = this.isComputed() ? this : this.limit(count);
    const data = (await frame.compute()).filter((set) => set.parts.length > 0);
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
    const computed = await this.compute();
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

function isWholeParquet(data: DataSet): boolean {
  if (data.format !== "parquet" || data.columns !== undefined) return false;
  return data.parts.every((part) => part.rows === undefined);
}
