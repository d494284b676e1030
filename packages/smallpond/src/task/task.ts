// The unit of work, as plain data: what to do, on which data sets, with what resources. It goes to
// an executor as JSON, and its key says everything that its result depends on.

import type { DataSet } from "../dataset/dataset.ts";
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

/** Where an input's data comes from: files known at planning, or an output of a task. */
export type InputRef =
  | { readonly data: DataSet }
  | { readonly task: string; readonly output: number };

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

/** The kinds of work. */
export type TaskOp =
  /** Runs queries on one connection; the last one's result is the output. */
  | {
      readonly kind: "sql";
      readonly queries: readonly string[];
      /** Functions in TypeScript that the queries call. */
      readonly functions?: readonly UdfRef[];
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
  /** Calls a function that reads its inputs' files itself and writes files into a folder. */
  | { readonly kind: "script"; readonly fn: FunctionRef }
  /** Cuts by rows into `count` outputs; touches only footers. */
  | { readonly kind: "split-rows"; readonly count: number }
  /** Cuts by files into `count` outputs. */
  | { readonly kind: "split-files"; readonly count: number };

/** A task. Inputs are slots, each the concatenation of its references. */
export interface Task {
  /** Content key: equal keys mean equal results. */
  readonly key: string;
  /** The plan's node, for people: `hash-partition#3`. */
  readonly node: string;
  readonly partition: Readonly<Record<string, number>>;
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
