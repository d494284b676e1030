// From nodes to tasks: one task a partition, plus those that cut data anew. Planning reads no data;
// what depends on files (row counts, metadata) is a task of its own. How each kind of node is
// planned is in cuts.ts, work.ts and views.ts.

import { taskKey } from "../task/key.ts";
import {
  type InputRef,
  type ParquetOptions,
  type Resources,
  type Task,
  type TaskOp,
  tasksOf,
} from "../task/task.ts";
import { cutRows, loadFiles, ranges, repeat, splitFiles, userPartitions } from "./cuts.ts";
import { coordinates, type Dimension, inputsOf, type PlanNode } from "./node.ts";
import { consolidate, project, publish, unite } from "./views.ts";
import { call, compute, limit, query, script } from "./work.ts";

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
  /** A folder where a sink puts files aside, another one for every run. */
  readonly sinkStaging?: (path: string) => string;
}

/** Where each partition of a node is. */
export type Partitions = readonly (readonly InputRef[])[];

/** A plan's tasks, inputs before users, and where each partition of its root is. */
export interface TaskGraph {
  readonly tasks: readonly Task[];
  readonly roots: Partitions;
}

/** Makes the tasks of several roots at once; shared nodes give shared tasks. */
export function planTasks(roots: readonly PlanNode[], context: PlanContext): TaskGraph[] {
  const planner = new Planner(context, keptNodes(roots, context.forKeeps ?? false));
  return roots.map((root) => {
    const partitions = planner.partitions(root);
    return { tasks: planner.tasksFor(partitions), roots: partitions };
  });
}

/** What a kind of node needs of the planner. */
export interface Planning {
  readonly context: PlanContext;
  /** The references of each partition of a node. */
  partitions(node: PlanNode): Partitions;
  /** Adds a task; gives its key. */
  task(node: PlanNode, work: TaskWork): string;
}

/** A task but for what follows from its node. */
export interface TaskWork {
  readonly op: TaskOp;
  readonly inputs: readonly (readonly InputRef[])[];
  /** Tells tasks of one node apart that do the same, and seeds them. */
  readonly index: number;
  /** @default 1 */
  readonly outputs?: number;
  /** The dimensions along which it has a place, and the number of the place; none without. */
  readonly place?: readonly [dimensions: readonly Dimension[], index: number];
  readonly resources?: Partial<Resources>;
}

class Planner implements Planning {
  readonly context: PlanContext;
  readonly #done = new Map<PlanNode, Partitions>();
  readonly #tasks = new Map<string, Task>();
  readonly #kept: ReadonlySet<PlanNode>;

  constructor(context: PlanContext, kept: ReadonlySet<PlanNode>) {
    this.context = context;
    this.#kept = kept;
  }

