// What the calls of the node API take, and what they refuse. Every refusal names the call, the line
// of the script it is on, what came and what is allowed.

import type { Table } from "apache-arrow";
import type { GeneratedColumn, Schema } from "../dataset/dataset.ts";
import { PlanError } from "../errors.ts";
import type { ModuleFunction } from "../functions/function-ref.ts";
import { piecesMax } from "../plan/cuts.ts";
import { type Dimension, type NodeOptions, type PlanNode, partitionCount } from "../plan/node.ts";
import { taskNames } from "../plan/template.ts";
import type { Row } from "../session/frame-options.ts";
import type { ComputeContext } from "../task/ops/compute.ts";
import type { Script } from "../task/ops/script.ts";
import type { SinkKind } from "../task/task.ts";

/** How a node cuts its input. */
export interface CutOptions extends NodeOptions {
  /** Names the new dimension, for SQL as `{name}`. @default "__data_partition__" */
  readonly dimension?: string;
  /**
   * Each partition of the input is cut by itself, and keeps its own place beside the new one; else
   * all data is cut anew. @default true if a dimension is named and the input is partitioned
   */
  readonly nested?: boolean;
}

/** How files or rows are dealt out. */
export interface EvenOptions extends CutOptions {
  /** @default "files" */
  readonly by?: "files" | "rows";
  /** Files in a random order, the same for the same session seed. */
  readonly shuffled?: boolean;
}

/** How rows are dealt out by hash. */
export interface HashOptions extends CutOptions {
  /** By `hash(concat_ws('##', columns)) % count`; at random with `random`. */
  readonly columns?: string | readonly string[];
  readonly random?: boolean;
  /** The partition's number stays as a column of the dimension's name. @default true */
  readonly keepColumn?: boolean;
}

/** How rows are dealt out by a number they have. */
export interface ShuffleOptions extends CutOptions {
  /** A column or expression of 0 to count − 1; a plain column names the dimension too. */
  readonly by: string;
  readonly keepColumn?: boolean;
}

/** A split point. */
export type RangePoint = number | bigint | string | boolean | Date;

/** How rows are dealt out by ranges. */
export interface RangeOptions extends CutOptions {
  /** A column or expression. */
  readonly key: string;
  readonly descending?: boolean;
  /** @default false, they are in the last partition */
  readonly nullsFirst?: boolean;
}

/** Where files say to which partition they belong. */
export interface LoadOptions extends CutOptions {
  readonly column: string;
  /** Only folders, `column=3/`, are looked at. */
  readonly hive?: boolean;
}

/** How a data set is cut; the original's one call for three of them. */
export interface DataSetPartitionOptions extends EvenOptions {
  /** Files that were partitioned by this column before are opened as they are. */
  readonly column?: string;
}

/** How a function is called. */
export interface ComputeOptions extends NodeOptions {
  /** What it is given: arrays of rows, or Arrow tables. It may give either. @default "rows" */
  readonly format?: "rows" | "arrow";
  /** Names and DuckDB types of what it gives; by its values without. */
  readonly schema?: Schema;
}

/** How a function is called batch by batch. */
export interface BatchOptions extends ComputeOptions {
  /** @default 122,880 */
  readonly batchRows?: number;
  /**
   * What was made is put aside so often, and another attempt at the task goes on from there; 0 for
   * never. @default 180,000 for `batch`; 0 for `stream`, whose function may have a state that a
   * later attempt lacks: with this it says that it has none
   */
  readonly checkpointMs?: number;
}

/** How files are seen otherwise. */
export interface ProjectionOptions extends NodeOptions {
  /** Columns and expressions, `upper(host) AS name`; all columns without. */
  readonly columns?: readonly string[];
  readonly generated?: readonly GeneratedColumn[];
  readonly unionByName?: boolean;
}

/** How files are put into a folder. */
export interface SinkOptions extends NodeOptions {
  /** @default "link-or-copy" */
  readonly kind?: SinkKind;
  /** Files without rows are left out. */
  readonly removeEmpty?: boolean;
}

type Batch = readonly Row[] | Table;

/** Called with an input each, and where its task is. */
export type ComputeFunction<I> =
  | ModuleFunction
  | ((inputs: readonly I[], context: ComputeContext) => Batch | Promise<Batch>);

