import { runThreads } from "@open-infra/ranks";
import { testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { planBuckets } from "../src/buckets.ts";

describe("buckets", () => {
  it("are filled from the last gradient on, the first one small, one dtype each", () => {
    const mib = 1 << 20;
    const specs = [4, 4, 4, 0.5, 0.25].map((m) => ({
      shape: [(m * mib) / 4],
      dtype: "f32" as const,
    }));
    expect(planBuckets(specs, { bucketBytes: 8 * mib })).toEqual([[4, 3], [2, 1], [0]]);
    const mixed = specs.map((spec, i) => ({
      ...spec,
      dtype: i % 2 ? ("f32" as const) : ("bf16" as const),
    }));
    expect(planBuckets(mixed)).toEqual([[4], [3, 1], [2, 0]]);
    expect(planBuckets([])).toEqual([]);
  });

  it("combine gradients that become ready in any order, and begin before all are", async () => {
    const module = new URL("./ranks/buckets.ts", import.meta.url);
    const options = { size: 3, ranksPerNode: 2, timeoutMs: 20_000, module, data: testSeed() };
    const all = await runThreads<{ begunEarly: number }>(options);
    for (const one of all) {
      expect(one).toMatchObject({ sums: [3, null, 9, 12], buckets: 4 });
      expect(one).toMatchObject({ refused: expect.stringContaining("a second time") });
    }
    expect(Math.max(...all.map(({ begunEarly }) => begunEarly))).toBeGreaterThan(0);
  });
});
