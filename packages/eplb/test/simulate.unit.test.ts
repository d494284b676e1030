// Load traces, made up and recorded, and what a replay of them says.

import { describe, expect, it } from "vitest";
import type { GenerateOptions, LoadTrace, Scenario, SimulateOptions } from "../src/index.ts";
import {
  generateLoads,
  LoadEma,
  linearSlots,
  loadTraceFrom,
  loadTraceToJson,
  measurePlacement,
  RecordedTrace,
  routeSlots,
  scenarios,
  simulateEplb,
} from "../src/index.ts";

const size = { numLayers: 2, numLogical: 32 };

function generate(options: Partial<GenerateOptions> = {}): LoadTrace {
  return generateLoads({ ...size, numSteps: 400, seed: 7, ...options });
}

/** All steps, copied. */
function stepsOf(trace: LoadTrace): Float64Array[] {
  return [...trace].length === 0 ? [] : Array.from(trace, (step) => step.slice());
}

const total = (step: Float64Array): number => step.reduce((sum, x) => sum + x, 0);

/** Share of the loads that differs, when both are scaled to 1. */
function distance(a: Float64Array, b: Float64Array): number {
  return a.reduce((sum, x, i) => sum + Math.abs(x / total(a) - (b[i] as number) / total(b)), 0) / 2;
}

describe("generateLoads", () => {
  it.each(scenarios)("makes the same %s trace at every walk, in whole tokens", (scenario) => {
    const trace = generate({ scenario });
    const steps = stepsOf(trace);
    expect(steps).toHaveLength(400);
    expect(stepsOf(trace)).toEqual(steps);
    expect(stepsOf(generate({ scenario, seed: 8 }))).not.toEqual(steps);
    for (const step of steps) {
      expect(step.every((x) => Number.isSafeInteger(x) && x >= 0)).toBe(true);
      expect(Math.abs(total(step) / (2 * 32_768) - 1)).toBeLessThan(0.02);
    }
  });

  it("changes the load as the scenario says", () => {
    const at = (scenario: Scenario, ...steps: number[]): Float64Array[] => {
      const all = stepsOf(generate({ scenario, noise: 0, period: 100 }));
      return steps.map((step) => all[step] as Float64Array);
    };
    const pairs = (scenario: Scenario, a: number, b: number): number => {
      const [first, second] = at(scenario, a, b) as [Float64Array, Float64Array];
      return distance(first, second);
    };
    expect(pairs("stationary", 0, 399)).toBe(0);
    expect(pairs("drift", 0, 99)).toBe(0);
    expect(pairs("drift", 0, 399)).toBeGreaterThan(0.005);
    expect(pairs("drift", 0, 399)).toBeLessThan(0.15);
    expect(pairs("shift", 0, 199)).toBe(0);
    expect(pairs("shift", 199, 200)).toBeGreaterThan(0.2);
    expect(pairs("diurnal", 0, 100)).toBeLessThan(1e-3);
    expect(pairs("diurnal", 0, 50)).toBeGreaterThan(0.2);
    expect(pairs("burst", 0, 99)).toBe(0);
    expect(pairs("burst", 99, 100)).toBeGreaterThan(0.1);
    expect(pairs("burst", 0, 150)).toBe(0);
  });

  it("draws popularity as it is told", () => {
    const sorted = (options: Partial<GenerateOptions>): number[] => {
      const [step] = stepsOf(generate({ numLayers: 1, noise: 0, numSteps: 1, ...options }));
      return [...(step as Float64Array)].sort((a, b) => b - a);
    };
    const uniform = sorted({ popularity: "uniform" });
    expect(new Set(uniform)).toEqual(new Set([1024]));
    const zipf = sorted({ popularity: "zipf", skew: 1 });
    expect((zipf[0] as number) / (zipf[9] as number)).toBeCloseTo(10, 1);
    const narrow = sorted({ skew: 0.1 });
    const wide = sorted({ skew: 1.5 });
    expect((wide[0] as number) / (wide[16] as number)).toBeGreaterThan(
      (narrow[0] as number) / (narrow[16] as number),
    );
  });

  it("names what it refuses", () => {
    expect(() => generate({ numSteps: 0 })).toThrow("numSteps is 0");
    expect(() => generate({ scenario: "sudden" as Scenario })).toThrow("scenario is sudden");
    expect(() => generate({ scenario: "drift", change: 1 })).toThrow("a share below 1 for drift");
    expect(() => generate({ noise: -1 })).toThrow("noise is -1");
    expect(() => generate({ hotExperts: 33 })).toThrow("at most the 32 experts");
    const late = { scenario: "shift", numSteps: 50, at: 50 } as const;
    expect(() => generate(late)).toThrow("at is 50; expected a step before numSteps, 50");
    expect(() => [...generate({ skew: 1000 })]).toThrow("skew is 1000; expected less");
    expect(() => generate({ tokensPerStep: 1e300 })).toThrow("tokensPerStep is 1e+300");
    expect(() => generate({ numLayers: 2 ** 30 })).toThrow(
      "numLayers is 1073741824 layers × 32 experts; expected at most 134217728 numbers in all",
    );
  });
});

