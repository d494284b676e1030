// The plan: an immutable graph of nodes, each over partitioned data. Nothing here runs; planner.ts
// makes tasks of it.

import type { DataSet } from "../dataset/dataset.ts";
import type { FileView } from "../dataset/view.ts";
import { PlanError } from "../errors.ts";
import type { FunctionRef } from "../functions/function-ref.ts";
import type { FunctionCall } from "../functions/run-function.ts";
import type { Udf } from "../functions/udf.ts";
import type { ComputeCall, ParquetOptions, SinkKind } from "../task/task.ts";
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
  /** A task whose inputs are known to have no rows gives none, without running its work. */
  readonly skipEmpty?: boolean;
  /** Files that a sink puts somewhere get names that begin so. */
  readonly outputName?: string;
  /**
   * SQL only: the first input is worked off in batches of so many uncompressed bytes,
   * `{batch_index}` says which, and the results of all batches are the output.
   */
  readonly batchBytes?: number;
  /** SQL only: each thread of DuckDB writes a file of its own, in no order of rows. */
  readonly perThreadOutput?: boolean;
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

/** Partitions that are there from the start, each a data set. */
export interface SourcesNode extends NodeBase {
  readonly kind: "sources";
  readonly data: readonly DataSet[];
}

/** What all nodes that cut have in common. */
interface CutBase extends NodeBase {
  readonly input: PlanNode;
  readonly count: number;
  /** Each partition of the input is cut by itself; all of its data together without. */
  readonly nested?: true;
}

export interface SplitNode extends CutBase {
  readonly kind: "split";
  readonly by: "files" | "rows";
  /** Files are dealt out in a random order. */
  readonly shuffled?: true;
}

/** What the optimizer does within a cut, so that fewer rows and columns are written. */
export interface CutWork {
  /** A query over `{0}` that the cut deals out the rows of, instead of its input's. */
  readonly from?: readonly TemplatePiece[];
  /** Columns that are written, besides the partition's number; all without. */
  readonly columns?: readonly string[];
}

export interface PartitionNode extends CutBase, CutWork {
  readonly kind: "partition";
  /** An integer expression over the input's columns, 0 to count − 1. */
  readonly expression: string;
  readonly column: string | undefined;
  /** For people: `hash(ticker)`. */
  readonly label: string;
  /** Columns whose equal values are in one partition; empty if that is not known. */
  readonly together: readonly string[];
  /** The expression gives nothing but 0 to count − 1, so that nothing need be checked. */
  readonly inRange?: true;
}

/** Rows cut by ranges of a key, the ranges given or found from a sample of it. */
export interface RangeNode extends CutBase, CutWork {
  readonly kind: "range";
  /** An expression over the input's columns. */
  readonly key: string;
  readonly descending: boolean;
  /** NULL comes first; last without, as in DuckDB. */
  readonly nullsFirst?: boolean;
  /** SQL literals, rising, one fewer than partitions; from a sample without. */
  readonly points?: readonly string[];
}

/** The same data in every partition of a new dimension. */
export interface RepeatNode extends CutBase {
  readonly kind: "repeat";
}

/** Files that were partitioned before, each put where it belongs. */
export interface LoadNode extends CutBase {
  readonly kind: "load";
  /** In the files' key-value metadata, a column of one value a file, or part of the path. */
  readonly column: string;
  /** Only paths, `column=3/`, are looked at. */
  readonly hive?: true;
}

/** Data that a function cuts, as it likes. */
export interface UserPartitionNode extends CutBase {
  readonly kind: "user-partition";
  readonly fn: FunctionRef;
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

/** A function over whole inputs, batches or streams of them, beside the context of its task. */
export interface ComputeNode extends NodeBase {
  readonly kind: "compute";
  readonly inputs: readonly PlanNode[];
  readonly call: ComputeCall;
}

/** A function that reads files and writes files. */
export interface ScriptNode extends NodeBase {
  readonly kind: "script";
  readonly inputs: readonly PlanNode[];
  readonly fn: FunctionRef;
}

/** The same files, seen otherwise: some columns, expressions, columns that reading makes. */
export interface ProjectionNode extends NodeBase {
  readonly kind: "projection";
  readonly input: PlanNode;
  readonly view: FileView;
}

/** Inputs of the same dimensions, partition by partition put together. */
export interface UnionNode extends NodeBase {
  readonly kind: "union";
  readonly inputs: readonly PlanNode[];
}

/** Fewer dimensions: partitions that differ in the others only are put together. */
export interface ConsolidateNode extends NodeBase {
  readonly kind: "consolidate";
  readonly input: PlanNode;
}

/** Files put where a user looks; its data is those files. */
export interface SinkNode extends NodeBase {
  readonly kind: "sink";
  readonly input: PlanNode;
  /** Absolute. */
  readonly path: string;
  readonly sink: SinkKind;
  /** Files without rows are left out. */
  readonly removeEmpty?: true;
}

/** The end of a plan with several outputs; it has no data of its own. */
export interface RootNode extends NodeBase {
  readonly kind: "root";
  readonly inputs: readonly PlanNode[];
  /** One an input. */
  readonly names: readonly string[];
}

export type PlanNode =
  | CallNode
  | ComputeNode
  | ConsolidateNode
  | LimitNode
  | LoadNode
  | PartitionNode
  | ProjectionNode
  | RangeNode
  | RepeatNode
  | RootNode
  | ScriptNode
  | SinkNode
  | SourceNode
  | SourcesNode
  | SplitNode
  | SqlNode
  | UnionNode
  | UserPartitionNode;

/** What a node reads, in order. */
export function inputsOf(node: PlanNode): readonly PlanNode[] {
  if ("inputs" in node) return node.inputs;
  return "input" in node ? [node.input] : [];
}

/** The same node over other inputs, as many; the node itself if they are the same. */
export function withInputs<N extends PlanNode>(node: N, inputs: readonly PlanNode[]): N {
  const before = inputsOf(node);
  if (before.every((input, i) => input === inputs[i])) return node;
  return "inputs" in node ? { ...node, inputs } : { ...node, input: inputs[0] as PlanNode };
}

export function partitionCount(dimensions: readonly Dimension[]): number {
  return dimensions.reduce((product, { count }) => product * count, 1);
}

/**
 * The dimensions that a node over several inputs has: those of the input that has the most. Every
 * other input has some of them, or none, and is fed to all partitions along those that it lacks.
 *
 * @throws PlanError that lists both inputs' dimensions, if neither has all of the other's or one
 *   has another number of partitions
 */
export function joinDimensions(inputs: readonly PlanNode[]): readonly Dimension[] {
  let widest: readonly Dimension[] = [];
  for (const { dimensions } of inputs) {
    if (dimensions.length > widest.length) widest = dimensions;
  }
  for (const { dimensions } of inputs) {
    for (const { name, count } of dimensions) {
      const same = widest.find((other) => other.name === name);
      if (same?.count === count) continue;
      const fault =
        same === undefined
          ? `the inputs are cut along different dimensions: ${keys(widest)} and ${keys(dimensions)}`
          : `the inputs have different partitions: ${keys(widest)} and ${keys(dimensions)}`;
      throw new PlanError(`${fault}; repartition one of them`);
    }
  }
  return widest;
}

/** `hosts 0-3 × days 0-1`. */
function keys(dimensions: readonly Dimension[]): string {
  return dimensions.map(({ name, count }) => `${name} 0-${count - 1}`).join(" × ");
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
