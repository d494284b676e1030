// How nodes that cut become tasks: by files, rows, an expression, ranges of a key, what files know
// of themselves, or a user's function. A nested cut does so within each partition of its input.

import { concatData, type DataSet, withParts } from "../dataset/dataset.ts";
import { shuffledBy, splitEvenly } from "../dataset/split.ts";
import type { InputRef, TaskOp } from "../task/task.ts";
import {
  type CutWork,
  type Dimension,
  type LoadNode,
  type PartitionNode,
  partitionCount,
  type RangeNode,
  type RepeatNode,
  type SplitNode,
  type UserPartitionNode,
} from "./node.ts";
import type { Partitions, Planning } from "./planner.ts";
import { type TemplatePiece, templateText } from "./template.ts";

type CutNode = LoadNode | PartitionNode | RangeNode | RepeatNode | SplitNode | UserPartitionNode;

/** The original's limits: tasks that cut one data set, and those times partitions. */
export const producersMax = 1000;
export const piecesMax = 4_096_000;
/** Loading reads little. */
const loadersMax = 10;
/** Rows of each input that range partitioning looks at. */
const sampleRows = 4096;

/** A part of a node's data that is cut by itself: all of it, or a partition of its input. */
interface Portion {
  readonly partitions: Partitions;
  /** Of its first task; each portion has this many numbers for itself. */
  readonly index: number;
  readonly place?: readonly [dimensions: readonly Dimension[], index: number];
}

const indexesOfPortion = 2 * producersMax + 1;

function cutPortions(
  node: CutNode,
  planning: Planning,
  cut: (portion: Portion) => Partitions,
): Partitions {
  const partitions = planning.partitions(node.input);
  if (!node.nested) return cut({ partitions, index: 0 });
  const { dimensions } = node.input;
  return partitions.flatMap((refs, i) =>
    cut({ partitions: [refs], index: i * indexesOfPortion, place: [dimensions, i] }),
  );
}

/** Output `i` of all tasks, for each `i`; the list of tasks is the same for all. */
function outputsOf(tasks: readonly string[], count: number): Partitions {
  const [only] = tasks;
  return Array.from({ length: count }, (_, output): readonly InputRef[] =>
    tasks.length === 1 && only !== undefined ? [{ task: only, output }] : [{ tasks, output }],
  );
}

const placeOf = ({ place }: Portion): Pick<Portion, "place"> => (place ? { place } : {});

/** Groups of files or rows. */
export function splitFiles(node: SplitNode, planning: Planning): Partitions {
  const { count, shuffled } = node;
  const more = shuffled && { shuffled };
  const op: TaskOp = { kind: node.by === "files" ? "split-files" : "split-rows", count, ...more };
  return cutPortions(node, planning, (portion) => {
    const input =
      portion.partitions.length === 1 ? portion.partitions : [portion.partitions.flat()];
    const refs = input[0] ?? [];
    if (node.by === "files" && refs.every((ref) => "data" in ref)) {
      // All files are known: no task is needed to deal them out.
      const data = concatData(refs.map((ref) => (ref as { data: DataSet }).data));
      const seed = planning.context.seed + portion.index;
      const parts = shuffled ? shuffledBy(data.parts, seed) : data.parts;
      return splitEvenly(parts, count).map((group) => [{ data: withParts(data, group) }]);
    }
    const { index } = portion;
    const work = { op, inputs: input, outputs: count, index, ...placeOf(portion) };
    return outputsOf([planning.task(node, work)], count);
  });
}

/** Rows by the value of an expression. */
export function cutRows(node: PartitionNode, planning: Planning): Partitions {
  const { count, expression, column } = node;
  const op: TaskOp = {
    kind: "partition",
    expression,
    count,
    ...(column !== undefined && { column }),
    ...(node.inRange && { inRange: true }),
    ...cutWork(node),
  };
  return cutPortions(node, planning, (portion) => {
    const tasks = producers(portion, node, planning).map((refs, i) => {
      const index = portion.index + i;
      const work = { op, inputs: [refs], outputs: count, index, ...placeOf(portion) };
      return planning.task(node, work);
    });
    return outputsOf(tasks, count);
  });
}

/** The optimizer's part of a cut. */
function cutWork({ from, columns }: CutWork): { from?: string; columns?: readonly string[] } {
  return {
    ...(from !== undefined && { from: templateText(from as readonly TemplatePiece[]) }),
    ...(columns !== undefined && { columns }),
  };
}

/** Rows by ranges; without given points first samples, then split points from all samples. */
export function ranges(node: RangeNode, planning: Planning): Partitions {
  const { count } = node;
  return cutPortions(node, planning, (portion) => {
    const groups = producers(portion, node, planning);
    const splits = node.points === undefined ? [sampled(node, groups, portion, planning)] : [];
    const number = node.points === undefined ? numberBySample(node) : numberByPoints(node);
    const nulls = node.nullsFirst ? 0 : count - 1;
    const expression = `CASE WHEN (${node.key}) IS NULL THEN ${nulls} ELSE ${number} END`;
    const op: TaskOp = { kind: "partition", expression, count, ...cutWork(node) };
    const tasks = groups.map((refs, i) => {
      const index = portion.index + groups.length + 1 + i;
      const inputs = [refs, ...splits];
      return planning.task(node, { op, inputs, outputs: count, index, ...placeOf(portion) });
    });
    return outputsOf(tasks, count);
  });
}

