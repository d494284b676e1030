// The worked case by hand, and two claims: with nodes a token crosses to each node once, and what
// is not waited for runs while the rank computes.

import { findCompiler } from "@open-infra/jit";
import { runThreads } from "@open-infra/ranks";
import { requirement } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import type { WorkedResult } from "./worked.ts";

const compiler = findCompiler() !== undefined || "no C compiler (apt-get install gcc libc6-dev)";
const skip = requirement("the worked case of ElasticBuffer", compiler);

describe.skipIf(skip)("the worked case", () => {
  it("holds on four ranks of two nodes", async () => {
    const results = await runThreads<WorkedResult>({
      ...{ size: 4, ranksPerNode: 2, timeoutMs: 50_000 },
      module: new URL("./worked.ts", import.meta.url),
    });
    // Three tokens of each rank reach all ranks, two of them on the other node.
    const record = 256 * 2 + 96; // A row, and what is known of its four selections.
    const row = 256 * 2 + 4 * 16; // A row in place, and its selections.
    for (const { hybridBytes, directBytes } of results) {
      expect(hybridBytes).toBe(3 * record);
      expect(directBytes).toBe(3 * 2 * row);
    }
    expect(results[0]?.overlapped).toBe(true);
  });
});
