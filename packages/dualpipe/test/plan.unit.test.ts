// The planner: the same best as trying everything by hand, and reasons for what cannot be.

import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import {
  type BuiltInName,
  buildSchedule,
  builtInNames,
  type PlanOptions,
  peakMemory,
  planPipeline,
  simulate,
} from "../src/index.ts";
import { cutLayers } from "../src/plan/costs.ts";

const share = { F: 1, B: 2, W: 1, parameterBytes: 10, activationBytes: 1 };
const seed = testSeed();
const random = seededRandom(seed);

const label = (one: { schedule: string; numMicroBatches: number }): string =>
  `${one.schedule} ${one.numMicroBatches}`;

describe("ranking", () => {
  it("agrees with building and simulating each candidate alone", () => {
    for (let round = 0; round < 20; round++) {
      const numRanks = random.pick([2, 4, 6]);
      const counts = [random.int(1, 9), random.int(9, 20), random.int(20, 30)];
      const F = random.int(1, 9) / 4;
      const B = F * (1 + random.int(1, 5) / 4);
      const W = B / random.pick([2, 4]);
      const latency = random.int(0, 4) / 8;
      const overlapShare = random.pick([0.75, 0.875, 1]);
      const limit = random.pick([18, 25, 30, 1000]);
      const alone: { name: BuiltInName; M: number; perMicroBatch: number }[] = [];
      for (const name of builtInNames) {
        for (const M of counts) {
          try {
            const schedule = buildSchedule(name, {
              numRanks,
              numMicroBatches: M,
              ...(name === "interleaved-1f1b" && { chunksPerRank: 2 }),
            });
            const part = numRanks / schedule.numStages;
            const times = {
              F: F * part,
              B: B * part,
              W: W * part,
              FB: { shareOfSum: overlapShare },
            };
            const memory = { activationBytes: part, parameterBytes: 10 * part };
            const { bytes = [] } = peakMemory(schedule, memory);
            if (Math.max(...bytes) > limit) continue;
            const { makespan } = simulate(schedule, times, { communication: { latency } });
            alone.push({ name, M, perMicroBatch: makespan / M });
          } catch {
            // A count that this schedule does not take.
          }
        }
      }
      const { plans, infeasible } = planPipeline({
        numRanks,
        share: { F, B, W, parameterBytes: 10, activationBytes: 1 },
        numMicroBatches: counts,
        overlapShare,
        communication: { latency },
        memoryLimitBytes: limit,
      });
      const message = `seed ${seed}, round ${round}`;
      expect(plans.length, message).toBe(alone.length);
      expect(plans.length + infeasible.length, message).toBe(builtInNames.length * counts.length);
      for (const { name, M, perMicroBatch } of alone) {
        const plan = plans.find((one) => one.schedule === name && one.numMicroBatches === M);
        expect(plan?.timePerMicroBatch, message).toBeCloseTo(perMicroBatch, 10);
      }
      const best = Math.min(...alone.map((one) => one.perMicroBatch));
      if (plans[0] !== undefined) expect(plans[0].timePerMicroBatch, message).toBeCloseTo(best, 10);
      const order = plans.map((plan) => plan.timePerMicroBatch);
      expect(order, message).toEqual(order.toSorted((a, b) => a - b));
    }
  });

  it("counts DualPipe's second copy, and DualPipeV's stages at their size", () => {
    const { plans } = planPipeline({ numRanks: 8, share, numMicroBatches: [16] });
    const of = (name: BuiltInName) => plans.find((plan) => plan.schedule === name);
    expect(of("dualpipe")).toMatchObject({
      numStages: 8,
      parameterCopies: 2,
      parameterBytes: 20,
      peakActivations: 9,
      peakBytes: 29,
    });
    expect(of("dualpipev")).toMatchObject({
      numStages: 16,
      parameterCopies: 1,
      parameterBytes: 10,
      peakActivations: 8.5,
      peakBytes: 18.5,
    });
    expect(of("1f1b")).toMatchObject({ parameterBytes: 10, peakActivations: 8, peakBytes: 18 });
  });

  it("gives equals to the one that needs less, and the same list each time", () => {
    const options: PlanOptions = { numRanks: 2, share, numMicroBatches: [8, 4] };
    const first = planPipeline(options);
    expect(planPipeline(options)).toEqual(first);
    const byTime = Map.groupBy(first.plans, (plan) => plan.timePerMicroBatch.toPrecision(12));
    const tied = [...byTime.values()].filter((group) => group.length > 1);
    expect(tied.length).toBeGreaterThan(0);
    for (const group of tied) {
      const bytes = group.map((plan) => plan.peakBytes);
      expect(bytes).toEqual(bytes.toSorted((a, b) => a - b));
    }
  });

  it("splits devices into pipelines side by side", () => {
    const { plans, infeasible } = planPipeline({
      numRanks: 8,
      pipelineDepths: [4, 8],
      schedules: ["1f1b"],
      share,
      numMicroBatches: [32, 33],
    });
    const shallow = plans.find((plan) => plan.pipelineDepth === 4);
    // Two pipelines of 4 ranks: 16 micro-batches each, each stage a fourth of the model.
    expect(shallow).toMatchObject({ numPipelines: 2, numMicroBatches: 16, numStages: 4 });
    expect(shallow?.makespan).toBe(2 * (16 + 3) * 3);
    expect(shallow?.timePerMicroBatch).toBe(114 / 32);
    expect(infeasible).toMatchObject([
      {
        pipelineDepth: 4,
        constraint: "numMicroBatches",
        reason: "33 micro-batches do not divide into 2 pipelines",
      },
    ]);
  });

  it("weighs small micro-batches against what each computation costs anyway", () => {
    const best = (overhead: number): number | undefined =>
      planPipeline({
        numRanks: 4,
        schedules: ["1f1b"],
        share,
        overhead,
        batch: { tokens: 65_536, microBatchTokens: [512, 1024, 2048, 4096], costTokens: 1024 },
      }).plans[0]?.microBatchTokens;
    expect(best(0)).toBe(512);
    expect(best(0.05)).toBe(1024);
    expect(best(2)).toBe(4096);
  });

  it("scales activations and bytes on the wire with tokens", () => {
    const { plans } = planPipeline({
      numRanks: 2,
      schedules: ["1f1b"],
      share,
      communication: { bytes: 8, bandwidth: 16 },
      batch: { tokens: 8, microBatchTokens: [2], costTokens: 1 },
    });
    // 4 micro-batches of twice the cost: 5 · 6, two hops of 1 at the ends, hops between hidden or
    // not.
    expect(plans[0]).toMatchObject({ numMicroBatches: 4, peakBytes: 14 });
    const alone = simulate(
      buildSchedule("1f1b", { numRanks: 2, numMicroBatches: 4 }),
      { F: 2, B: 4 },
      { communication: { latency: 1 } },
    );
    expect(plans[0]?.makespan).toBe(alone.makespan);
  });
});

