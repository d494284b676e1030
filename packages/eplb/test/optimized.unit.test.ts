import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import {
  type EplbShape,
  type PolicyName,
  placementFrom,
  type Rebalanced,
  rebalanceExperts,
  toNested,
} from "../src/index.ts";
import { bruteForce, keepsGroups } from "./brute-force.ts";
import { drawLoads, drawShape, lognormal } from "./draw.ts";

const readme = [
  [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
  [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
];
const readmeShape = { numReplicas: 16, numGroups: 4, numNodes: 2, numGpus: 8 };

const maxima = (result: Rebalanced): number[] => result.report.layers.map((l) => l.maxLoad);

/** What every placement must be, whoever made it. */
function expectSound(result: Rebalanced, weight: number[][], shape: EplbShape, hint: string): void {
  const { phy2log, log2phy, logcnt } = toNested(result);
  // `placementFrom` checks that every expert is there.
  const again = toNested(placementFrom(phy2log, (weight[0] as number[]).length));
  expect(logcnt, hint).toEqual(again.logcnt);
  for (const [layer, experts] of log2phy.entries()) {
    for (const [expert, slots] of experts.entries()) {
      const real = slots.filter((slot) => slot >= 0);
      expect(real.length, hint).toBe(logcnt[layer]?.[expert]);
      for (const slot of real) expect(phy2log[layer]?.[slot], hint).toBe(expert);
    }
  }
  for (const layer of result.report.layers) {
    expect(layer.lowerBound, hint).toBeLessThanOrEqual(layer.maxLoad);
    const total = layer.nodeLoads.reduce((a, b) => a + b, 0);
    expect(total / Math.max(1e-9, layer.meanLoad * shape.numGpus), hint).toBeCloseTo(
      total > 0 ? 1 : 0,
      9,
    );
  }
}

describe("optimized", () => {
  it("reaches the known optima of the README example, and proves them", () => {
    const limited = rebalanceExperts(readme, { ...readmeShape, policy: "optimized" });
    expect(maxima(limited)).toEqual([151, 179.5]);
    expect(limited.report).toMatchObject({ nodeLimit: true, worstGap: 0, duplicates: 0 });
    const global = rebalanceExperts(readme, { ...readmeShape, policy: "optimized-global" });
    expect(maxima(global)).toEqual([136, 172]);
    expect(global.report).toMatchObject({ worstGap: 0, duplicates: 0 });
  });

  it("reaches 196.67 where the original has 232", () => {
    const weight = [[600, 560, 120, 120, 20, 10, 10, 10]];
    const shape = { numReplicas: 16, numGroups: 1, numNodes: 1, numGpus: 8 };
    const result = rebalanceExperts(weight, { ...shape, policy: "optimized" });
    expect(maxima(rebalanceExperts(weight, shape))[0]).toBe(232);
    expect(maxima(result)[0]).toBeCloseTo(560 / 3 + 10, 9);
    expect(result.report.worstGap).toBe(0);
  });

  it("is never heavier than the original, sound, and without avoidable duplicates", () => {
    const seed = testSeed();
    const random = seededRandom(seed);
    for (let round = 0; round < 100; round++) {
      const { shape, numLogical } = drawShape(random);
      const weight = drawLoads(random, 2, numLogical);
      const hint = `seed ${seed}, round ${round}, ${JSON.stringify({ shape, weight })}`;
      for (const suffix of ["", "-global"]) {
        const original = (suffix === "" ? "deepseek" : "deepseek-global") as PolicyName;
        const policy = `optimized${suffix}` as PolicyName;
        const theirs = rebalanceExperts(weight, { ...shape, policy: original });
        const ours = rebalanceExperts(weight, { ...shape, policy });
        expectSound(ours, weight, shape, hint);
        if (suffix === "") expect(ours.report.nodeLimit, hint).toBe(true);
        const nodes = suffix === "" ? shape.numNodes : 1;
        const avoidable = shape.numReplicas / shape.numGpus <= numLogical / nodes;
        const tidy = rebalanceExperts(weight, { ...shape, policy, duplicates: "never" });
        if (avoidable) expect(tidy.report.duplicates, hint).toBe(0);
        for (const [i, layer] of ours.report.layers.entries()) {
          const limit = (theirs.report.layers[i]?.maxLoad ?? 0) * (1 + 1e-9);
          expect(layer.maxLoad, hint).toBeLessThanOrEqual(limit);
          const tidyLayer = tidy.report.layers[i];
          // A duplicate stays only where the original is lighter than all we found without.
          if (avoidable && layer.duplicates > 0) {
            expect(tidyLayer?.maxLoad, hint).toBeGreaterThan(limit);
          }
        }
      }
    }
  });

  it("keeps every group on one node", () => {
    const random = seededRandom(testSeed());
    const shape = { numReplicas: 72, numGroups: 8, numNodes: 4, numGpus: 8 };
    const weight = Array.from({ length: 4 }, () => lognormal(random, 64));
    const result = rebalanceExperts(weight, { ...shape, policy: "optimized" });
    for (let layer = 0; layer < 4; layer++) {
      const slots = result.phy2log.subarray(layer * 72, (layer + 1) * 72);
      expect(keepsGroups(slots, 64, shape), `seed ${random.seed}`).toBe(true);
    }
  });

  it("finds the optimum of tiny layers, and no bound is above it", () => {
    const seed = testSeed();
    const random = seededRandom(seed);
    for (let round = 0; round < 150; ) {
      const { shape, numLogical } = drawShape(random, 3);
      if (numLogical > 6 || numLogical ** shape.numReplicas > 60_000) continue;
      round++;
      const weight = drawLoads(random, 1, numLogical);
      const best = bruteForce(weight[0] as number[], shape);
      const hint = `seed ${seed}, round ${round}, ${JSON.stringify({ shape, weight, best })}`;
      const slack = 1 + 1e-9;
      const perGpu = shape.numReplicas / shape.numGpus;

      const global = rebalanceExperts(weight, { ...shape, policy: "optimized-global" }).report;
      const limited = rebalanceExperts(weight, { ...shape, policy: "optimized" }).report;
      const g = global.layers[0];
      const n = limited.layers[0];
      if (g === undefined || n === undefined) throw new Error("unreachable");
      const bound = global.nodeLimit ? best.nodeLimit : best.any;
      expect(g.lowerBound, hint).toBeLessThanOrEqual(bound * slack);
      expect(n.lowerBound, hint).toBeLessThanOrEqual(best.nodeLimit * slack);
      const free = perGpu <= numLogical ? best.noDuplicates : best.any;
      expect(g.maxLoad, hint).toBeLessThanOrEqual(free * slack);
      const node = perGpu <= numLogical / shape.numNodes ? best.both : best.nodeLimit;
      expect(n.maxLoad, hint).toBeLessThanOrEqual(node * slack);
    }
  });

  it("comes within 0.1 % of the bound on large layers, the original does not", () => {
    const random = seededRandom(testSeed());
    const weight = Array.from({ length: 8 }, () => lognormal(random, 256));
    const shape = { numReplicas: 288, numGroups: 8, numNodes: 4, numGpus: 32 };
    for (const [policy, original] of [
      ["optimized", "deepseek"],
      ["optimized-global", "deepseek-global"],
    ] as const) {
      const ours = rebalanceExperts(weight, { ...shape, policy }).report;
      const theirs = rebalanceExperts(weight, { ...shape, policy: original }).report;
      expect(ours.worstGap, `seed ${random.seed}`).toBeLessThan(1e-3);
      expect(theirs.worstGap, `seed ${random.seed}`).toBeGreaterThan(1e-3);
      expect(ours.meanMaxOverMean).toBeLessThan(theirs.meanMaxOverMean);
    }
  });

  it("deals many groups to nodes by their bounds", () => {
    const random = seededRandom(testSeed());
    const weight = Array.from({ length: 3 }, () => lognormal(random, 256));
    const shape = { numReplicas: 384, numGroups: 32, numNodes: 4, numGpus: 64 };
    const ours = rebalanceExperts(weight, { ...shape, policy: "optimized" }).report;
    const theirs = rebalanceExperts(weight, shape).report;
    expect(ours.nodeLimit).toBe(true);
    for (const [i, layer] of ours.layers.entries()) {
      expect(layer.maxLoad).toBeLessThanOrEqual(theirs.layers[i]?.maxLoad ?? 0);
    }
    expect(ours.meanMaxOverMean).toBeLessThan(theirs.meanMaxOverMean - 0.01);
  });

  it("is deterministic, and a layer does not depend on the others", () => {
    const random = seededRandom(testSeed());
    const weight = Array.from({ length: 3 }, () => lognormal(random, 64));
    const options = {
      numReplicas: 80,
      numGroups: 8,
      numNodes: 4,
      numGpus: 16,
      policy: "optimized",
    } as const;
    const all = toNested(rebalanceExperts(weight, options)).phy2log;
    expect(toNested(rebalanceExperts(weight, options)).phy2log).toEqual(all);
    for (const [i, row] of weight.entries()) {
      expect(toNested(rebalanceExperts([row], options)).phy2log[0]).toEqual(all[i]);
    }
  });

  it("takes layers without any load, and one GPU for everything", () => {
    const shape = { numReplicas: 8, numGroups: 2, numNodes: 2, numGpus: 4 };
    const idle = rebalanceExperts([[0, 0, 0, 0]], { ...shape, policy: "optimized" });
    expect(idle.report).toMatchObject({ worstMaxOverMean: 1, balancedness: 1, worstGap: 0 });
    const one = { numReplicas: 4, numGroups: 1, numNodes: 1, numGpus: 1 };
    const alone = rebalanceExperts([[1, 2]], { ...one, policy: "optimized" });
    // Four slots for two experts on one GPU: two duplicates that nothing can avoid.
    expect(alone.report).toMatchObject({ worstMaxOverMean: 1, duplicates: 2 });
  });
});