describe("a recorded trace", () => {
  it("goes to JSON and back", () => {
    const trace = generate({ numSteps: 5 });
    const json = JSON.parse(JSON.stringify(loadTraceToJson(trace)));
    const read = loadTraceFrom(json);
    expect([read.numLayers, read.numLogical, read.numSteps]).toEqual([2, 32, 5]);
    expect(stepsOf(read)).toEqual(stepsOf(trace));
    expect(stepsOf(loadTraceFrom(json.steps))).toEqual(stepsOf(trace));
  });

  it("keeps what it holds when a reader writes into a step", () => {
    const trace = new RecordedTrace(Float64Array.of(1, 2, 3, 4), { numLayers: 1, numLogical: 2 });
    for (const step of trace) step.fill(9);
    expect(stepsOf(trace).map((step) => [...step])).toEqual([
      [1, 2],
      [3, 4],
    ]);
    expect(() => new RecordedTrace(Float64Array.of(1), { numLayers: 1, numLogical: 2 })).toThrow(
      "data is an array of 1",
    );
  });

  it.each([
    [null, "steps is null"],
    [{ steps: {} }, "steps is an object"],
    [[[1]], "steps[0][0] is 1"],
    [[[[true]]], "steps[0][0][0] is true"],
  ])("is refused: %j", (json, message) => {
    expect(() => loadTraceFrom(json)).toThrow(message);
  });
});

const cluster = { numReplicas: 48, numGroups: 8, numNodes: 2, numGpus: 8 };

function simulate(trace: LoadTrace, options: Partial<SimulateOptions> = {}) {
  return simulateEplb(trace, { ...cluster, intervalSteps: 40, ...options });
}

describe("simulateEplb", () => {
  it("measures what it says it measures", () => {
    const trace = generate({ numSteps: 3, noise: 0, popularity: "zipf" });
    const initial = routeSlots(linearSlots({ ...size, ...cluster }), { ...size, ...cluster });
    const result = simulate(trace, { initial, windowSteps: 2 });
    expect(result.windows.map(({ step, steps }) => [step, steps])).toEqual([
      [0, 2],
      [2, 1],
    ]);
    const [loads] = stepsOf(trace) as [Float64Array];
    const rows = [loads.subarray(0, 32), loads.subarray(32)];
    const { balancedness } = measurePlacement(rows, initial, cluster);
    for (const arm of [result.controller, result.fixed, result.fresh]) {
      expect(arm.balancedness).toBeCloseTo(balancedness, 12);
      expect(arm.movedSlots).toBe(0);
    }
    expect(result.finalRouting.phy2log).toEqual(initial.phy2log);
  });

  it("balances as well as a fresh run under drift, and moves a fraction", () => {
    const result = simulate(generate({ scenario: "drift", numSteps: 800 }));
    const { controller, fixed, fresh } = result;
    expect(controller.maxOverMean).toBeLessThan(fixed.maxOverMean - 0.3);
    expect(controller.maxOverMean).toBeLessThan(fresh.maxOverMean + 0.05);
    expect(controller.movedSlots).toBeLessThan(fresh.movedSlots / 3);
    const sums = result.windows.reduce((sum, { controller: arm }) => sum + arm.movedSlots, 0);
    expect(sums).toBe(controller.movedSlots);
    expect(result.metrics.copiesIssued).toBe(controller.movedSlots);
  });

  it("recovers from a domain shift", () => {
    const { windows } = simulate(generate({ scenario: "shift", numSteps: 800 }), {
      windowSteps: 40,
      statistics: () => new LoadEma({ ...size, timeConstantSteps: 40 }),
    });
    const ratio = (i: number): number => windows[i]?.controller.maxOverMean ?? 0;
    expect(ratio(9)).toBeLessThan(1.15);
    expect(ratio(10)).toBeGreaterThan(1.25);
    expect(ratio(19)).toBeLessThan(1.15);
  });

  it("keeps the budget and counts bytes", () => {
    const result = simulate(generate(), { bytesPerExpert: 10, maxBytesPerStep: 35 });
    expect(result.peakStepBytes).toBe(30);
    expect(result.controller.bytes).toBe(10 * result.controller.movedSlots);
    expect(result.fresh.bytes).toBe(10 * result.fresh.movedSlots);
  });

  it("goes through failing ranks and stalled moves", () => {
    const result = simulate(generate({ numSteps: 600 }), {
      moveDeadlineSteps: 5,
      maxRetries: 1,
      cooldownSteps: 5,
      maxBytesPerStep: 8,
      events: [
        { step: 8, event: "stall", steps: 20 },
        { step: 200, event: "rank-failed", gpu: 3 },
        { step: 400, event: "rank-recovered", gpu: 3 },
      ],
    });
    const { metrics, reports, windows, unserved } = result;
    expect(metrics.plansAborted).toBeGreaterThan(0);
    expect(metrics.retries).toBeGreaterThan(0);
    expect(reports.filter(({ event }) => event === "rank-failed")).toHaveLength(1);
    expect(metrics).toMatchObject({ state: "idle", failedGpus: [], emptySlots: 0 });
    expect([...result.finalRouting.logcnt]).not.toContain(0);
    // Experts that only the failed rank held are without a slot for a few steps, no longer.
    expect(unserved).toBeGreaterThan(0);
    expect(windows.filter((window) => window.unserved > 0)).toHaveLength(1);
  });

  it("uses a prediction, and statistics of one's own choice", () => {
    let asked = 0;
    const flat = new Float64Array(64).fill(1);
    const result = simulate(generate(), {
      predict: () => {
        asked++;
        return flat;
      },
    });
    expect(asked).toBeGreaterThan(0);
    // A prediction of equal loads finds nothing to mend.
    expect(result.controller.movedSlots).toBe(0);
  });

  it("names events it cannot place", () => {
    const events = [{ step: 400, event: "rank-failed", gpu: 0 }] as const;
    expect(() => simulate(generate(), { events })).toThrow("events.step is 400; expected a step");
    expect(() => simulate(generate(), { moveSteps: 0 })).toThrow("moveSteps is 0");
  });
});
