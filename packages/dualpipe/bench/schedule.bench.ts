// How fast schedules are built, given their transfers and checked: at 1,024 ranks × 4,096
// micro-batches, and beside a check in plain objects and names at a size which that can hold.

import { type BenchRow, median } from "@open-infra/testing";
import {
  type BuiltInName,
  buildSchedule,
  type Schedule,
  validateSchedule,
  withCommunication,
} from "../src/index.ts";
import { plainCheck } from "./plain-check.ts";

const operations = (schedule: Schedule): number =>
  schedule.ranks.reduce((sum, { length }) => sum + length, 0);

function timed<T>(work: () => T): { result: T; us: number } {
  const start = performance.now();
  const result = work();
  return { result, us: (performance.now() - start) * 1000 };
}

const rate = (count: number, us: number): string => `${(count / us).toFixed(1)} M ops/s`;

/** Build, transfers and check of one schedule, medians of a few rounds. */
function stages(name: BuiltInName, numRanks: number, numMicroBatches: number): BenchRow[] {
  const samples: Record<string, number[]> = { build: [], communication: [], validate: [] };
  let counts: Record<string, number> = {};
  for (let round = 0; round < 3; round++) {
    const built = timed(() => buildSchedule(name, { numRanks, numMicroBatches }));
    const placed = timed(() => withCommunication(built.result));
    const checked = timed(() => validateSchedule(placed.result));
    if (!checked.result.ok) throw new Error(`${name} is invalid`);
    samples.build?.push(built.us);
    samples.communication?.push(placed.us);
    samples.validate?.push(checked.us);
    const all = operations(placed.result);
    counts = { build: operations(built.result), communication: all, validate: all };
  }
  return Object.entries(samples).map(([part, us]) => ({
    case: `${part}, ${name}`,
    shape: `${numRanks} × ${numMicroBatches}, ${((counts[part] ?? 0) / 1e6).toFixed(1)} M ops`,
    us: median(us),
    rate: rate(counts[part] ?? 0, median(us)),
  }));
}

/** The check of cells beside the plain one, turn by turn. */
function besidePlain(name: BuiltInName, numRanks: number, numMicroBatches: number): BenchRow {
  const schedule = buildSchedule(name, { numRanks, numMicroBatches });
  const ours: number[] = [];
  const plain: number[] = [];
  for (let round = 0; round < 5; round++) {
    ours.push(timed(() => validateSchedule(schedule)).us);
    plain.push(timed(() => plainCheck(schedule)).us);
  }
  const count = operations(schedule);
  return {
    case: `validate cells, ${name}`,
    shape: `${numRanks} × ${numMicroBatches}, ${(count / 1e6).toFixed(2)} M ops`,
    us: median(ours),
    rate: rate(count, median(ours)),
    peer: "plain objects and names",
    peerRatio: median(plain) / median(ours),
  };
}

/** All rows; `quick` takes smaller sizes. */
export async function run(options: { readonly quick?: boolean } = {}): Promise<BenchRow[]> {
  const [numRanks, numMicroBatches] = options.quick ? [128, 512] : [1024, 4096];
  return [
    options.quick ? besidePlain("dualpipe", 64, 256) : besidePlain("dualpipe", 256, 1024),
    ...stages("dualpipe", numRanks, numMicroBatches),
    ...stages("1f1b", numRanks, numMicroBatches),
  ];
}
