// The normal mode: the worked case, the grid of the original's tests, random layouts, all checked
// to the bit on each rank.

import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import type { NormalCase } from "./normal-case.ts";
import { lacks, normalRank, randomCase, runRanks, type Transport } from "./worlds.ts";

function grid(ranks: number): NormalCase[] {
  const cases: NormalCase[] = [];
  for (const kind of ["bf16", "fp8"] as const) {
    for (const previous of [false, true]) {
      for (const async of [false, true]) {
        for (const withTopk of [false, true]) {
          cases.push({
            seed: cases.length + 1,
            tokens: Array.from({ length: ranks }, (_, rank) => 12 - rank),
            hidden: 136,
            topk: 4,
            numExperts: ranks * 4,
            kind,
            topkGroups: 2,
            withTopk,
            alignment: previous ? 8 : 1,
            worst: async && !previous,
            cached: true,
            biases: (cases.length + 1) % 3,
            previous,
            async,
          });
        }
      }
    }
  }
  return cases;
}

const worlds: readonly (readonly [Transport, ranks: number, ranksPerNode: number])[] = [
  ["threads", 1, 1],
  ["threads", 2, 2],
  ["threads", 4, 2],
  ["threads", 8, 8],
  ["threads", 8, 2],
  ["threads", 5, 3],
  ["processes", 4, 4],
  ["processes", 4, 2],
  ["processes of two threads", 4, 2],
  ["threads over tcp", 2, 2],
  ["threads over tcp", 4, 2],
  ["processes over ucx", 2, 1],
];

describe.each(worlds)("%s: %d ranks, %d a node", (transport, size, ranksPerNode) => {
  const skip = lacks(`normal mode, ${transport}`, transport);
  it.skipIf(skip)("the grid of the original's tests and random layouts", async () => {
    const random = seededRandom(testSeed() + size * 10 + ranksPerNode);
    const cases = [...grid(size), ...Array.from({ length: 8 }, () => randomCase(random, size))];
    const results = await runRanks<{ leaked: number; cases: number }>(transport, {
      size,
      ranksPerNode,
      // Some with kernels on several threads.
      commThreads: size === 2 || size === 5 ? 3 : 1,
      module: normalRank,
      data: { cases },
    });
    for (const result of results) expect(result).toEqual({ leaked: 0, cases: cases.length });
  });
});
