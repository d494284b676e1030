import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import {
  balancedPacking,
  measurePlacement,
  rebalanceExperts,
  replicateExperts,
  toNested,
} from "../src/index.ts";

interface GoldCase {
  readonly id: number;
  readonly num_logical: number;
  readonly num_replicas: number;
  readonly num_groups: number;
  readonly num_nodes: number;
  readonly num_gpus: number;
  readonly policy: "hierarchical" | "global";
  readonly weight: number[][];
  readonly phy2log: number[][];
  readonly logcnt: number[][];
  readonly log2phy_stable: number[][][];
  readonly metrics: {
    readonly maxGpuLoad: number;
    readonly meanGpuLoad: number;
    readonly balancedness: number;
    readonly maxReplicaLoad: number;
  }[];
}

const gold = JSON.parse(readFileSync(new URL("fixtures/eplb.json", import.meta.url), "utf8")) as {
  readonly cases: readonly GoldCase[];
};

const shapeOf = (c: GoldCase) => ({
  numReplicas: c.num_replicas,
  numGroups: c.num_groups,
  numNodes: c.num_nodes,
  numGpus: c.num_gpus,
});

describe("the original's cases", () => {
  it.each(gold.cases.map((c) => [c.id, c] as const))("case %i is exact", (_, c) => {
    const result = rebalanceExperts(c.weight, shapeOf(c));
    const nested = toNested(result);
    expect(nested.phy2log).toEqual(c.phy2log);
    expect(nested.logcnt).toEqual(c.logcnt);
    expect(nested.log2phy).toEqual(c.log2phy_stable);
    const named = rebalanceExperts(c.weight, { ...shapeOf(c), policy: `deepseek-${c.policy}` });
    expect(toNested(named)).toEqual(nested);
  });

  it.each(gold.cases.map((c) => [c.id, c] as const))("case %i measures the same", (_, c) => {
    const result = rebalanceExperts(c.weight, shapeOf(c));
    const report = measurePlacement(c.weight, result, shapeOf(c));
    expect(report).toEqual(result.report);
    expect(report.nodeLimit || c.policy === "global").toBe(true);
    for (const [i, metrics] of c.metrics.entries()) {
      const layer = report.layers[i];
      // The original's sums are float32.
      expect((layer?.maxLoad ?? 0) / metrics.maxGpuLoad).toBeCloseTo(1, 6);
      expect((layer?.meanLoad ?? 0) / metrics.meanGpuLoad).toBeCloseTo(1, 6);
      expect(layer?.balancedness).toBeCloseTo(metrics.balancedness, 6);
      expect((layer?.maxReplicaLoad ?? 0) / metrics.maxReplicaLoad).toBeCloseTo(1, 6);
    }
  });
});

const readme = [
  [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
  [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
];

describe("the original's README example", () => {
  const shape = { numReplicas: 16, numGroups: 4, numNodes: 2, numGpus: 8 };

  it("hierarchical", () => {
    const result = rebalanceExperts(readme, shape);
    const nested = toNested(result);
    expect(nested.phy2log).toEqual([
      [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
      [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
    ]);
    expect(nested.logcnt).toEqual([
      [1, 2, 1, 1, 2, 2, 1, 1, 1, 1, 2, 1],
      [1, 2, 1, 1, 1, 2, 2, 1, 2, 1, 1, 1],
    ]);
    const pairs = (text: string) => text.split(" ").map((pair) => pair.split(",").map(Number));
    expect(nested.log2phy).toEqual([
      pairs("12,-1 15,13 11,-1 6,-1 7,5 0,2 1,-1 3,-1 4,-1 9,-1 8,10 14,-1"),
      pairs("13,-1 15,11 8,-1 14,-1 9,-1 10,12 2,4 0,-1 6,3 7,-1 1,-1 5,-1"),
    ]);
    const [first, second] = result.report.layers;
    expect(Array.from(first?.gpuLoads ?? [])).toEqual([
      121.5, 86.5, 125, 113, 147.5, 131.5, 156, 152,
    ]);
    expect(first?.meanLoad).toBe(129.125);
    expect(Array.from(second?.gpuLoads ?? [])).toEqual([
      173, 179.5, 120.5, 172, 123, 152, 118.5, 117.5,
    ]);
    expect(second?.meanLoad).toBe(144.5);
  });

  it("global, as three groups do not fit two nodes", () => {
    const result = rebalanceExperts(readme, { ...shape, numGroups: 3 });
    expect(toNested(result).phy2log).toEqual([
      [10, 6, 10, 7, 0, 2, 11, 4, 5, 9, 5, 4, 8, 3, 1, 1],
      [1, 10, 2, 4, 5, 11, 5, 0, 6, 7, 6, 3, 8, 8, 9, 7],
    ]);
    expect(result.report.layers.map((layer) => layer.maxLoad)).toEqual([138.5, 172]);
    expect(toNested(rebalanceExperts(readme, { ...shape, policy: "deepseek-global" }))).toEqual(
      toNested(result),
    );
  });
});

describe("the two steps alone", () => {
  it("packs heaviest first to the lightest pack with room, the first on ties", () => {
    expect(balancedPacking([[5, 1, 5, 4, 2, 1]], 2)).toEqual({
      packIndex: [[0, 1, 1, 0, 1, 0]],
      rankInPack: [[0, 2, 0, 1, 1, 2]],
    });
  });

  it("does not sort items that are packs", () => {
    expect(balancedPacking([[1, 3, 2]], 3)).toEqual({
      packIndex: [[0, 1, 2]],
      rankInPack: [[0, 0, 0]],
    });
  });

  it("sums and divides in float32, as the original does", () => {
    // 2^24 + 1 is 2^24 in float32: the first pack stays the lightest, the first, until it is full.
    expect(balancedPacking([[2 ** 24, 2 ** 24, 1, 1, 0.5, 0.5]], 2).packIndex).toEqual([
      [0, 1, 0, 0, 1, 1],
    ]);
    // Different numbers, the same float32: the first expert wins.
    expect(replicateExperts([[10, 10.0000001]], 3).phy2log).toEqual([[0, 1, 0]]);
    // Once more after a division: 99999999 and 300000000 ÷ 3 are the same.
    expect(replicateExperts([[1e8 - 1, 3e8]], 5).logcnt).toEqual([[2, 3]]);
  });

  it("gives slots to the heaviest replica", () => {
    expect(replicateExperts([[6, 1, 9]], 6)).toEqual({
      phy2log: [[0, 1, 2, 2, 0, 2]],
      rank: [[0, 0, 0, 1, 1, 2]],
      logcnt: [[2, 1, 3]],
    });
  });
});