function sampled(
  node: RangeNode,
  groups: Partitions,
  portion: Portion,
  planning: Planning,
): readonly InputRef[] {
  const { key, count } = node;
  const text =
    `SELECT ${key} AS k FROM {0} USING SAMPLE reservoir(${sampleRows} ROWS) ` +
    `REPEATABLE (${planning.context.seed})`;
  const sample: TaskOp = { kind: "sql", queries: [text] };
  const samples = groups.map((refs, i): InputRef => {
    const work = { op: sample, inputs: [refs], index: portion.index + i, ...placeOf(portion) };
    return { task: planning.task(node, work), output: 0 };
  });
  const ranked = "SELECT k, row_number() OVER (ORDER BY k) AS r, count(*) OVER () AS n FROM {0}";
  const points =
    `SELECT DISTINCT k FROM (${ranked} WHERE k IS NOT NULL) ` +
    `WHERE floor(r * ${count} / (n + 1)) > floor((r - 1) * ${count} / (n + 1))`;
  const work = {
    op: { kind: "sql", queries: [points] } as const,
    inputs: [samples],
    index: portion.index + groups.length,
    ...placeOf(portion),
  };
  return [{ task: planning.task(node, work), output: 0 }];
}

/** A row's partition is the number of split points before it. */
function numberBySample({ key, descending }: RangeNode): string {
  const list = "(SELECT coalesce(list(k), []) FROM {1})";
  return `len(list_filter(${list}, s -> s ${descending ? ">" : "<="} (${key})))`;
}

/** The same for known points, halving them: a row meets log2 of them. */
function numberByPoints({ key, descending, points = [] }: RangeNode): string {
  const between = (from: number, to: number): string => {
    if (from === to) return String(descending ? points.length - from : from);
    const middle = (from + to) >> 1;
    const [lower, upper] = [between(from, middle), between(middle + 1, to)];
    return `CASE WHEN (${key}) < ${points[middle]} THEN ${lower} ELSE ${upper} END`;
  };
  return between(0, points.length);
}

/** The same data in each. */
export function repeat(node: RepeatNode, planning: Planning): Partitions {
  return cutPortions(node, planning, ({ partitions }) => {
    const refs = partitions.length === 1 ? (partitions[0] ?? []) : partitions.flat();
    return Array.from({ length: node.count }, () => refs);
  });
}

/** Files that know their partition. */
export function loadFiles(node: LoadNode, planning: Planning): Partitions {
  const { count, column, hive } = node;
  const op: TaskOp = { kind: "load", column, count, ...(hive && { hive }) };
  return cutPortions(node, planning, (portion) => {
    const tasks = producers(portion, node, planning, loadersMax).map((refs, i) => {
      const index = portion.index + i;
      const work = { op, inputs: [refs], outputs: count, index, ...placeOf(portion) };
      return planning.task(node, work);
    });
    return outputsOf(tasks, count);
  });
}

/** A function that is given the data and gives data sets. */
export function userPartitions(node: UserPartitionNode, planning: Planning): Partitions {
  const { count, fn } = node;
  return cutPortions(node, planning, (portion) => {
    const inputs =
      portion.partitions.length === 1 ? portion.partitions : [portion.partitions.flat()];
    const op: TaskOp = { kind: "script", fn };
    const { index } = portion;
    const key = planning.task(node, { op, inputs, outputs: count, index, ...placeOf(portion) });
    return outputsOf([key], count);
  });
}

/** As many groups of inputs as can be cut side by side. */
function producers(
  { partitions }: Portion,
  node: CutNode,
  { context }: Planning,
  most: number = producersMax,
): Partitions {
  const portions = node.nested ? partitionCount(node.input.dimensions) : 1;
  const atOnce = Math.ceil(context.parallelism / (node.options.cpus ?? 1) / portions);
  const limit = Math.max(1, Math.min(most, Math.floor(piecesMax / node.count), atOnce));
  if (partitions.length > limit) {
    return splitEvenly(partitions, limit).map((group) => group.flat());
  }
  const only = partitions[0];
  if (partitions.length > 1 || only === undefined) return partitions;
  const [ref] = only;
  const data = only.length === 1 && ref !== undefined && "data" in ref ? ref.data : undefined;
  if (data === undefined || data.parts.length < 2) return partitions;
  const groups = splitEvenly(data.parts, Math.min(limit, data.parts.length));
  return groups.map((parts) => [{ data: { ...data, parts } as DataSet }]);
}
