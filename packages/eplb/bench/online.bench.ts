// What the online half costs a serving engine: a step of the statistics, a step of the controller
// that finds nothing to do, and a migration plan. Each beside the plain way to get the same.

import { type BenchRow, median, seededRandom } from "@open-infra/testing";
import {
  EplbController,
  LoadWindow,
  measurePlacement,
  planMigration,
  type Rebalanced,
  rebalanceExperts,
} from "../src/index.ts";

const size = { numLayers: 58, numLogical: 256 };
const cluster = { numReplicas: 288, numGroups: 8, numNodes: 4, numGpus: 32 };
const shape = "58 × 256 experts, 288 slots, 32 GPUs";
const experts = size.numLayers * size.numLogical;
const windowSteps = 1000;

function timedUs(work: () => unknown): number {
  const start = performance.now();
  work();
  return (performance.now() - start) * 1000;
}

/** Medians of two sides, interleaved. */
function interleave(
  rounds: number,
  ours: () => unknown,
  theirs: () => unknown,
): { readonly us: number; readonly peerRatio: number } {
  const samples: [number[], number[]] = [[], []];
  for (let round = 0; round < rounds; round++) {
    samples[0].push(timedUs(ours));
    samples[1].push(timedUs(theirs));
  }
  const [us, peer] = samples.map(median) as [number, number];
  return { us, peerRatio: peer / us };
}

function counts(): Float64Array {
  const random = seededRandom(1);
  return Float64Array.from({ length: experts }, () => Math.round(Math.exp(random.normal()) * 100));
}

function rows(flat: Float64Array): Float64Array[] {
  return Array.from({ length: size.numLayers }, (_, layer) =>
    flat.subarray(layer * size.numLogical, (layer + 1) * size.numLogical),
  );
}

function windowRow(rounds: number): BenchRow {
  const step = counts();
  const means = new Float64Array(experts);
  const window = new LoadWindow({ ...size, windowSteps, bucketSteps: 10 });
  const ring = new Float32Array(windowSteps * experts);
  let at = 0;
  const ours = (): void => {
    window.observe(step);
    window.loads(means);
  };
  const theirs = (): void => {
    ring.set(step, (at++ % windowSteps) * experts);
    means.fill(0);
    for (let base = 0; base < ring.length; base += experts) {
      for (let i = 0; i < experts; i++) {
        means[i] = (means[i] as number) + (ring[base + i] as number) / windowSteps;
      }
    }
  };
  const times = interleave(rounds, ours, theirs);
  return {
    case: "window of 1000 steps, one more",
    shape: "58 × 256 experts",
    ...times,
    peer: "summed anew",
  };
}

function stepRow(rounds: number): BenchRow {
  const loads = counts();
  const placed = rebalanceExperts(rows(loads), { ...cluster, policy: "deepseek-global" });
  const controller = new EplbController({ ...size, ...cluster, initial: placed, startAbove: 9 });
  const window = new LoadWindow({ ...size, windowSteps, bucketSteps: 10 });
  let timeUs = 0;
  const ours = (): unknown => controller.step({ timeUs: timeUs++, loads });
  const theirs = (): unknown => {
    window.observe(loads);
    return measurePlacement(rows(loads), placed, cluster).balancedness;
  };
  const times = interleave(rounds, ours, theirs);
  return { case: "controller step, balanced", shape, ...times, peer: "measurePlacement" };
}

function planRow(rounds: number): BenchRow {
  const random = seededRandom(2);
  const loads = counts();
  const from = rebalanceExperts(rows(loads), { ...cluster, policy: "deepseek-global" });
  const drifted = rows(loads.map((load) => load * (0.95 + 0.1 * random.next())));
  const few = rebalanceExperts(drifted, { ...cluster, policy: "minimal-migration-global", from });
  const fresh = rebalanceExperts(drifted, { ...cluster, policy: "deepseek-global" });
  const budget = { maxBytesPerStep: 64, numNodes: cluster.numNodes };
  const plan = (target: Rebalanced) =>
    planMigration(from.phy2log, target.phy2log, { ...size, ...cluster }, budget);
  const { copies, steps } = plan(few);
  return {
    case: "plan after ±5 % drift, in place",
    shape: `${copies} copies, ${steps.length} steps of 64`,
    ...interleave(
      rounds,
      () => plan(few),
      () => plan(fresh),
    ),
    peer: `the fresh run's ${plan(fresh).copies} copies`,
  };
}

/** Rows of the package's README. */
export async function run(options: { readonly quick?: boolean } = {}): Promise<BenchRow[]> {
  const quick = options.quick ?? false;
  return [windowRow(quick ? 3 : 31), stepRow(quick ? 5 : 101), planRow(quick ? 1 : 11)];
}
