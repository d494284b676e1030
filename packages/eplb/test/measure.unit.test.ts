import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { rebalanceStraight } from "../bench/straight-port.ts";
import {
  measurePlacement,
  placementFrom,
  rebalanceExperts,
  replicateExperts,
  toNested,
} from "../src/index.ts";
import { groupPartitions } from "../src/partitions.ts";

describe("measurePlacement", () => {
  it("says all there is to say about a small placement", () => {
    const shape = { numReplicas: 8, numGroups: 2, numNodes: 2, numGpus: 4 };
    // GPU loads: 8/2 + 2, 8/2 + 2, 6/3 + 6/3, 6/3 + 4.
    const placement = placementFrom([[0, 1, 0, 1, 2, 2, 2, 3]], 4);
    const from = placementFrom([[0, 1, 0, 1, 3, 2, 2, 3]], 4);
    const report = measurePlacement([[8, 4, 6, 4]], placement, shape, { from });
    const layer = report.layers[0];
    expect(Array.from(layer?.gpuLoads ?? [])).toEqual([6, 6, 4, 6]);
    expect(Array.from(layer?.nodeLoads ?? [])).toEqual([12, 10]);
    expect(layer).toMatchObject({
      maxLoad: 6,
      meanLoad: 5.5,
      maxOverMean: 6 / 5.5,
      balancedness: 5.5 / 6,
      maxReplicaLoad: 4,
      lowerBound: 6,
      gap: 0,
      duplicates: 1,
      movedSlots: 1,
    });
    expect(layer?.variation).toBeCloseTo(Math.sqrt(0.75) / 5.5, 12);
    expect(report).toMatchObject({
      nodeLimit: true,
      balancedness: 5.5 / 6,
      worstGap: 0,
      duplicates: 1,
      movedSlots: 1,
      movedShare: 1 / 8,
    });
  });

  it("counts no move for slots exchanged inside a GPU", () => {
    const shape = { numReplicas: 4, numGroups: 1, numNodes: 1, numGpus: 2 };
    const a = placementFrom([[0, 1, 2, 0]], 3);
    const b = placementFrom([[1, 0, 0, 2]], 3);
    expect(measurePlacement([[1, 1, 1]], b, shape, { from: a }).movedSlots).toBe(0);
  });

  it("weighs layers by their load in the total balancedness", () => {
    const shape = { numReplicas: 2, numGroups: 1, numNodes: 1, numGpus: 2 };
    const placement = placementFrom(
      [
        [0, 1],
        [0, 1],
      ],
      2,
    );
    const weight = [
      [1, 1],
      [30, 10],
    ];
    const report = measurePlacement(weight, placement, shape);
    expect(report.balancedness).toBe((1 + 20) / (1 + 30));
    expect(report.meanMaxOverMean).toBe((1 + 1.5) / 2);
  });

  it("survives JSON", () => {
    const shape = { numReplicas: 4, numGroups: 1, numNodes: 1, numGpus: 2 };
    const result = rebalanceExperts([[3, 2, 1]], shape);
    const copy = JSON.parse(JSON.stringify(toNested(result)));
    expect(toNested(placementFrom(copy.phy2log, 3)).logcnt).toEqual(copy.logcnt);
    expect(structuredClone(result).report.worstGap).toBe(result.report.worstGap);
  });
});

describe("the original's policy", () => {
  it("is what a straight port gives, at sizes that take every path", () => {
    const seed = testSeed();
    const random = seededRandom(seed);
    const sizes = [
      [64, 96, 8, 4, 8],
      [64, 64, 8, 4, 32],
      [64, 128, 4, 4, 128],
      [96, 192, 6, 3, 48],
      [160, 480, 1, 1, 96],
      [256, 320, 8, 8, 64],
      [256, 512, 3, 2, 64],
      [512, 640, 8, 2, 64],
    ] as const;
    for (const [experts, numReplicas, numGroups, numNodes, numGpus] of sizes) {
      // Different loads: a permutation with gaps, so that no two experts tie.
      const weight = Array.from({ length: 3 }, () =>
        Array.from({ length: experts }, (_, i) => i * 97 + random.int(1, 97)).sort(
          () => random.next() - 0.5,
        ),
      );
      const shape = { numReplicas, numGroups, numNodes, numGpus };
      const [phy2log, log2phy, logcnt] = rebalanceStraight(weight, shape);
      const hint = `seed ${seed}, ${JSON.stringify(shape)}`;
      expect(toNested(rebalanceExperts(weight, shape)), hint).toEqual({ phy2log, log2phy, logcnt });
    }
  });

  it("gives the lowest maximum load of a replica", () => {
    const seed = testSeed();
    const random = seededRandom(seed);
    for (let round = 0; round < 100; round++) {
      const n = random.int(1, 12);
      const slots = n + random.int(0, 20);
      const loads = Array.from({ length: n }, () => random.int(1, 100));
      const counts = replicateExperts([loads], slots).logcnt[0] as number[];
      const most = Math.max(...loads.map((load, e) => load / (counts[e] as number)));
      // Anything lower needs more slots than there are.
      const needed = loads.reduce((sum, load) => sum + Math.floor(load / most + 1e-6) + 1, 0);
      const tight = loads.reduce((sum, load) => sum + Math.ceil(load / most - 1e-6), 0);
      expect(tight, `seed ${seed}, round ${round}`).toBeLessThanOrEqual(slots);
      expect(needed, `seed ${seed}, round ${round}`).toBeGreaterThan(slots);
    }
  });

  it("takes typed arrays, and does not look at them later", () => {
    const weight = [Float32Array.of(5, 4, 3, 2), Float32Array.of(1, 2, 3, 4)];
    const shape = { numReplicas: 8, numGroups: 2, numNodes: 2, numGpus: 4 };
    const result = rebalanceExperts(weight, shape);
    const expected = rebalanceExperts(
      weight.map((row) => Array.from(row)),
      shape,
    );
    weight[0]?.fill(0);
    expect(toNested(result)).toEqual(toNested(expected));
    expect(result.report).toEqual(expected.report);
  });
});

describe("partitions of groups into nodes", () => {
  it("are all there, once", () => {
    expect(groupPartitions(4, 2)?.partitions).toHaveLength(3);
    expect(groupPartitions(8, 4)?.partitions).toHaveLength(105);
    expect(groupPartitions(8, 8)?.partitions).toHaveLength(1);
    expect(groupPartitions(8, 1)?.partitions).toHaveLength(1);
    expect(groupPartitions(8, 4)?.subsets).toHaveLength(28);
    expect(groupPartitions(16, 4)).toBeUndefined();
    const six = groupPartitions(6, 2);
    const names = six?.partitions.map((p) => p.map((s) => six.subsets[s]?.join("")).join("|"));
    expect(new Set(names).size).toBe(10);
  });
});
