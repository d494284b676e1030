// The closed formulas against a run of the schedule, wherever they claim to be exact, and against
// the numbers of the papers.

import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import {
  activationCurve,
  bubbleFormula,
  buildSchedule,
  builtInNames,
  dualPipe,
  peakActivations,
  type RankOps,
  zeroBubbleRates,
} from "../src/index.ts";
import { oracle } from "./oracle.ts";

const seed = testSeed();

describe("closed formulas", () => {
  it("give the run's idle time and makespan where they say they are exact", () => {
    const random = seededRandom(seed);
    let exact = 0;
    for (let n = 0; n < 300; n++) {
      const name = random.pick(builtInNames);
      const numRanks = name === "dualpipe" ? 2 * random.int(1, 4) : random.int(1, 6);
      const numMicroBatches = random.int(1, 4) * random.pick([numRanks, 2 * numRanks, 3]);
      const third = random.pick([1, 0.5, 2.25]);
      const times = random.pick([
        { F: third, B: 2 * third, W: third, FB: 3 * third },
        { F: third, B: 2 * third, W: third, FB: random.pick([2, 2.5]) * third },
        { F: 1, B: 2.25, W: 0.75, FB: 3 },
      ]);
      const options = { numRanks, numMicroBatches };
      const label = `seed ${seed}, ${name} ${JSON.stringify({ ...options, ...times })}`;
      const formula = bubbleFormula(name, { ...options, ...times });
      const schedule = buildSchedule(name, { ...options, allowPartial: true });
      expect(formula.devices, label).toBe(numRanks);
      expect(formula.parametersPerDevice * numRanks, label).toBe(schedule.rankOf.length);
      expect(formula.parameterShare, label).toBe(formula.parametersPerDevice / schedule.numStages);
      if (!formula.exact) continue;
      exact++;
      const run = oracle(schedule, { times: { ...times, I: times.B - times.W } });
      expect(formula.makespan, label).toBeCloseTo(run.makespan, 9);
      expect(formula.stepIdle, label).toBeCloseTo(Math.max(...run.idle), 9);
      if (name !== "zbv") expect(formula.bubble, label).toBe(formula.stepIdle);
      const peaks = peakActivations(schedule);
      expect(formula.activationsPerDevice, label).toBe(Math.max(...peaks.untilBackward));
    }
    expect(exact).toBeGreaterThan(80);
  });

  it("are not claimed exact where they are not", () => {
    const times = { F: 1, B: 2, W: 0.8, FB: 3 };
    const formula = bubbleFormula("dualpipe", { numRanks: 8, numMicroBatches: 20, ...times });
    expect(formula.exact).toBe(false);
    expect(formula.bubble).toBeCloseTo(7.8);
    const run = oracle(dualPipe({ numRanks: 8, numMicroBatches: 20 }), {
      times: { ...times, I: 1.2 },
    });
    expect(Math.max(...run.idle)).toBeCloseTo(7.2);
  });

  it("are the table of DualPipe for eight stages", () => {
    const at = { numMicroBatches: 20, F: 1, B: 2, W: 1 };
    const rows = [
      bubbleFormula("1f1b", { numRanks: 8, ...at }),
      bubbleFormula("zb1p", { numRanks: 8, ...at }),
      bubbleFormula("dualpipe", { numRanks: 8, ...at }),
      bubbleFormula("dualpipev", { numRanks: 4, ...at }),
    ].map((f) => [f.bubble, f.parametersPerDevice, f.activationsPerDevice, f.devices]);
    expect(rows).toEqual([
      [21, 1, 8, 8],
      [7, 1, 8, 8],
      [6, 2, 9, 8],
      [6, 2, 9, 4],
    ]);
  });

  it("give the rates of the zero-bubble authors", () => {
    const x = 7 / 27;
    expect(zeroBubbleRates({ numRanks: 8, numMicroBatches: 20 })).toEqual([
      { name: "1F1B", bubbleRate: x, memory: 1 },
      { name: "ZB1P", bubbleRate: x / 3, memory: 1 },
      { name: "ZB2P", bubbleRate: 0, memory: 2 },
      { name: "ZBV", bubbleRate: 0, memory: 1 },
      { name: "V-Half", bubbleRate: x / 2, memory: 0.5 },
      { name: "V-Min", bubbleRate: (2 * x) / 3, memory: 1 / 3 },
    ]);
    const own = bubbleFormula("1f1b", { numRanks: 8, numMicroBatches: 20, F: 1, B: 2, W: 1 });
    expect(own.bubbleRate).toBeCloseTo(x, 12);
  });

  it.each([
    [{ F: -1 }, /F is -1/],
    [{ B: Number.NaN }, /B is NaN/],
    [{ W: 3 }, /W is 3; expected at most B = 2/],
    [{ FB: Number.POSITIVE_INFINITY }, /FB is Infinity/],
    [{ numRanks: 0 }, /numRanks is 0/],
  ])("refuse %o", (wrong, message) => {
    const right = { numRanks: 2, numMicroBatches: 4, F: 1, B: 2, W: 1 };
    expect(() => bubbleFormula("dualpipe", { ...right, ...wrong })).toThrow(message);
  });
});

describe("activations", () => {
  it("the curve rises with forwards and falls after backwards", () => {
    const { ranks } = dualPipe({ numRanks: 2, numMicroBatches: 4 });
    // F0 F1 F0 B1 (F1‖B0) B1 I0 W0
    expect(Array.from(activationCurve(ranks[0] as RankOps))).toEqual([1, 2, 3, 3, 3, 2, 1, 0]);
    expect(Array.from(activationCurve(ranks[0] as RankOps, "weight"))).toEqual([
      1, 2, 3, 3, 3, 2, 1, 1,
    ]);
  });

  it("the peak is the curve's", () => {
    for (const name of builtInNames) {
      const schedule = buildSchedule(name, { numRanks: 4, numMicroBatches: 12 });
      const peaks = peakActivations(schedule);
      for (const [rank, ops] of schedule.ranks.entries()) {
        expect(peaks.untilBackward[rank]).toBe(Math.max(...activationCurve(ops)));
        expect(peaks.untilWeight[rank]).toBe(Math.max(...activationCurve(ops, "weight")));
      }
    }
  });
});
