import { describe, expect, it } from "vitest";
import { reducerLayout } from "../src/layout.ts";
import {
  doubleTree,
  laneCount,
  laneServer,
  membersOf,
  rootedTrees,
  type Tree,
  treeHeight,
} from "../src/topology.ts";

const inner = ({ children }: Tree, node: number): boolean => (children[node]?.length ?? 0) > 0;

/** Units of the data that a node sends and receives in both passes; each tree carries half. */
function units(trees: readonly Tree[], node: number): { sent: number; received: number } {
  let sent = 0;
  let received = 0;
  for (const { parent, children } of trees) {
    const up = (parent[node] as number) >= 0 ? 1 : 0;
    const down = children[node]?.length as number;
    sent += (up + down) / 2;
    received += (up + down) / 2;
  }
  return { sent, received };
}

describe("double trees", () => {
  it("have every node once, two children at most, and a logarithm of levels", () => {
    for (let n = 1; n <= 130; n++) {
      for (const tree of doubleTree(n)) {
        expect(tree.parent.filter((p) => p < 0)).toHaveLength(1);
        expect(treeHeight(tree), `${n} nodes`).toBeLessThanOrEqual(Math.log2(n) + 1);
        tree.children.forEach((below, node) => {
          const known = below.every((child) => tree.parent[child] === node);
          if (below.length > 2 || !known) throw new Error(`node ${node} of ${n}: ${below}`);
        });
      }
    }
  });

  it("make no node an inner one twice, and none send or receive more than two units", () => {
    for (let n = 1; n <= 130; n++) {
      const trees = doubleTree(n);
      for (let node = 0; node < n; node++) {
        const twice = inner(trees[0], node) && inner(trees[1], node);
        const { sent, received } = units(trees, node);
        if (twice || Math.max(sent, received) > 2) throw new Error(`node ${node} of ${n}`);
      }
    }
  });

  it("hang from any root for a reduce or a broadcast", () => {
    for (let n = 1; n <= 40; n++) {
      for (let root = 0; root < n; root++) {
        const trees = rootedTrees(n, root);
        for (const { parent } of trees) expect(parent.indexOf(-1)).toBe(root);
        for (let node = 0; node < n; node++) {
          const twice = inner(trees[0], node) && inner(trees[1], node);
          if (node !== root && twice) throw new Error(`node ${node} of ${n}, root ${root}`);
        }
      }
    }
  });
});

describe("members and lanes", () => {
  it("a node with fewer members serves more lanes each", () => {
    const members = membersOf([6, 0, 1, 2, 5, 4], (rank) => Math.floor(rank / 4));
    expect(members).toEqual({ ranks: [0, 1, 2, 4, 5, 6], nodeStart: [0, 3, 6] });
    const uneven = membersOf([0, 1, 2, 4], (rank) => Math.floor(rank / 4));
    expect(laneCount(uneven)).toBe(3);
    const served = [0, 1, 2].map((lane) => laneServer(uneven, 1, lane));
    expect(served).toEqual([0, 1, 2].map((slot) => ({ member: 3, slot })));
  });
});

describe("the window", () => {
  it("has slots for the lag of the trees, and areas that do not overlap", () => {
    const sets = [
      membersOf(
        Array.from({ length: 17 }, (_, i) => i),
        (r) => Math.floor(r / 4),
      ),
    ];
    const sizes = { chunkBytes: 1000, smallBytes: 300, stageBytes: 5000, maxDevices: 2 };
    const layout = reducerLayout({ sets, staged: true, ...sizes });
    expect(layout.slots).toBeGreaterThan(layout.lag);
    const places = [layout.atHeads, layout.atOwnHead, layout.atLanes, layout.atStage];
    expect([...places, layout.atResult, layout.bytes]).toEqual(
      [...places, layout.atResult, layout.bytes].toSorted((a, b) => a - b),
    );
    // Four lanes, all served by the one member of the last node.
    expect(layout.atStage - layout.atLanes).toBe(4 * 10 * layout.slots * layout.slotBytes);
    expect(layout.smallBytes).toBe(256);
  });
});
