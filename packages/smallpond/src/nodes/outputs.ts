// What running a node gives: its partitions, each with its place.

import type { DataSet } from "../dataset/dataset.ts";
import { coordinates, type PlanNode, partitionCount } from "../plan/node.ts";

/** A partition of a node that has run. */
export interface PartitionOutput {
  /** Its number along each dimension, by name. */
  readonly partition: Readonly<Record<string, number>>;
  readonly data: DataSet;
}

/** A node's data with places; of a root, each output's by name. */
export function outputsOf(
  node: PlanNode,
  data: readonly DataSet[],
): readonly PartitionOutput[] | Readonly<Record<string, readonly PartitionOutput[]>> {
  const placed = ({ dimensions }: PlanNode, sets: readonly DataSet[]): PartitionOutput[] =>
    sets.map((set, i) => ({ partition: coordinates(dimensions, i), data: set }));
  if (node.kind !== "root") return placed(node, data);
  let at = 0;
  const outputs = node.inputs.map((input, i): [string, readonly PartitionOutput[]] => {
    const count = partitionCount(input.dimensions);
    at += count;
    return [node.names[i] as string, placed(input, data.slice(at - count, at))];
  });
  return Object.fromEntries(outputs);
}
