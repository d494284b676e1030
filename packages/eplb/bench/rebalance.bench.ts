// Time of the policies, and what they reach. The original's policy stands beside a straight port of
// the same algorithm (straight-port.ts), which must give the same placements; the others stand
// beside the original's policy, with the balance and the moves of both in the shape column.
// Alone: node --conditions=@open-infra/source packages/eplb/bench/rebalance.bench.ts [--quick]

import { deepStrictEqual } from "node:assert/strict";
import { pathToFileURL } from "node:url";
import { type BenchRow, formatRows, median, type Random, seededRandom } from "@open-infra/testing";
import {
  type EplbShape,
  type PolicyName,
  type Rebalanced,
  rebalanceExperts,
  toNested,
} from "../src/index.ts";
import { rebalanceStraight } from "./straight-port.ts";

interface Size extends EplbShape {
  readonly layers: number;
  readonly experts: number;
}

function size(layers: number, experts: number, slots: number, cluster: string): Size {
  const [groups, nodes, gpus] = cluster.split("/").map(Number) as [number, number, number];
  const shape = { numReplicas: slots, numGroups: groups, numNodes: nodes, numGpus: gpus };
  return { layers, experts, ...shape };
}

const sizes: readonly Size[] = [
  size(1, 64, 96, "8/4/32"),
  size(26, 64, 80, "8/2/16"),
  size(1, 256, 288, "8/4/32"),
  size(58, 256, 288, "8/4/32"),
  size(58, 256, 288, "1/1/32"),
  size(58, 256, 320, "8/8/64"),
  size(58, 256, 320, "1/1/64"),
  size(58, 320, 384, "8/4/64"),
  size(58, 256, 512, "1/1/128"),
];

function describe(s: Size): string {
  const where = s.numGroups === 1 ? "global" : `${s.numGroups} groups, ${s.numNodes} nodes`;
  return `${s.layers} × ${s.experts} → ${s.numReplicas} slots, ${s.numGpus} GPUs, ${where}`;
}

/** Loads without ties: a permutation, so that both implementations must agree exactly. */
function permuted(random: Random, { layers, experts }: Size): number[][] {
  return Array.from({ length: layers }, () => {
    const row = Array.from({ length: experts }, (_, i) => i * 97 + random.int(1, 97));
    for (let i = experts - 1; i > 0; i--) {
      const j = random.int(0, i + 1);
      [row[i], row[j]] = [row[j] as number, row[i] as number];
    }
    return row;
  });
}

const lognormal = (random: Random, { layers, experts }: Size): number[][] =>
  Array.from({ length: layers }, () =>
    Array.from({ length: experts }, () => Math.exp(random.normal()) * 1000),
  );

const drifted = (random: Random, weight: readonly number[][], by: number): number[][] =>
  weight.map((row) => row.map((load) => load * (1 - by + 2 * by * random.next())));

/** Medians of calls that take turns, microseconds. */
function interleaved(calls: readonly (() => unknown)[], rounds: number): number[] {
  const times = calls.map((): number[] => []);
  for (let round = -3; round < rounds; round++) {
    for (const [i, call] of calls.entries()) {
      const start = performance.now();
      call();
      if (round >= 0) times[i]?.push((performance.now() - start) * 1000);
    }
  }
  return times.map(median);
}

/** Small sizes take more rounds until they are as warm as the large ones. */
const roundsFor = (s: Size, rounds: number): number => (s.layers < 30 ? rounds * 20 : rounds);

function originalRow(s: Size, rounds: number): BenchRow {
  const weight = permuted(seededRandom(1), s);
  const [phy2log, log2phy, logcnt] = rebalanceStraight(weight, s);
  deepStrictEqual(toNested(rebalanceExperts(weight, s)), { phy2log, log2phy, logcnt });
  const [ours, theirs] = interleaved(
    [() => rebalanceExperts(weight, s), () => rebalanceStraight(weight, s)],
    roundsFor(s, rounds),
  ) as [number, number];
  return {
    case: "deepseek",
    shape: describe(s),
    us: ours,
    rate: `${Math.round(ours / s.layers)} µs a layer`,
    peer: "straight port",
    peerRatio: theirs / ours,
  };
}

const reached = (result: Rebalanced): string => result.report.meanMaxOverMean.toFixed(4);
const bound = ({ report }: Rebalanced): string =>
  (
    report.layers.reduce((sum, layer) => sum + layer.lowerBound / layer.meanLoad, 0) /
    report.layers.length
  ).toFixed(4);

function optimizedRow(s: Size, rounds: number): BenchRow {
  const weight = lognormal(seededRandom(2), s);
  const ours = () => rebalanceExperts(weight, { ...s, policy: "optimized" });
  const theirs = () => rebalanceExperts(weight, s);
  const [us, peer] = interleaved([ours, theirs], rounds) as [number, number];
  const result = ours();
  return {
    case: "optimized",
    shape:
      `${describe(s)}: max/mean ${reached(result)}, original ${reached(theirs())}, ` +
      `bound ${bound(result)}`,
    us,
    rate: `${Math.round(us / s.layers)} µs a layer`,
    peer: "deepseek",
    peerRatio: peer / us,
  };
}

function migrationRow(s: Size, by: number, rounds: number): BenchRow {
  const random = seededRandom(3);
  const weight = lognormal(random, s);
  const from = rebalanceExperts(weight, { ...s, policy: "optimized" });
  const later = drifted(random, weight, by);
  const run = (policy: PolicyName) => () => rebalanceExperts(later, { ...s, policy, from });
  const calls = [run("minimal-migration"), run("deepseek")];
  const [us, peer] = interleaved(calls, rounds) as [number, number];
  const [ours, theirs] = calls.map((call) => call()) as [Rebalanced, Rebalanced];
  const moved = ({ report }: Rebalanced): string => `${(report.movedShare * 100).toFixed(1)} %`;
  return {
    case: `minimal-migration, ±${by * 100} %`,
    shape:
      `${describe(s)}: moves ${moved(ours)} to max/mean ${reached(ours)}, ` +
      `fresh ${moved(theirs)} to ${reached(theirs)}`,
    us,
    rate: `${Math.round(us / s.layers)} µs a layer`,
    peer: "deepseek",
    peerRatio: peer / us,
  };
}

/** Rows of this bench. */
export async function run({ quick = false } = {}): Promise<BenchRow[]> {
  const rounds = quick ? 3 : 15;
  const few = quick ? 1 : 3;
  const rows = sizes.map((s) => originalRow(s, rounds));
  const large = sizes.filter((s) => s.layers > 1 && s.numReplicas / s.numGpus > 4);
  rows.push(...large.map((s) => optimizedRow(s, few)));
  rows.push(optimizedRow(size(58, 256, 288, "1/1/144"), few));
  const production = size(58, 256, 288, "1/1/32");
  rows.push(...[0.01, 0.05, 0.2].map((by) => migrationRow(production, by, few)));
  rows.push(migrationRow(size(58, 256, 288, "8/4/32"), 0.05, few));
  rows.push(migrationRow(size(58, 256, 320, "1/1/64"), 0.05, few));
  return rows;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  console.log(formatRows(await run({ quick: process.argv.includes("--quick") })));
}
