// From nodes to tasks: one task a partition, plus those that cut data anew. Planning reads no data;
// what depends on files (row counts) is a task of its own.

import { type DataSet, withParts } from "../dataset/dataset.ts";
import { splitEvenly } from "../dataset/split.ts";
import { taskKey } from "../task/key.ts";
import type { InputRef, ParquetOptions, Resources, Task, TaskOp } from "../task/task.ts";
import {
  type CutWork,
  coordinates,
  joinDimensions,
  type LimitNode,
  type PartitionNode,
  type PlanNode,
  partitionAt,
  partitionCount,
  type RangeNode,
  type SplitNode,
  type SqlNode,
} from "./node.ts";

/** Rows of each input that range partitioning looks at. */
const sampleRows = 4096;

/** What planning depends on besides the plan. */
export interface PlanContext {
  /** Tasks that may cut the same data side by side. */
  readonly parallelism: number;
  readonly seed: number;
  /** Version of DuckDB: another one may write or hash otherwise. */
  readonly engine: string;
  /** How results are written. */
  readonly parquet: ParquetOptions;
  /** How rows on their way to another partition are written: soon read, never kept. */
  readonly shuffleParquet: ParquetOptions;
  /** The roots are for a user's folder, so that even a shuffle as a root is written as results. */
  readonly forKeeps?: boolean;
}

/** A plan's tasks, inputs before users, and where each partition of its root is. */
export interface TaskGraph {
  readonly tasks: readonly Task[];
  readonly roots: readonly (readonly InputRef[])[];
}

/** Makes the tasks of several roots at once; shared nodes give shared tasks. */
export function planTasks(roots: readonly PlanNode[], context: PlanContext): TaskGraph[] {
  const planner = new Planner(context);
  return roots.map((root) => {
    const partitions = planner.root(root);
    return { tasks: planner.tasksFor(partitions), roots: partitions };
  });
}

/** The optimizer's part of a cut. */
function cutWork({ from, columns }: CutWork): { from?: string; columns?: readonly string[] } {
  const text = from?.map((piece) => {
    if (typeof piece === "string") return piece;
    return "input" in piece ? `{${piece.input}}` : `{${piece.name}}`;
  });
  return {
    ...(text !== undefined && { from: text.join("") }),
    ...(columns !== undefined && { columns }),
  };
}

class Planner {
  readonly #context: PlanContext;
  readonly #done = new Map<PlanNode, readonly (readonly InputRef[])[]>();
  readonly #tasks = new Map<string, Task>();
  readonly #kept = new Set<PlanNode>();

  constructor(context: PlanContext) {
    this.#context = context;
  }

  /** As `partitions`, for a node whose data is asked for. */
  root(node: PlanNode): readonly (readonly InputRef[])[] {
    if (this.#context.forKeeps) this.#kept.add(node);
    return this.partitions(node);
  }

  /** The references of each partition of a node. */
  partitions(node: PlanNode): readonly (readonly InputRef[])[] {
    let refs = this.#done.get(node);
    if (refs === undefined) {
      refs = this.#plan(node);
      this.#done.set(node, refs);
    }
    return refs;
  }

  /** All tasks that these references need, inputs first. */
  tasksFor(partitions: readonly (readonly InputRef[])[]): Task[] {
    const order: Task[] = [];
    const seen = new Set<string>();
    const visit = (refs: readonly InputRef[]): void => {
      for (const ref of refs) {
        if (!("task" in ref) || seen.has(ref.task)) continue;
        seen.add(ref.task);
        const task = this.#tasks.get(ref.task) as Task;
        task.inputs.forEach(visit);
        order.push(task);
      }
    };
    partitions.forEach(visit);
    return order;
  }

  #plan(node: PlanNode): readonly (readonly InputRef[])[] {
    switch (node.kind) {
      case "source":
        return [[{ data: node.data }]];
      case "split":
        return this.#split(node);
      case "partition":
        return this.#cut(node);
      case "sql":
        return this.#sql(node);
      case "range":
        return this.#range(node);
      case "limit":
        return this.#limit(node);
      case "call":
        return this.partitions(node.input).map((refs, i) => {
          const at = coordinates(node.dimensions, i);
          const op: TaskOp = { kind: "call", call: node.call };
          return [{ task: this.#task(node, i, op, [refs], 1, at), output: 0 }];
        });
    }
  }

  #split(node: SplitNode): readonly (readonly InputRef[])[] {
    const input = this.partitions(node.input).flat();
    const { count } = node;
    if (node.by === "files" && input.every((ref) => "data" in ref)) {
      // All files are known: no task is needed to deal them out.
      const sets = input.map((ref) => (ref as { data: DataSet }).data);
      const parts = sets.flatMap((data) => data.parts);
      return splitEvenly(parts, count).map((group) => [
        { data: withParts({ ...(sets[0] as DataSet), parts }, group) },
      ]);
    }
    const op: TaskOp = { kind: node.by === "files" ? "split-files" : "split-rows", count };
    const task = this.#task(node, 0, op, [input], count);
    return Array.from({ length: count }, (_, output) => [{ task, output }]);
  }

  #cut(node: PartitionNode): readonly (readonly InputRef[])[] {
    const { count, expression, column } = node;
    const groups = this.#producers(this.partitions(node.input));
    const op: TaskOp = {
      kind: "partition",
      expression,
      count,
      ...(column !== undefined && { column }),
      ...(node.inRange && { inRange: true }),
      ...cutWork(node),
    };
    const tasks = groups.map((refs, i) => this.#task(node, i, op, [refs], count));
    return Array.from({ length: count }, (_, output) => tasks.map((task) => ({ task, output })));
  }

  /** Samples, split points from all samples, then the cut by them. */
  #range(node: RangeNode): readonly (readonly InputRef[])[] {
    const { count, key, descending } = node;
    const groups = this.#producers(this.partitions(node.input));
    const sample: TaskOp = {
      kind: "sql",
      queries: [
        `SELECT ${key} AS k FROM {0} USING SAMPLE reservoir(${sampleRows} ROWS) ` +
          `REPEATABLE (${this.#context.seed})`,
      ],
    };
    const samples = groups.map((refs, i) => ({
      task: this.#task(node, i, sample, [refs], 1),
      output: 0,
    }));
    const ranked = "SELECT k, row_number() OVER (ORDER BY k) AS r, count(*) OVER () AS n FROM {0}";
    const points: TaskOp = {
      kind: "sql",
      queries: [
        `SELECT DISTINCT k FROM (${ranked} WHERE k IS NOT NULL) ` +
          `WHERE floor(r * ${count} / (n + 1)) > floor((r - 1) * ${count} / (n + 1))`,
      ],
    };
    const splits = { task: this.#task(node, groups.length, points, [samples], 1), output: 0 };
    // A row's partition is the number of split points before it; NULL comes last, as in ORDER BY.
    const list = "(SELECT coalesce(list(k), []) FROM {1})";
    const before = `len(list_filter(${list}, s -> s ${descending ? ">" : "<="} (${key})))`;
    const expression = `CASE WHEN (${key}) IS NULL THEN ${node.nullsFirst ? 0 : count - 1} ELSE ${before} END`;
    const op: TaskOp = { kind: "partition", expression, count, ...cutWork(node) };
    const tasks = groups.map((refs, i) =>
      this.#task(node, groups.length + 1 + i, op, [refs, [splits]], count),
    );
    return Array.from({ length: count }, (_, output) => tasks.map((task) => ({ task, output })));
  }

  /** As many groups of inputs as can be cut side by side. */
  #producers(partitions: readonly (readonly InputRef[])[]): readonly (readonly InputRef[])[] {
    const { parallelism } = this.#context;
    if (partitions.length > parallelism) {
      return splitEvenly(partitions, parallelism).map((group) => group.flat());
    }
    const only = partitions[0];
    if (partitions.length > 1 || only === undefined) return partitions;
    const data =
      only.length === 1 && only[0] !== undefined && "data" in only[0] ? only[0].data : undefined;
    if (data === undefined || data.parts.length < 2) return partitions;
    const groups = splitEvenly(data.parts, Math.min(parallelism, data.parts.length));
    return groups.map((parts) => [{ data: { ...data, parts } as DataSet }]);
  }

