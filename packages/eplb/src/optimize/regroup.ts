// Under the node limit a layer can be out of reach of its target because of which groups share a
// node. Then some groups must change nodes. These are the partitions to try: good enough by their
// bounds, and as near as possible to the one in use, because every expert of a group that changes
// nodes has to be copied.

import type { Partitions } from "../partitions.ts";
import { assignRows } from "./assignment.ts";

/** A partition to migrate to. */
export interface Regrouping {
  /** Groups of every node. */
  readonly groups: readonly (readonly number[])[];
  /** Groups that change nodes. */
  readonly displaced: number;
}

/** What a partition is measured by. */
export interface RegroupInput {
  readonly partitions: Partitions;
  /** Lower bound of a node for every subset of groups. */
  readonly bounds: Float64Array;
  /** Node of each group now. */
  readonly nodeOf: Int32Array;
  /** A partition whose worst node is bounded by more than this cannot reach the target. */
  readonly limit: number;
  /** Most partitions to return. */
  readonly most: number;
}

/** The partitions that may reach the limit, fewest displaced groups first, then lowest bound. */
export function regroupings(input: RegroupInput): Regrouping[] {
  const { partitions, bounds, nodeOf, limit, most } = input;
  const found: { readonly nodes: readonly number[]; readonly worst: number; displaced: number }[] =
    [];
  for (const nodes of partitions.partitions) {
    const worst = nodes.reduce((max, subset) => Math.max(max, bounds[subset] as number), 0);
    if (worst > limit) continue;
    const labelled = labelNodes(nodes, partitions, nodeOf);
    const displaced = labelled.reduce(
      (sum, subset, node) => sum + arrivals(partitions.subsets[subset], nodeOf, node),
      0,
    );
    found.push({ nodes: labelled, worst, displaced });
  }
  found.sort((a, b) => a.displaced - b.displaced || a.worst - b.worst);
  return found.slice(0, most).map(({ nodes, displaced }) => ({
    groups: nodes.map((subset) => partitions.subsets[subset] as readonly number[]),
    displaced,
  }));
}

function arrivals(groups: readonly number[] | undefined, nodeOf: Int32Array, node: number): number {
  return (groups ?? []).filter((group) => nodeOf[group] !== node).length;
}

/** Gives each node of the cluster the subset that shares most groups with it. */
function labelNodes(
  subsets: readonly number[],
  partitions: Partitions,
  nodeOf: Int32Array,
): number[] {
  const n = subsets.length;
  const cost = new Float64Array(n * n);
  for (let node = 0; node < n; node++) {
    for (const [i, subset] of subsets.entries()) {
      cost[node * n + i] = arrivals(partitions.subsets[subset], nodeOf, node);
    }
  }
  return Array.from(assignRows(cost, n), (i) => subsets[i] as number);
}
