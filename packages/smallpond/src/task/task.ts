// The unit of work, as plain data: what to do, on which data sets, with what resources. It goes to
// an executor as JSON, and its key says everything that its result depends on.

import { concatData, type DataSet, type Schema } from "../dataset/dataset.ts";
import { type FileView, viewed } from "../dataset/view.ts";
import type { FunctionRef } from "../functions/function-ref.ts";
import type { FunctionCall } from "../functions/run-function.ts";
import type { UdfRef } from "../functions/udf.ts";

/** What a task may use. */
export interface Resources {
  /** Cores; DuckDB gets as many threads. */
  readonly cpus: number;
  /** Of one task; by default the executor's memory in proportion to its cores. */
  readonly memoryBytes?: number;
  /** GPUs; 0.25 is a quarter of one, 1.5 one and a half of another. */
  readonly gpus?: number;
  /** Of one attempt. */
  readonly timeoutMs?: number;
  /** False: no copy runs beside it however late it is, as for what writes where users look. */
  readonly speculate?: boolean;
  /** False: it never gets more cores or memory than it asks for. */
  readonly boost?: boolean;
}

/**
 * Where an input's data comes from: files known at planning, an output of a task, or the same
 * output of several tasks, whose list all partitions of a cut share. The last two may be seen
 * otherwise.
 */
export type InputRef =
  | { readonly data: DataSet }
  | { readonly task: string; readonly output: number; readonly views?: readonly FileView[] }
  | {
      readonly tasks: readonly string[];
      readonly output: number;
      readonly views?: readonly FileView[];
    };

/** Keys of the tasks that a reference needs. */
export function tasksOf(ref: InputRef): readonly string[] {
  if ("task" in ref) return [ref.task];
  return "tasks" in ref ? ref.tasks : [];
}

/** The data of a reference, given what tasks came to. */
export function dataOf(ref: InputRef, outputsOf: (task: string) => readonly DataSet[]): DataSet {
  if ("data" in ref) return ref.data;
  const { output, views = [] } = ref;
  const data = concatData(tasksOf(ref).map((task) => outputsOf(task)[output] as DataSet));
  return views.reduce(viewed, data);
}

/** How outputs are written. */
export interface ParquetOptions {
  readonly compression: "zstd" | "snappy" | "lz4" | "uncompressed";
  readonly compressionLevel?: number;
  readonly rowGroupRows?: number;
  /** Format version of pages: 2 has delta encodings. @default 1 */
  readonly version?: 1 | 2;
  /** Whether columns may be written as a dictionary and numbers of it. @default true */
  readonly dictionary?: boolean;
}

/** How a function is called over whole inputs. */
export interface ComputeCall {
  readonly fn: FunctionRef;
  /**
   * `table`: once, with all rows of every input. `batch`: with batches of the first input and all
   * rows of the others. `stream`: once, with an iterable of batches of every input.
   */
  readonly mode: "table" | "batch" | "stream";
  readonly format: "rows" | "arrow";
  readonly batchRows: number;
  readonly schema?: Schema;
  /**
   * What is made is put aside so often, and a later attempt goes on from there; for functions that
   * need nothing of earlier batches. Never without.
   */
  readonly checkpointMs?: number;
}

/** How a sink puts files into a folder. */
export type SinkKind = "link" | "copy" | "link-or-copy" | "manifest";

/** Where a sink puts files, and where they lie until all are there. */
export interface SinkPlace {
  /** Absolute. */
  readonly path: string;
  /** A folder on the same file system, new for every run. */
  readonly staging: string;
  readonly kind: SinkKind;
}

/** The kinds of work. */
export type TaskOp =
  /** Runs queries on one connection; the last one's result is the output. */
  | {
      readonly kind: "sql";
      readonly queries: readonly string[];
      /** Functions in TypeScript that the queries call. */
      readonly functions?: readonly UdfRef[];
      /** The first input in batches of so many uncompressed bytes. */
      readonly batchBytes?: number;
      /** A file a thread, in no order. */
      readonly perThread?: true;
      readonly skipEmpty?: true;
    }
  /**
   * Rows of the first input by the value of an integer expression to `count` outputs; `{1}` in the
   * expression is the second input.
   */
  | {
      readonly kind: "partition";
      readonly expression: string;
      readonly count: number;
      /** Kept in the output under this name; none with undefined. */
      readonly column?: string;
      /** The expression cannot give any other number, so rows are not checked for it. */
      readonly inRange?: true;
      /** A query over `{0}` whose rows are dealt out; the first input's without. */
      readonly from?: string;
      /** Columns to write; all without. */
      readonly columns?: readonly string[];
    }
  /** Calls a function over the rows of the first input. */
  | { readonly kind: "call"; readonly call: FunctionCall }
  /** Calls a function over whole inputs. */
  | { readonly kind: "compute"; readonly call: ComputeCall; readonly skipEmpty?: true }
  /** Calls a function that reads its inputs' files itself and writes files into a folder. */
  | {
      readonly kind: "script";
      readonly fn: FunctionRef;
      /** One that says nothing of its output gives the files in its folder. */
      readonly collect?: true;
      readonly skipEmpty?: true;
    }
  /** Cuts by rows into `count` outputs; touches only footers. */
  | { readonly kind: "split-rows"; readonly count: number; readonly shuffled?: true }
  /** Cuts by files into `count` outputs. */
  | { readonly kind: "split-files"; readonly count: number; readonly shuffled?: true }
  /** Finds the partition of each file; touches only footers. */
  | {
      readonly kind: "load";
      readonly column: string;
      readonly count: number;
      readonly hive?: true;
    }
  /** Puts a partition's files where a sink's other files are; nobody looks there. */
  | { readonly kind: "sink-stage"; readonly place: SinkPlace; readonly partition: number }
  /** Makes all files of a sink visible; inputs are its partitions. */
  | {
      readonly kind: "sink-publish";
      readonly place: SinkPlace;
      readonly outputName?: string;
      readonly removeEmpty?: true;
    }
  /** Removes what a sink put aside. */
  | { readonly kind: "sink-clean"; readonly place: SinkPlace };

/** A task. Inputs are slots, each the concatenation of its references. */
export interface Task {
  /** Content key: equal keys mean equal results. */
  readonly key: string;
  /** The plan's node, for people: `hash-partition#3`. */
  readonly node: string;
  readonly partition: Readonly<Record<string, number>>;
  /** Partitions along each dimension of `partition`; not known without. */
  readonly partitionCounts?: Readonly<Record<string, number>>;
  readonly op: TaskOp;
  readonly inputs: readonly (readonly InputRef[])[];
  readonly outputs: number;
  readonly resources: Resources;
  readonly parquet: ParquetOptions;
  /** Seeds random() of the task's connection. */
  readonly seed: number;
}

/** What a finished task has to show. */
export interface TaskResult {
  readonly key: string;
  readonly outputs: readonly DataSet[];
  readonly metrics: TaskMetrics;
}

/** What it cost. */
export interface TaskMetrics {
  readonly startedMs: number;
  readonly elapsedMs: number;
  readonly inputRows: number | undefined;
  readonly outputRows: number | undefined;
  readonly outputBytes: number;
  readonly cpuMs: number;
  readonly maxRssBytes: number;
  readonly executor: string;
}