  #sql(node: SqlNode): readonly (readonly InputRef[])[] {
    const dimensions = joinDimensions(node.inputs);
    const count = partitionCount(dimensions);
    return Array.from({ length: count }, (_, index) => {
      const at = coordinates(dimensions, index);
      const inputs = node.inputs.map(
        (input) => this.partitions(input)[partitionAt(input.dimensions, at)] ?? [],
      );
      const queries = node.queries.map((query) =>
        query
          .map((piece) => {
            if (typeof piece === "string") return piece;
            if ("input" in piece) return `{${piece.input}}`;
            return String(at[piece.name] ?? `{${piece.name}}`);
          })
          .join(""),
      );
      const functions = node.options.udfs?.map(({ ref }) => ref);
      const op: TaskOp = { kind: "sql", queries, ...(functions?.length && { functions }) };
      return [{ task: this.#task(node, index, op, inputs, 1, at), output: 0 }];
    });
  }

  #limit(node: LimitNode): readonly (readonly InputRef[])[] {
    const op: TaskOp = { kind: "sql", queries: [`SELECT * FROM {0} LIMIT ${node.count}`] };
    const inputs = this.partitions(node.input);
    if (node.limited && inputs.length === 1) return inputs;
    if (node.limited) {
      return [[{ task: this.#task(node, 0, op, [inputs.flat()], 1), output: 0 }]];
    }
    if (inputs.length === 1) {
      return [[{ task: this.#task(node, 0, op, [inputs[0] ?? []], 1), output: 0 }]];
    }
    const firsts = inputs.map((refs, i) => ({
      task: this.#task(node, i, op, [refs], 1),
      output: 0,
    }));
    return [[{ task: this.#task(node, inputs.length, op, [firsts], 1), output: 0 }]];
  }

  #task(
    node: PlanNode,
    index: number,
    op: TaskOp,
    inputs: readonly (readonly InputRef[])[],
    outputs: number,
    partition: Readonly<Record<string, number>> = {},
  ): string {
    const { options } = node;
    const moves = op.kind === "partition" && !this.#kept.has(node);
    const base = moves ? this.#context.shuffleParquet : this.#context.parquet;
    const parquet = { ...base, ...options.parquet };
    const seed = this.#context.seed * 65_537 + index;
    const key = taskKey({ op, inputs, parquet, seed, engine: this.#context.engine });
    // Functions in TypeScript run on one thread, however many DuckDB has (the original's limit).
    const callsBack = op.kind === "sql" && op.functions !== undefined;
    const resources: Resources = {
      cpus: callsBack ? Math.min(options.cpus ?? 1, 3) : (options.cpus ?? 1),
      ...(options.memoryBytes !== undefined && { memoryBytes: options.memoryBytes }),
      ...(options.gpus !== undefined && { gpus: options.gpus }),
      ...(options.timeoutMs !== undefined && { timeoutMs: options.timeoutMs }),
    };
    const name = options.name ?? `${node.kind}#${node.id}`;
    this.#tasks.set(key, {
      key,
      node: name,
      partition,
      op,
      inputs,
      outputs,
      resources,
      parquet,
      seed,
    });
    return key;
  }
}
