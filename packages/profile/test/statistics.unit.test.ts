// Quantiles against sorting, on data with many and with few different values.

import { distribution } from "@open-infra/profile/analyze";
import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";

describe("distribution", () => {
  it("gives what sorting gives", () => {
    const random = seededRandom(testSeed());
    for (let round = 0; round < 400; round++) {
      const count = random.int(1, 90);
      const distinct = random.pick([1, 2, 5, 1000]);
      const values = Float64Array.from({ length: count }, () => random.int(-3, distinct) / 8);
      const sorted = [...values].sort((a, b) => a - b);
      const at = (i: number) => sorted[Math.max(0, i)] as number;
      const round3 = (value: number) => Math.round(value * 1000) / 1000;
      expect(distribution(values), `seed ${random.seed}, round ${round}`).toEqual({
        count,
        minUs: round3(at(0)),
        medianUs: round3((at((count - 1) >> 1) + at(count >> 1)) / 2),
        p90Us: round3(at(Math.max(count >> 1, Math.ceil(0.9 * count) - 1))),
        p99Us: round3(at(Math.max(count >> 1, Math.ceil(0.99 * count) - 1))),
        maxUs: round3(at(count - 1)),
        meanUs: round3(sorted.reduce((a, b) => a + b, 0) / count),
      });
    }
  });

  it("of nothing is 0", () => {
    expect(distribution(new Float64Array(0))).toMatchObject({ count: 0, medianUs: 0, p99Us: 0 });
  });
});