describe("what cannot be", () => {
  it("is listed with the constraint and its numbers", () => {
    const { plans, infeasible } = planPipeline({
      numRanks: 4,
      share,
      numMicroBatches: [6],
      memoryLimitBytes: 14,
      activationLimit: 6,
    });
    const reasons = Object.fromEntries(infeasible.map((one) => [label(one), one]));
    expect(reasons["interleaved-1f1b 6"]?.constraint).toBe("numMicroBatches");
    expect(reasons["dualpipe 6"]?.reason).toContain("numMicroBatches is 6");
    expect(plans.map(label).toSorted()).toEqual(["1f1b 6", "zb1p 6", "zbv 6"]);

    const tight = planPipeline({
      numRanks: 4,
      share,
      numMicroBatches: [8],
      memoryLimitBytes: 13,
    });
    expect(tight.plans).toEqual([]);
    expect(new Set(tight.infeasible.map((one) => one.constraint))).toEqual(
      new Set(["memoryLimitBytes"]),
    );
    expect(tight.infeasible[0]?.reason).toBe(
      "rank 0 needs 14 bytes (10 of parameters, 4 of activations); the limit is 13",
    );
    const held = planPipeline({
      numRanks: 4,
      share,
      numMicroBatches: [8],
      schedules: ["dualpipe"],
      activationLimit: 4,
    });
    expect(held.infeasible).toMatchObject([
      {
        constraint: "activationLimit",
        reason: "rank 0 holds 5 micro-batches of its share; the limit is 4",
      },
    ]);
  });

  it("is thrown where it holds for all", () => {
    const plan = (options: Partial<PlanOptions>) => () =>
      planPipeline({ numRanks: 4, share, numMicroBatches: [8], ...options });
    expect(plan({ numRanks: 0 })).toThrow("numRanks is 0; expected a whole number from 1");
    expect(plan({ layers: [share] })).toThrow("share and layers is both; expected one of them");
    expect(plan({ batch: { tokens: 1, microBatchTokens: [1], costTokens: 1 } })).toThrow("both");
    expect(plan({ pipelineDepths: [3] })).toThrow("divisors of numRanks, 4");
    expect(plan({ overlapShare: 0 })).toThrow("overlapShare is 0");
    expect(plan({ share: { F: 1, B: 1, W: 2 } })).toThrow("share.W is 2; expected at most share.B");
    expect(plan({ share: { F: 1, B: 2, activationBytes: 4, weightGradBytes: 5 } })).toThrow(
      "share.weightGradBytes is 5; expected at most share.activationBytes, 4",
    );
    expect(plan({ share: { F: 1, B: 2 }, memoryLimitBytes: 100 })).toThrow(
      "memoryLimitBytes is 100; expected no limit where no cost has",
    );
    expect(plan({ memoryLimitBytes: Number.NaN })).toThrow("memoryLimitBytes is NaN");
    expect(plan({ activationLimit: 0 })).toThrow("activationLimit is 0; expected a number above 0");
    expect(plan({ communication: { latency: -1 } })).toThrow("latency(0, 1) is -1");
    expect(plan({ numMicroBatches: [1.5] })).toThrow("numMicroBatches[0] is 1.5");
  });
});

