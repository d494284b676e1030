// The README's table of replays is what the simulation gives today.

import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { generateLoads, LoadWindow, type Scenario, simulateEplb } from "../src/index.ts";

/** The row of `open-infra eplb simulate --scenario S --max-bytes-per-step 64`. */
function row(scenario: Scenario): string[] {
  const model = { numLayers: 4, numLogical: 256 };
  const trace = generateLoads({ ...model, numSteps: 2000, seed: 0, scenario });
  const { controller, fixed, fresh } = simulateEplb(trace, {
    ...{ numReplicas: 288, numGroups: 8, numNodes: 4, numGpus: 32 },
    intervalSteps: 200,
    maxBytesPerStep: 64,
    statistics: () => new LoadWindow({ ...model, windowSteps: 200 }),
  });
  const ratios = [fixed, fresh, controller].map(({ maxOverMean }) => maxOverMean.toFixed(3));
  const moved = [fresh, controller].map(({ movedSlots }) => movedSlots.toLocaleString("en-US"));
  return [`\`${scenario}\``, ...ratios, ...moved];
}

it.each(["stationary", "shift"] as const)("the replay of %s is as it says", (scenario) => {
  const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
  const line = readme.split("\n").find((text) => text.startsWith(`| \`${scenario}\``));
  expect(line?.split("|").map((cell) => cell.trim())).toEqual(["", ...row(scenario), ""]);
});