  partitions(root: PlanNode): Partitions {
    // Not by recursion: a script may make a plan deeper than the stack.
    const open: PlanNode[] = [root];
    while (open.length > 0) {
      const node = open.at(-1) as PlanNode;
      const inputs = this.#done.has(node)
        ? []
        : inputsOf(node).filter((input) => !this.#done.has(input));
      if (inputs.length > 0) {
        for (const input of inputs) open.push(input);
        continue;
      }
      open.pop();
      if (!this.#done.has(node)) this.#done.set(node, planNode(node, this));
    }
    return this.#done.get(root) as Partitions;
  }

  /** All tasks that these references need, inputs first. */
  tasksFor(partitions: Partitions): Task[] {
    const order: Task[] = [];
    const seen = new Set<string>();
    const lists = new Set<unknown>();
    const open: { readonly task: Task; readonly inputs: Iterator<string> }[] = [];
    const enter = (key: string): void => {
      if (seen.has(key)) return;
      seen.add(key);
      const task = this.#tasks.get(key) as Task;
      open.push({ task, inputs: keysOf(task.inputs, lists) });
    };
    for (const key of keysOf(partitions, lists)) {
      enter(key);
      while (open.length > 0) {
        const { task, inputs } = open.at(-1) as (typeof open)[number];
        const next = inputs.next();
        if (next.done) {
          order.push(task);
          open.pop();
        } else enter(next.value);
      }
    }
    return order;
  }

  task(node: PlanNode, { op, inputs, index, outputs = 1, place, ...work }: TaskWork): string {
    const { context } = this;
    const { options } = node;
    const moves = op.kind === "partition" && !this.#kept.has(node);
    const base = moves ? context.shuffleParquet : context.parquet;
    const parquet = { ...base, ...options.parquet };
    const seed = context.seed * 65_537 + index;
    const partition = place === undefined ? {} : coordinates(...place);
    const counts = place?.[0].map(({ name, count }): [string, number] => [name, count]) ?? [];
    const partitionCounts = counts.length > 0 ? Object.fromEntries(counts) : undefined;
    const { engine } = context;
    const key = taskKey({ op, inputs, parquet, seed, engine, partition, partitionCounts });
    const resources = { ...resourcesOf(node, op), ...work.resources };
    this.#tasks.set(key, {
      key,
      node: options.name ?? `${node.kind}#${node.id}`,
      partition,
      ...(partitionCounts !== undefined && { partitionCounts }),
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

function planNode(node: PlanNode, planning: Planning): Partitions {
  switch (node.kind) {
    case "source":
      return [[{ data: node.data }]];
    case "sources":
      return node.data.map((data) => [{ data }]);
    case "split":
      return splitFiles(node, planning);
    case "partition":
      return cutRows(node, planning);
    case "range":
      return ranges(node, planning);
    case "repeat":
      return repeat(node, planning);
    case "load":
      return loadFiles(node, planning);
    case "user-partition":
      return userPartitions(node, planning);
    case "sql":
      return query(node, planning);
    case "limit":
      return limit(node, planning);
    case "call":
      return call(node, planning);
    case "compute":
      return compute(node, planning);
    case "script":
      return script(node, planning);
    case "projection":
      return project(node, planning);
    case "union":
      return unite(node, planning);
    case "consolidate":
      return consolidate(node, planning);
    case "sink":
      return publish(node, planning);
    case "root":
      return node.inputs.flatMap((input) => planning.partitions(input));
  }
}

/** Keys of the tasks that slots need. A list that many of them share is gone through once. */
function* keysOf(slots: Partitions, done: Set<unknown>): Generator<string> {
  for (const refs of slots) {
    if (done.has(refs)) continue;
    for (const ref of refs) {
      const list = "tasks" in ref ? ref.tasks : undefined;
      if (list !== undefined && done.has(list)) continue;
      yield* tasksOf(ref);
      if (list !== undefined) done.add(list);
    }
    done.add(refs);
  }
}

function resourcesOf({ options }: PlanNode, op: TaskOp): Resources {
  // Functions in TypeScript run on one thread, however many DuckDB has (the original's limit).
  const callsBack = op.kind === "sql" && op.functions !== undefined;
  return {
    cpus: callsBack ? Math.min(options.cpus ?? 1, 3) : (options.cpus ?? 1),
    ...(options.memoryBytes !== undefined && { memoryBytes: options.memoryBytes }),
    ...(options.gpus !== undefined && { gpus: options.gpus }),
    ...(options.timeoutMs !== undefined && { timeoutMs: options.timeoutMs }),
  };
}

/** Nodes whose files a user gets, so that they are written as results. */
function keptNodes(roots: readonly PlanNode[], forKeeps: boolean): ReadonlySet<PlanNode> {
  const kept = new Set<PlanNode>();
  const keep = (root: PlanNode): void => {
    const open = [root];
    for (let node = open.pop(); node !== undefined; node = open.pop()) {
      if (kept.has(node)) continue;
      kept.add(node);
      // These have no files of their own.
      if (passesFiles.has(node.kind)) open.push(...inputsOf(node));
    }
  };
  if (forKeeps) roots.forEach(keep);
  const seen = new Set<PlanNode>();
  const open = [...roots];
  for (let node = open.pop(); node !== undefined; node = open.pop()) {
    if (seen.has(node)) continue;
    seen.add(node);
    if (node.kind === "sink" || node.kind === "root") inputsOf(node).forEach(keep);
    open.push(...inputsOf(node));
  }
  return kept;
}

const passesFiles: ReadonlySet<PlanNode["kind"]> = new Set([
  "consolidate",
  "load",
  "projection",
  "repeat",
  "root",
  "split",
  "union",
]);
