// All-gather sessions, pipeline, embeddings and barriers on threads.

import { findCompiler } from "@open-infra/jit";
import { runThreads } from "@open-infra/ranks";
import { requirement, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";

const seed = testSeed();
const compiler = findCompiler() !== undefined || "no C compiler (apt-get install gcc libc6-dev)";
const skip = requirement("services of ElasticBuffer", compiler);

describe.skipIf(skip)(`services beside dispatch (seed ${seed})`, () => {
  for (const [size, commThreads] of [
    [4, 1],
    [2, 2],
    [1, 1],
  ] as const) {
    it(`hold on ${size} ranks, ${commThreads} threads each`, async () => {
      const ranks = await runThreads<number>({
        size,
        commThreads,
        module: new URL("./services.ts", import.meta.url),
        data: { seed, operations: 128 },
        timeoutMs: 30_000,
      });
      expect(ranks).toEqual(Array.from({ length: size }, (_, rank) => rank));
    });
  }
});
