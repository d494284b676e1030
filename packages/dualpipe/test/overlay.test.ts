// A real run beside its simulation: what the executor records is what `compareWithTrace` reads.

import { Tensor } from "@open-infra/tensor";
import { expect, it } from "vitest";
import { buildSchedule, compareWithTrace, simulate, toSvg } from "../src/index.ts";
import { launchPipeline } from "../src/runtime/index.ts";

const stages = {
  stageModule: new URL("runtime/stages.ts", import.meta.url),
  stageExport: "createMlpStage",
  criterionExport: "mseLoss",
  stageOptions: { features: 16, hidden: 64, dtype: "f32" },
};

it.each(["dualpipe", "zbv"] as const)("a recorded step of %s explains itself", async (name) => {
  const numChunks = 8;
  await using pipeline = await launchPipeline({
    numRanks: 2,
    schedule: name,
    trace: true,
    ...stages,
  });
  const batch = Tensor.from(new Float32Array(8 * 16 * 16).fill(0.25), [128, 16], "f32");
  for (let step = 0; step < 3; step++) await pipeline.step([batch], { numChunks, labels: [batch] });

  const schedule = buildSchedule(name, { numRanks: 2, numMicroBatches: numChunks });
  const { measured, measuredMakespan, simulated } = compareWithTrace(
    schedule,
    await pipeline.trace(),
  );
  expect(measured.numSteps).toBe(3);
  expect(measuredMakespan).toBeGreaterThan(0);
  for (const { makespan, busy } of measured.steps) {
    expect(makespan).toBeGreaterThan(0);
    for (const time of busy) expect(time).toBeLessThanOrEqual(makespan);
  }
  for (const durations of measured.durations) {
    for (const duration of durations) expect(duration).toBeGreaterThan(0);
  }
  expect(simulated.lowerBound.makespan).toBeLessThanOrEqual(simulated.makespan);
  // The measured step can be drawn as a simulated one.
  const [first] = measured.steps;
  const drawn = toSvg(schedule, { ...simulated, ...first }, { criticalPath: false, unit: "µs" });
  expect(drawn).toContain("rank 1");
  // The same operations at each step's own durations, if nothing but they took time. A step cannot
  // be faster; clocks of threads differ by less than a tenth of it. Not so where pairs are: run as
  // an F and a B, they hand on the forward's result before the cell ends.
  if (name === "dualpipe") return;
  measured.steps.forEach(({ timeline, makespan }) => {
    const durations = timeline.map(({ start, end }) => end.map((t, i) => t - (start[i] as number)));
    const alone = simulate(schedule, measured.times, { durations });
    expect(makespan).toBeGreaterThan(0.9 * alone.makespan);
  });
});
