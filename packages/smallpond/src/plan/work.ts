// How nodes that compute become tasks: one a partition, given the partitions of its inputs that
// cover it.

import { type InputRef, type TaskOp, tasksOf } from "../task/task.ts";
import {
  type CallNode,
  type ComputeNode,
  coordinates,
  type Dimension,
  type LimitNode,
  type PlanNode,
  partitionAt,
  partitionCount,
  type ScriptNode,
  type SqlNode,
} from "./node.ts";
import type { Partitions, Planning } from "./planner.ts";
import type { TemplatePiece } from "./template.ts";

/** A task a partition of `dimensions`. */
function eachPartition(
  node: PlanNode,
  inputs: readonly PlanNode[],
  planning: Planning,
  opAt: (at: Readonly<Record<string, number>>) => TaskOp,
): Partitions {
  const { dimensions } = node;
  const given = inputs.map((input) => ({
    dimensions: input.dimensions,
    partitions: gathered(node, input, planning),
  }));
  return Array.from({ length: partitionCount(dimensions) }, (_, index) => {
    const at = coordinates(dimensions, index);
    const slots = given.map((input) => input.partitions[partitionAt(input.dimensions, at)] ?? []);
    const place = [dimensions, index] as const;
    const task = planning.task(node, { op: opAt(at), inputs: slots, index, place });
    return [{ task, output: 0 }];
  });
}

/** More pieces than this are not listed again for every partition that reads them. */
const listedMax = 32;

/**
 * The partitions of an input. Those that several partitions of the node read, and that consist of
 * many tasks' outputs, are made one output first: else tasks times partitions would be kept.
 */
function gathered(node: PlanNode, input: PlanNode, planning: Planning): Partitions {
  const partitions = planning.partitions(input);
  const readers = partitionCount(node.dimensions) / Math.max(1, partitions.length);
  const repeats = partitions[0] === partitions[1];
  if (readers <= 1 && !repeats) return partitions;
  const known = new Map<readonly InputRef[], readonly InputRef[]>();
  const op: TaskOp = { kind: "split-files", count: 1 };
  return partitions.map((refs, i) => {
    const pieces = refs.reduce((sum, ref) => sum + tasksOf(ref).length, 0);
    if (pieces <= listedMax) return refs;
    let whole = known.get(refs);
    if (whole === undefined) {
      const index = partitionCount(node.dimensions) + i;
      whole = [{ task: planning.task(node, { op, inputs: [refs], index }), output: 0 }];
      known.set(refs, whole);
    }
    return whole;
  });
}

const skipping = ({ options }: PlanNode): { skipEmpty?: true } =>
  options.skipEmpty ? { skipEmpty: true } : {};

/** Queries with each partition's own numbers filled in. */
export function query(node: SqlNode, planning: Planning): Partitions {
  const functions = node.options.udfs?.map(({ ref }) => ref);
  const { batchBytes, perThreadOutput } = node.options;
  const more = {
    ...(functions?.length && { functions }),
    ...(batchBytes !== undefined && { batchBytes }),
    ...(perThreadOutput && { perThread: true as const }),
    ...skipping(node),
  };
  // Where nothing differs between partitions, they share the operation.
  const same = node.queries.flat().every((piece) => !isPlaceOf(piece, node.dimensions));
  const shared: TaskOp | undefined = same
    ? { kind: "sql", queries: node.queries.map((text) => filled(text, {})), ...more }
    : undefined;
  return eachPartition(node, node.inputs, planning, (at) => {
    if (shared !== undefined) return shared;
    return { kind: "sql", queries: node.queries.map((text) => filled(text, at)), ...more };
  });
}

const isPlaceOf = (piece: TemplatePiece, dimensions: readonly Dimension[]): boolean =>
  typeof piece === "object" &&
  "name" in piece &&
  dimensions.some(({ name }) => name === piece.name);

function filled(text: readonly TemplatePiece[], at: Readonly<Record<string, number>>): string {
  return text
    .map((piece) => {
      if (typeof piece === "string") return piece;
      if ("input" in piece) return `{${piece.input}}`;
      return String(at[piece.name] ?? `{${piece.name}}`);
    })
    .join("");
}

/** A function over the rows of one input. */
export function call(node: CallNode, planning: Planning): Partitions {
  const op: TaskOp = { kind: "call", call: node.call };
  return eachPartition(node, [node.input], planning, () => op);
}

/** A function over whole inputs. */
export function compute(node: ComputeNode, planning: Planning): Partitions {
  const op: TaskOp = { kind: "compute", call: node.call, ...skipping(node) };
  return eachPartition(node, node.inputs, planning, () => op);
}

/** A function over files. */
export function script(node: ScriptNode, planning: Planning): Partitions {
  const op: TaskOp = { kind: "script", fn: node.fn, collect: true, ...skipping(node) };
  return eachPartition(node, node.inputs, planning, () => op);
}

/** The first rows of each partition, then of those. */
export function limit(node: LimitNode, planning: Planning): Partitions {
  const op: TaskOp = { kind: "sql", queries: [`SELECT * FROM {0} LIMIT ${node.count}`] };
  const take = (refs: readonly InputRef[], index: number): InputRef => ({
    task: planning.task(node, { op, inputs: [refs], index }),
    output: 0,
  });
  const inputs = planning.partitions(node.input);
  if (node.limited && inputs.length === 1) return inputs;
  if (node.limited) return [[take(inputs.flat(), 0)]];
  if (inputs.length === 1) return [[take(inputs[0] ?? [], 0)]];
  const firsts = inputs.map(take);
  return [[take(firsts, inputs.length)]];
}
