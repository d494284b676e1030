// All ways to deal groups to nodes, a fixed number of groups a node: 105 for 8 groups on 4 nodes.
// Nodes are alike, so partitions that differ only in the nodes' order are listed once. Where there
// are too many to list, nobody lists them.

/** Most partitions that are listed. */
const maxPartitions = 2000;

/** The partitions of groups into nodes. */
export interface Partitions {
  /** Every set of groups a node can hold, groups ascending. */
  readonly subsets: readonly (readonly number[])[];
  /** Each partition as indices into `subsets`, ordered by their lowest group. */
  readonly partitions: readonly (readonly number[])[];
}

/** groups! ÷ (perNode!^nodes × nodes!), as a product of ways to fill node after node. */
function countPartitions(numGroups: number, numNodes: number): number {
  const perNode = numGroups / numNodes;
  let count = 1;
  for (let left = numGroups; left > 0; left -= perNode) {
    // The lowest group left goes to the next node; perNode − 1 others join it.
    for (let i = 1; i < perNode; i++) count = (count * (left - i)) / i;
    if (count > maxPartitions * numGroups) break;
  }
  return Math.round(count);
}

/** All partitions of `numGroups` into `numNodes` equal sets, or undefined if there are too many. */
export function groupPartitions(numGroups: number, numNodes: number): Partitions | undefined {
  if (numGroups > 30 || countPartitions(numGroups, numNodes) > maxPartitions) return undefined;
  const perNode = numGroups / numNodes;
  const subsets: number[][] = [];
  const subsetOf = new Map<number, number>();
  const partitions: number[][] = [];
  const chosen: number[] = [];

  const record = (mask: number, members: readonly number[]): number => {
    let index = subsetOf.get(mask);
    if (index === undefined) {
      index = subsets.length;
      subsetOf.set(mask, index);
      subsets.push([...members]);
    }
    return index;
  };
  const fillNode = (used: number, members: readonly number[], next: number): void => {
    if (members.length === perNode) {
      const mask = members.reduce((bits, group) => bits | (1 << group), 0);
      chosen.push(record(mask, members));
      startNode(used | mask);
      chosen.pop();
      return;
    }
    for (let group = next; group < numGroups; group++) {
      if ((used & (1 << group)) === 0) fillNode(used, [...members, group], group + 1);
    }
  };
  const startNode = (used: number): void => {
    let lowest = 0;
    while (lowest < numGroups && (used & (1 << lowest)) !== 0) lowest++;
    if (lowest === numGroups) partitions.push([...chosen]);
    else fillNode(used, [lowest], lowest + 1);
  };
  startNode(0);
  return { subsets, partitions };
}
