// One large simulation in a process of its own, so that its peak memory can be told: builds the
// schedule named by the arguments, simulates it, prints what it took as JSON.

import { type BuiltInName, buildSchedule, simulate } from "../src/index.ts";

const [name, numRanks, numMicroBatches, keep] = process.argv.slice(2);
const begin = performance.now();
const schedule = buildSchedule(name as BuiltInName, {
  numRanks: Number(numRanks),
  numMicroBatches: Number(numMicroBatches),
});
const built = performance.now();
const all = keep === "all";
const times = { F: 1, B: 2, W: 1, FB: 3 };
const result = simulate(schedule, times, { timeline: all, criticalPath: all });
const end = performance.now();
console.log(
  JSON.stringify({
    buildUs: (built - begin) * 1000,
    simulateUs: (end - built) * 1000,
    numOperations: result.numOperations,
    maxRssBytes: process.resourceUsage().maxRSS * 1024,
  }),
);
