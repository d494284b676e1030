// Operations a second of the simulator: beside a plain simulator by events and objects, turn by
// turn, and at 1,024 ranks × 4,096 micro-batches, building included, with the peak memory of the
// process.

import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { type BenchRow, median } from "@open-infra/testing";
import { type BuiltInName, buildSchedule, simulate } from "../src/index.ts";
import { simulateByEvents } from "./event-queue.ts";

const times = { F: 1, B: 2, W: 1, FB: 3 } as const;
const large = fileURLToPath(new URL("simulate-large.ts", import.meta.url));

function timedUs(work: () => number, expected: number): number {
  const start = performance.now();
  const makespan = work();
  const us = (performance.now() - start) * 1000;
  if (makespan !== expected) throw new Error(`makespan ${makespan}, expected ${expected}`);
  return us;
}

const rate = (count: number, us: number): string => `${(count / us).toFixed(1)} M ops/s`;

/** Both simulators in turn; the plain one keeps starts and ends, so ours keeps them too. */
function besidePlain(name: BuiltInName, numRanks: number, numMicroBatches: number): BenchRow {
  const schedule = buildSchedule(name, { numRanks, numMicroBatches });
  const { makespan, numOperations } = simulate(schedule, times);
  const rounds = numOperations > 100_000 ? 3 : 15;
  const ours: number[] = [];
  const plain: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const keep = { timeline: true, criticalPath: false };
    ours.push(timedUs(() => simulate(schedule, times, keep).makespan, makespan));
    const run = (): number =>
      simulateByEvents(schedule, {
        duration: ({ kind }) => times[kind as "F" | "B" | "W" | "FB"] ?? times.B - times.W,
        latency: () => 0,
      }).makespan;
    plain.push(timedUs(run, makespan));
  }
  return {
    case: `simulate, ${name}`,
    shape: `${numRanks} × ${numMicroBatches}, ${numOperations} ops`,
    us: median(ours),
    rate: rate(numOperations, median(ours)),
    peer: "event queue of objects",
    peerRatio: median(plain) / median(ours),
  };
}

interface LargeRun {
  readonly buildUs: number;
  readonly simulateUs: number;
  readonly numOperations: number;
  readonly maxRssBytes: number;
}

function inOwnProcess(
  name: BuiltInName,
  numRanks: number,
  numMicroBatches: number,
  keep: "totals" | "all",
): BenchRow {
  const args = [large, name, String(numRanks), String(numMicroBatches), keep];
  const runs = Array.from({ length: 3 }, () => {
    const output = execFileSync(process.execPath, [...process.execArgv, ...args]);
    return JSON.parse(output.toString()) as LargeRun;
  });
  const us = median(runs.map(({ buildUs, simulateUs }) => buildUs + simulateUs));
  const { numOperations } = runs[0] as LargeRun;
  const peak = Math.max(...runs.map(({ maxRssBytes }) => maxRssBytes)) / 1e6;
  const size = (numOperations / 1e6).toFixed(1);
  const what = keep === "all" ? " with timeline and critical path" : "";
  return {
    case: `build and simulate${what}, ${name}`,
    shape: `${numRanks} × ${numMicroBatches}, ${size} M ops, at most ${peak.toFixed(0)} MB`,
    us,
    rate: rate(numOperations, us),
  };
}

/** All rows; `quick` takes smaller sizes. */
export async function run(options: { readonly quick?: boolean } = {}): Promise<BenchRow[]> {
  const [ranks, microBatches] = options.quick ? ([128, 512] as const) : ([1024, 4096] as const);
  return [
    besidePlain("dualpipe", 8, 20),
    besidePlain("dualpipe", 64, 256),
    besidePlain("1f1b", 64, 256),
    ...(options.quick ? [] : [besidePlain("dualpipe", 256, 1024)]),
    inOwnProcess("dualpipe", ranks, microBatches, "totals"),
    inOwnProcess("dualpipe", ranks, microBatches, "all"),
    inOwnProcess("dualpipev", ranks / 2, microBatches, "totals"),
    inOwnProcess("1f1b", ranks, microBatches, "totals"),
    inOwnProcess("zb1p", ranks, microBatches, "totals"),
  ];
}
