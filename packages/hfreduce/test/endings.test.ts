// Nothing hangs and nothing comes out wrong in silence: ranks that disagree, do not come, or die.

import { runProcesses, runThreads } from "@open-infra/ranks";
import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import type { EndingData } from "./ranks/endings.ts";

const module = new URL("./ranks/endings.ts", import.meta.url);

interface Ending {
  readonly name: string;
  readonly peer: number;
  readonly operation: string;
  readonly message: string;
}

function endings(data: EndingData, ranksPerNode: number, transport: "heap" | "tcp" = "heap") {
  const timeoutMs = data.ending === "late" ? 4000 : 60_000;
  return runThreads<Ending>({ size: 4, ranksPerNode, transport, timeoutMs, module, data });
}

describe("ranks that bring something else", () => {
  const texts: [EndingData["ending"], RegExp][] = [
    ["count", /the count is 500[01] here, but 500[01], from rank \d/],
    ["dtype", /the dtype is (f32 here, but bf16|bf16 here, but f32), from rank \d/],
    ["op", /the op is (sum here, but max|max here, but sum), from rank \d/],
    ["kind", /the operation is (allreduce here, but reduce|reduce here, but allreduce), from/],
    ["root", /the root is [01] here, but [01], from rank \d/],
    ["devices", /the number of devices is [12] here, but [12], from rank \d/],
    ["algorithm", /the algorithm is (tree here, but ring|ring here, but tree), from rank \d/],
  ];
  for (const [ending, text] of texts) {
    it(`${ending}: every rank learns of it, one names the peer`, async () => {
      for (const ranksPerNode of ending === "count" ? [4, 2, 1] : [2]) {
        const all = await endings({ ending }, ranksPerNode);
        expect(all.map(({ name }) => name)).toContain("RankMismatchError");
        for (const one of all) {
          expect(["RankMismatchError", "GroupAbortedError"]).toContain(one.name);
          expect(one.message).toMatch(text);
        }
      }
    });
  }

  it("count, over links", async () => {
    const all = await endings({ ending: "count" }, 1, "tcp");
    expect(all.map(({ name }) => name)).toContain("RankMismatchError");
    for (const one of all) expect(one.name).toMatch(/RankMismatchError|GroupAbortedError/);
  });

  it("sizes at opening", async () => {
    const all = await endings({ ending: "sizes" }, 2);
    for (const { message } of all) expect(message).toMatch(/are 8,(4096|8192),.* they must agree/);
  });
});

describe("ranks that are missing", () => {
  it("do not come in time: the others name it and what it is in", async () => {
    const all = await endings({ ending: "late" }, 2);
    expect(all.slice(0, 3).map(({ name }) => name)).toContain("RankTimeoutError");
    for (const { message } of all) {
      expect(message).toMatch(/allreduce of f32\[5000\]: waited 4\d\d\d ms for .*rank \d/);
    }
  });

  it("are killed in an operation: the others end, and name it", async () => {
    for (const operations of [1, 4]) {
      const data: EndingData = { ending: "killed", operations };
      const run = { size: 3, ranksPerNode: 2, timeoutMs: 60_000, module, data };
      await expect(runProcesses<Ending>(run)).rejects.toMatchObject({
        name: expect.stringMatching(/RankDeadError|GroupAbortedError/),
        message: expect.stringMatching(/rank 2/),
      });
    }
  });

  // 4 MiB take some milliseconds here, so the moments lie before, in and after the sums; a rank
  // that is killed after its part may leave the others with their result, but then they miss it at
  // the end.
  it("each rank, killed at any moment of a tree or a ring", { timeout: 60_000 }, async () => {
    const random = seededRandom(testSeed());
    for (const algorithm of ["tree", "ring"] as const) {
      for (let victim = 0; victim < 4; victim++) {
        const afterUs = random.int(0, 8000);
        const what = { victim, algorithm, count: 1 << 20, afterUs, operations: 2 };
        const data: EndingData = { ending: "killed", ...what };
        const run = { size: 4, ranksPerNode: 2, timeoutMs: 40_000, module, data };
        const error = await runProcesses<Ending>(run).catch((reason: Error) => reason);
        const seen = `seed ${testSeed()}, ${JSON.stringify(what)}: ${error}`;
        expect((error as Error).name, seen).toMatch(/RankDeadError|GroupAbortedError/);
        expect((error as Error).message, seen).toContain(`rank ${victim}`);
      }
    }
  });

  it("a rank that is stopped: the others give up in time and name it", {
    timeout: 60_000,
  }, async () => {
    const what = { victim: 1, count: 1 << 20, signal: "SIGSTOP" } as const;
    const data: EndingData = { ending: "killed", ...what };
    // Ranks also come together within it, on a busy machine too.
    const run = { size: 4, ranksPerNode: 2, timeoutMs: 6000, module, data };
    const error = await runProcesses<Ending>(run).catch((reason: Error) => reason);
    expect((error as Error).name, `${error}`).toMatch(/RankTimeoutError|RankDeadError/);
    expect((error as Error).message).toContain("rank 1");
  });
});
