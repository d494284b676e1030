// Load statistics against sums taken the slow way, and what they refuse.

import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import {
  flattenLoads,
  LoadEma,
  LoadWindow,
  loadRows,
  loadsFromSlots,
  mergeLoads,
  routeSlots,
} from "../src/index.ts";

const seed = testSeed();
const size = { numLayers: 2, numLogical: 3 };

describe("LoadWindow", () => {
  it.each([
    [7, 1],
    [12, 4],
    [1, 1],
  ])("is the mean of the last %d steps in buckets of %d", (windowSteps, bucketSteps) => {
    const random = seededRandom(seed);
    const window = new LoadWindow({ ...size, windowSteps, bucketSteps });
    const all: number[][] = [];
    for (let step = 1; step <= 40; step++) {
      const counts = Array.from({ length: 6 }, () => random.int(0, 1000));
      all.push(counts);
      window.observe(counts);
      // Whole buckets leave together: the window holds between windowSteps − bucketSteps + 1 and
      // windowSteps steps.
      const filling = ((step - 1) % bucketSteps) + 1;
      const covered = Math.min(step, windowSteps - bucketSteps + filling);
      const wanted = counts.map(
        (_, i) => all.slice(-covered).reduce((sum, row) => sum + (row[i] as number), 0) / covered,
      );
      expect([...window.loads()], `seed ${seed} step ${step}`).toEqual(wanted);
    }
    expect(window.steps).toBe(40);
  });

  it("does not gather rounding errors of fractions", () => {
    const window = new LoadWindow({ numLayers: 1, numLogical: 1, windowSteps: 10 });
    window.observe([1e20]);
    for (let step = 0; step < 30; step++) window.observe([0.1]);
    expect(window.loads()[0]).toBeCloseTo(0.1, 12);
  });

  it("starts with zeros, forgets on reset, writes where it is told", () => {
    const window = new LoadWindow({ ...size, windowSteps: 3 });
    const out = new Float64Array(6);
    expect(window.loads(out)).toBe(out);
    expect([...out]).toEqual([0, 0, 0, 0, 0, 0]);
    window.observe([1, 2, 3, 4, 5, 6]);
    expect([...window.loads()]).toEqual([1, 2, 3, 4, 5, 6]);
    window.reset();
    expect(window.steps).toBe(0);
    expect([...window.loads()]).toEqual([0, 0, 0, 0, 0, 0]);
  });

  it("names what it refuses", () => {
    expect(() => new LoadWindow({ ...size, windowSteps: 10, bucketSteps: 3 })).toThrow(
      "windowSteps is 10; expected a multiple of bucketSteps (3)",
    );
    expect(() => new LoadWindow({ ...size, numLayers: 0 })).toThrow("numLayers is 0");
    expect(() => new LoadWindow({ ...size, windowSteps: 2 ** 40 })).toThrow(
      "windowSteps is 1099511627776 buckets × 2 layers × 3 experts; expected at most 134217728",
    );
    const window = new LoadWindow({ ...size, windowSteps: 2 });
    expect(() => window.observe([1, 2])).toThrow("counts is an array of 2; expected 2 layers × 3");
    expect(() => window.observe([0, 0, 0, 0, -1, 0])).toThrow("counts[1][1] is -1");
    expect(() => window.observe([0, 0, Number.NaN, 0, 0, 0])).toThrow("counts[0][2] is NaN");
    expect(window.steps).toBe(0);
  });
});

describe("LoadEma", () => {
  it("weighs steps by their age and is not drawn to zero at the start", () => {
    const random = seededRandom(seed);
    const ema = new LoadEma({ numLayers: 1, numLogical: 1, timeConstantSteps: 5 });
    const all: number[] = [];
    for (let step = 0; step < 30; step++) {
      all.push(random.int(0, 1000));
      ema.observe([all.at(-1) as number]);
      const weights = all.map((_, i) => Math.exp(-(step - i) / 5));
      const total = weights.reduce((sum, weight) => sum + weight, 0);
      const wanted = all.reduce((sum, x, i) => sum + x * (weights[i] as number), 0) / total;
      expect(ema.loads()[0], `seed ${seed} step ${step}`).toBeCloseTo(wanted, 6);
    }
    ema.reset();
    expect(ema.loads()[0]).toBe(0);
  });

  it("refuses a time constant that is not positive", () => {
    expect(() => new LoadEma({ ...size, timeConstantSteps: 0 })).toThrow("timeConstantSteps is 0");
  });
});

describe("counts", () => {
  it("of ranks add up", () => {
    expect([...mergeLoads([Int32Array.of(1, 2), [3, 4], Float32Array.of(5, 6)])]).toEqual([9, 12]);
    expect(() => mergeLoads([[1, 2], [1]])).toThrow(
      "parts[1] is an array of 1; expected 2 numbers",
    );
    expect(() => mergeLoads([])).toThrow("parts is an empty list");
  });

  it("of slots become loads of experts, replicas together", () => {
    const shape = { numLayers: 2, numLogical: 2, numReplicas: 4, numGpus: 2 };
    const routing = routeSlots(Int32Array.of(0, 1, 1, -1, 1, 0, 0, 1), shape);
    const loads = loadsFromSlots([1, 2, 4, 0, 8, 16, 32, 64], routing);
    expect([...loads]).toEqual([1, 6, 48, 72]);
    expect(() => loadsFromSlots([1, 2, 4, 9, 8, 16, 32, 64], routing)).toThrow(
      "slotCounts[0][3] is 9; expected 0: the placement does not route to this slot",
    );
    expect(() => loadsFromSlots([1], routing)).toThrow("2 layers × 4 slots = 8 numbers");
  });

  it("go from rows to flat and back", () => {
    const flat = flattenLoads([
      [1, 2],
      [3, 4],
    ]);
    expect([...flat]).toEqual([1, 2, 3, 4]);
    expect(loadRows(flat, 2).map((row) => [...row])).toEqual([
      [1, 2],
      [3, 4],
    ]);
    expect(() => flattenLoads([[1, 2], [3]])).toThrow("loads[1] is a row of 1");
  });
});
