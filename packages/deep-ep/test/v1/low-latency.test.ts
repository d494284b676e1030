// The low-latency mode: the grid of the original's tests and random shapes.

import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import type { LowLatencyCase } from "./low-latency-case.ts";
import { lacks, lowLatencyRank, randomLowLatencyCase, runRanks, type Transport } from "./worlds.ts";

function grid(ranks: number): LowLatencyCase[] {
  const cases: LowLatencyCase[] = [];
  for (const hook of [false, true]) {
    for (const [useFp8, roundScale, useUe8m0] of [
      [false, false, false],
      [true, false, false],
      [true, true, false],
      [true, true, true],
    ] as const) {
      for (const [zeroCopy, useLogfmt] of [
        [false, false],
        [true, false],
        [false, true],
      ] as const) {
        const seed = cases.length + 1;
        cases.push({
          seed,
          tokens: Array.from({ length: ranks }, (_, rank) => Math.max(0, 6 - rank)),
          most: 6,
          hidden: 512,
          topk: 4,
          numExperts: ranks * 4,
          useFp8,
          roundScale,
          useUe8m0,
          hook,
          async: !hook && seed % 2 === 0,
          zeroCopy,
          useLogfmt,
          maskedRatio: seed % 3 === 0 ? 0.3 : 0,
        });
      }
    }
  }
  return cases;
}

const worlds: readonly (readonly [Transport, ranks: number])[] = [
  ["threads", 1],
  ["threads", 2],
  ["threads", 8],
  ["processes", 4],
  ["threads over tcp", 2],
  ["threads over tcp", 3],
  ["processes over ucx", 2],
];

describe.each(worlds)("%s: %d ranks", (transport, size) => {
  const skip = lacks(`low-latency mode, ${transport}`, transport);
  it.skipIf(skip)("the grid of the original's tests and random shapes", async () => {
    const random = seededRandom(testSeed() + size);
    const all = grid(size);
    const some = size > 2 ? all.filter((_, i) => i % 3 === 0) : all;
    const cases = [...some, ...Array.from({ length: 8 }, () => randomLowLatencyCase(random, size))];
    const results = await runRanks<number>(transport, {
      size,
      // Some with kernels on several threads.
      commThreads: size < 4 ? 3 : 1,
      module: lowLatencyRank,
      data: { cases },
    });
    for (const result of results) expect(result).toBe(cases.length);
  });
});