describe("layers", () => {
  it("are cut so that the slowest stage is as fast as possible", () => {
    for (let round = 0; round < 100; round++) {
      const weights = Array.from({ length: random.int(1, 10) }, () => random.int(0, 20));
      const parts = random.int(1, weights.length + 1);
      const loads = (bounds: readonly number[]): number[] =>
        bounds.slice(1).map((to, i) => weights.slice(bounds[i], to).reduce((a, b) => a + b, 0));
      let best: readonly [number, number] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
      const visit = (bounds: readonly number[]): void => {
        const last = bounds.at(-1) as number;
        if (bounds.length === parts) {
          const of = loads([...bounds, weights.length]);
          const key = [Math.max(...of), of.reduce((sum, load) => sum + load * load, 0)] as const;
          if (key[0] < best[0] || (key[0] === best[0] && key[1] < best[1])) best = key;
          return;
        }
        for (let to = last + 1; to < weights.length; to++) visit([...bounds, to]);
      };
      visit([0]);
      const got = loads(cutLayers(weights, parts));
      const message = `seed ${seed}, round ${round}: ${weights} in ${parts}`;
      expect(got.length, message).toBe(parts);
      expect(Math.max(...got), message).toBe(best[0]);
      expect(
        got.reduce((sum, load) => sum + load * load, 0),
        message,
      ).toBe(best[1]);
    }
  });

  it("make uneven stages, which the makespan shows", () => {
    const layers = [
      { F: 1, B: 2 },
      { F: 1, B: 2 },
      { F: 1, B: 2 },
      { F: 4, B: 8 },
    ];
    const { plans, infeasible } = planPipeline({
      numRanks: 2,
      layers,
      numMicroBatches: [4],
      schedules: ["1f1b", "zbv", "interleaved-1f1b"],
      chunksPerRank: [4],
    });
    const plan = plans.find(({ schedule }) => schedule === "1f1b");
    expect(plan?.layerBounds).toEqual([0, 3, 4]);
    expect(plan?.makespan).toBe(3 + 4 * 12 + 6);
    expect(plans.find(({ schedule }) => schedule === "zbv")?.layerBounds).toEqual([0, 1, 2, 3, 4]);
    expect(infeasible).toMatchObject([
      { constraint: "layers", reason: "layers is 4; expected at least 8, one a stage" },
    ]);
  });
});
