// The plan: an immutable graph of nodes, each over partitioned data. Nothing here runs; planner.ts
// makes tasks of it.

import type { DataSet } from "../dataset/dataset.ts";
import { PlanError } from "../errors.ts";
import type { FunctionCall } from "../functions/run-function.ts";
import type { Udf } from "../functions/udf.ts";
import type { ParquetOptions } from "../task/task.ts";
import type { TemplatePiece } from "./template.ts";

/** One way the data is cut. A node's partitions are the product of its dimensions. */
export interface Dimension {
  readonly name: string;
  readonly count: number;
}

/** What a user may say about any node. */
export interface NodeOptions {
  readonly name?: string;
  readonly cpus?: number;
  readonly memoryBytes?: number;
  readonly gpus?: number;
  readonly timeoutMs?: number;
  readonly parquet?: Partial<ParquetOptions>;
  /** Functions in TypeScript that its SQL calls; such a node's tasks have 3 cores at most. */
  readonly udfs?: readonly Udf[];
}

interface NodeBase {
  readonly id: number;
  readonly dimensions: readonly Dimension[];
  readonly options: NodeOptions;
  /** `file:line` of the call that made it. */
  readonly source: string;
}

export interface SourceNode extends NodeBase {
  readonly kind: "source";
  readonly data: DataSet;
}

export interface SplitNode extends NodeBase {
  readonly kind: "split";
  readonly input: PlanNode;
  readonly by: "files" | "rows";
  readonly count: number;
}

/** What the optimizer does within a cut, so that fewer rows and columns are written. */
export interface CutWork {
  /** A query over `{0}` that the cut deals out the rows of, instead of its input's. */
  readonly from?: readonly TemplatePiece[];
  /** Columns that are written, besides the partition's number; all without. */
  readonly columns?: readonly string[];
}

export interface PartitionNode extends NodeBase, CutWork {
  readonly kind: "partition";
  readonly input: PlanNode;
  /** An integer expression over the input's columns, 0 to count − 1. */
  readonly expression: string;
  readonly count: number;
  readonly column: string | undefined;
  /** For people: `hash(ticker)`. */
  readonly label: string;
  /** Columns whose equal values are in one partition; empty if that is not known. */
  readonly together: readonly string[];
  /** The expression gives nothing but 0 to count − 1, so that nothing need be checked. */
  readonly inRange?: true;
}

/** Rows cut by ranges of a key, the ranges found from a sample of it. */
export interface RangeNode extends NodeBase, CutWork {
  readonly kind: "range";
  readonly input: PlanNode;
  /** An expression over the input's columns. */
  readonly key: string;
  readonly descending: boolean;
  /** NULL comes first; last without, as in DuckDB. */
  readonly nullsFirst?: boolean;
  readonly count: number;
}

export interface SqlNode extends NodeBase {
  readonly kind: "sql";
  readonly inputs: readonly PlanNode[];
  readonly queries: readonly (readonly TemplatePiece[])[];
}

export interface LimitNode extends NodeBase {
  readonly kind: "limit";
  readonly input: PlanNode;
  readonly count: number;
  /** Each partition of the input has no more rows than that already. */
  readonly limited?: true;
}

export interface CallNode extends NodeBase {
  readonly kind: "call";
  readonly input: PlanNode;
  readonly call: FunctionCall;
}

export type PlanNode =
  | CallNode
  | RangeNode
  | SourceNode
  | SplitNode
  | PartitionNode
  | SqlNode
  | LimitNode;

export function inputsOf(node: PlanNode): readonly PlanNode[] {
  if (node.kind === "source") return [];
  return node.kind === "sql" ? node.inputs : [node.input];
}

export function partitionCount(dimensions: readonly Dimension[]): number {
  return dimensions.reduce((product, { count }) => product * count, 1);
}

/**
 * The dimensions that a node over several inputs has. An input without a dimension is fed to every
 * partition of it; two inputs with the same dimension must have as many partitions in it.
 *
 * @throws PlanError that lists both
 */
export function joinDimensions(inputs: readonly PlanNode[]): readonly Dimension[] {
  const joined: Dimension[] = [];
  for (const input of inputs) {
    for (const dimension of input.dimensions) {
      const same = joined.find(({ name }) => name === dimension.name);
      if (same === undefined) joined.push(dimension);
      else if (same.count !== dimension.count) {
        const have = (count: number): string => `${dimension.name} 0-${count - 1}`;
        throw new PlanError(
          `the inputs have different partitions: ${have(same.count)} and ` +
            `${have(dimension.count)}; repartition one of them`,
        );
      }
    }
  }
  return joined;
}

/** A partition's place in each dimension, from its number; the last dimension runs fastest. */
export function coordinates(
  dimensions: readonly Dimension[],
  index: number,
): Readonly<Record<string, number>> {
  const at: Record<string, number> = {};
  let rest = index;
  for (const { name, count } of dimensions.toReversed()) {
    at[name] = rest % count;
    rest = Math.floor(rest / count);
  }
  return at;
}

/** The number of the partition of `dimensions` that covers coordinates of a finer cut. */
export function partitionAt(
  dimensions: readonly Dimension[],
  at: Readonly<Record<string, number>>,
): number {
  return dimensions.reduce((index, { name, count }) => index * count + (at[name] ?? 0), 0);
}