/** Called once, with a stream of batches of every input. */
export type StreamNodeFunction<I> =
  | ModuleFunction
  | ((
      streams: readonly AsyncIterable<I>[],
      context: ComputeContext,
    ) => AsyncIterable<Batch> | Iterable<Batch>);

/** Called with data sets and a folder; what it writes there is the node's output. */
export type ScriptFunction = ModuleFunction | Script;

const common: readonly (keyof NodeOptions)[] = [
  "name",
  "cpus",
  "memoryBytes",
  "gpus",
  "timeoutMs",
  "parquet",
  "outputName",
];

/** A call of the node API, for its errors. */
export class NodeCall {
  readonly #name: string;
  /** `file:line`. */
  readonly source: string;

  constructor(name: string, source: string) {
    this.#name = name;
    this.source = source;
  }

  error(message: string, cause?: unknown): PlanError {
    const where = this.source === "" ? "" : `${this.source}: `;
    return new PlanError(`${where}nodes.${this.#name}: ${message}`, { cause });
  }

  /** What a body gives; its plan errors with the call's name and line. */
  within<T>(body: () => T): T {
    try {
      return body();
    } catch (error) {
      if (error instanceof PlanError) throw this.error(error.message, error);
      throw error;
    }
  }

  /** The options that all nodes have, when all names are known and all numbers make sense. */
  options(given: object, own: readonly string[]): NodeOptions {
    const allowed = [...common, ...own];
    for (const name of Object.keys(given)) {
      if (allowed.includes(name)) continue;
      throw this.error(`there is no option ${name}, but ${allowed.join(", ")}`);
    }
    const options = given as NodeOptions;
    this.#expectMore("cpus", options.cpus);
    this.#expectMore("memoryBytes", options.memoryBytes);
    this.#expectMore("timeoutMs", options.timeoutMs);
    this.#expectMore("batchBytes", options.batchBytes);
    const { gpus } = options;
    if (gpus !== undefined && !(gpus >= 0 && Number.isFinite(gpus))) {
      throw this.error(`gpus must be at least 0, not ${gpus}`);
    }
    const { outputName } = options;
    if (outputName !== undefined && !/^[\w-][\w.-]*$/.test(outputName)) {
      throw this.error(`outputName must be letters, digits, '_', '-' and '.', not ${outputName}`);
    }
    return Object.fromEntries(
      Object.entries(given).filter(([name, value]) => {
        return value !== undefined && nodeNames.includes(name);
      }),
    );
  }

  #expectMore(name: string, value: number | undefined): void {
    if (value === undefined || (value > 0 && Number.isFinite(value))) return;
    throw this.error(`${name} must be more than 0, not ${value}`);
  }

  count(name: string, value: number, least = 1): number {
    if (Number.isSafeInteger(value) && value >= least) return value;
    throw this.error(`${name} must be an integer of at least ${least}, not ${value}`);
  }

  /** Dimensions of a node that cuts. */
  cut(
    input: PlanNode,
    count: number,
    { dimension, nested }: CutOptions,
    usual: string,
  ): { readonly dimensions: readonly Dimension[]; readonly nested?: true } {
    this.count("the number of partitions", count);
    const name = dimension ?? usual;
    if (!/^[A-Za-z_]\w*$/.test(name) || (taskNames as readonly string[]).includes(name)) {
      const others = taskNames.join(", ");
      throw this.error(`a dimension's name must be an identifier and none of ${others}: ${name}`);
    }
    const within = nested ?? (dimension !== undefined && input.dimensions.length > 0);
    const has = input.dimensions.map((other) => other.name);
    if (within && dimension === undefined && usual === "__data_partition__") {
      throw this.error("a nested cut needs a name for its dimension");
    }
    if (within && has.includes(name)) {
      const list = has.join(", ");
      throw this.error(`the input is cut along ${list} already; nested: false cuts it anew`);
    }
    const outer = within ? input.dimensions : [];
    const dimensions = [...outer, { name, count }];
    const total = partitionCount(dimensions);
    if (total > piecesMax) throw this.error(`${total} partitions are more than ${piecesMax}`);
    return { dimensions, ...(outer.length > 0 && { nested: true }) };
  }
}

const nodeNames: readonly string[] = [
  ...common,
  "udfs",
  "skipEmpty",
  "batchBytes",
  "perThreadOutput",
] satisfies readonly (keyof NodeOptions)[];
