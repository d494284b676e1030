// Who talks to whom between nodes: two binary trees in which each node is an inner node at most
// once, and the ring. Pure; the native side gets it as tables (tables.ts).

/** A tree over nodes `0 … n − 1`. */
export interface Tree {
  /** −1 for the root. */
  readonly parent: readonly number[];
  /** At most two each. */
  readonly children: readonly (readonly number[])[];
}

/**
 * Two trees over `n` nodes for an allreduce, after Sanders, Speck and Träff: each is a search tree
 * over the nodes in a row whose odd places are leaves. For the second one the row is reversed
 * (even `n`) or moved on by one (odd `n`), so that what is an inner node here is a leaf there. Each
 * tree carries half of the data, so no node sends or receives more than twice the whole.
 */
export function doubleTree(n: number): readonly [Tree, Tree] {
  const row = Array.from({ length: n }, (_, i) => i);
  return [treeOver(n, row), treeOver(n, turned(row))];
}

/**
 * The same for a reduce to, or a broadcast from, `root`: both trees hang from it by one edge, and
 * double over the other nodes.
 */
export function rootedTrees(n: number, root: number): readonly [Tree, Tree] {
  const row = Array.from({ length: n - 1 }, (_, i) => (root + 1 + i) % n);
  return [treeOver(n, row, root), treeOver(n, turned(row), root)];
}

/** Levels of edges between a root and its farthest leaf. */
export function treeHeight({ parent }: Tree): number {
  let height = 0;
  for (let node = 0; node < parent.length; node++) {
    let depth = 0;
    for (let at = parent[node] as number; at >= 0; at = parent[at] as number) depth++;
    height = Math.max(height, depth);
  }
  return height;
}

function turned(row: readonly number[]): number[] {
  if (row.length % 2 === 0) return row.toReversed();
  return [...row.slice(-1), ...row.slice(0, -1)];
}

/** A search tree over `row`, under `top` if there is one. */
function treeOver(n: number, row: readonly number[], top = -1): Tree {
  const parent = new Array<number>(n).fill(-1);
  const children = Array.from({ length: n }, (): number[] => []);
  const hang = (from: number, to: number, above: number): void => {
    if (from > to) return;
    // The largest power of two as the place of the root keeps every odd place a leaf.
    const place = from - 1 + 2 ** Math.floor(Math.log2(to - from + 1));
    const node = row[place - 1] as number;
    parent[node] = above;
    if (above >= 0) (children[above] as number[]).push(node);
    hang(from, place - 1, node);
    hang(place + 1, to, node);
  };
  hang(1, row.length, top);
  return { parent, children };
}

/** Members of a group and the nodes they are on. */
export interface Members {
  /** Ranks in the world, ascending, so node after node. */
  readonly ranks: readonly number[];
  /** First member of each node, and the number of members at the end. */
  readonly nodeStart: readonly number[];
}

/**
 * Puts ranks into nodes.
 *
 * @param nodeOf The node of a rank of the world; must not fall with the rank.
 */
export function membersOf(ranks: readonly number[], nodeOf: (rank: number) => number): Members {
  const sorted = ranks.toSorted((a, b) => a - b);
  const nodeStart: number[] = [];
  sorted.forEach((rank, i) => {
    if (i === 0 || nodeOf(rank) !== nodeOf(sorted[i - 1] as number)) nodeStart.push(i);
  });
  return { ranks: sorted, nodeStart: [...nodeStart, sorted.length] };
}

/** The node of a member. */
export function nodeOfMember({ nodeStart }: Members, member: number): number {
  let node = 0;
  while ((nodeStart[node + 1] as number) <= member) node++;
  return node;
}

export function nodeSize({ nodeStart }: Members, node: number): number {
  return (nodeStart[node + 1] as number) - (nodeStart[node] as number);
}

/** Lanes of a group: as many as the largest node has members. */
export function laneCount(members: Members): number {
  const nodes = members.nodeStart.length - 1;
  return Math.max(...Array.from({ length: nodes }, (_, node) => nodeSize(members, node)));
}

/**
 * The member that serves a lane on a node, and which of its lanes that is. A node with fewer
 * members than lanes has members that serve several.
 */
export function laneServer(
  members: Members,
  node: number,
  lane: number,
): { readonly member: number; readonly slot: number } {
  const size = nodeSize(members, node);
  return {
    member: (members.nodeStart[node] as number) + (lane % size),
    slot: Math.floor(lane / size),
  };
}
