// Ranks that die at each phase, that fall behind, and batches in flight.

import { runProcesses, runThreads } from "@open-infra/ranks";
import { describe, expect, it } from "vitest";
import { lacks } from "./worlds.ts";

const skip = lacks("faults of Buffer");
const module = new URL("./faults-rank.ts", import.meta.url);

describe.skipIf(skip)("a rank killed with SIGKILL", () => {
  it.each([
    ["dispatch", 0],
    ["combine", 1],
    ["low-latency", 3],
  ] as const)("at %s ends all others with its name", async (phase, victim) => {
    const options = { size: 4, module, export: "loop", timeoutMs: 30_000, data: { phase, victim } };
    await expect(runProcesses(options)).rejects.toMatchObject({
      name: expect.stringMatching(/RankDeadError|GroupAbortedError/),
      message: expect.stringMatching(new RegExp(`rank ${victim}\\b`)),
    });
  });

  it("at any moment does too", async () => {
    const run = runProcesses({
      size: 3,
      module,
      export: "loop",
      timeoutMs: 30_000,
      data: { phase: "killed", victim: -1 },
      onStart: (pid, ranks) => {
        if (ranks.includes(2)) setTimeout(() => process.kill(pid, "SIGKILL"), 3000);
      },
    });
    await expect(run).rejects.toMatchObject({ message: expect.stringMatching(/rank 2\b/) });
  });
});

describe.skipIf(skip)("with enableShrink", () => {
  it("dead ranks are masked and the others' sums stay exact", async () => {
    const ranks = await runProcesses<number[] | undefined>({
      size: 4,
      module,
      export: "shrink",
      timeoutMs: 10_000,
      onRankExit: "continue",
    });
    expect(ranks).toEqual([[0, 1, 0, 1], undefined, [0, 1, 0, 1], undefined]);
  });

  it("so is a rank that does not come in time", async () => {
    const options = { size: 4, module, export: "late", timeoutMs: 4000 };
    const ranks = await runThreads<number[]>({ ...options, onRankExit: "continue" });
    for (const mask of ranks) expect(mask).toEqual([0, 0, 1, 0]);
  });
});

it.skipIf(skip)("two low-latency batches are in flight, a third is refused", async () => {
  const options = { size: 2, module, export: "twoBatches", timeoutMs: 20_000 };
  for (const refused of await runThreads<string[]>(options)) {
    expect(refused).toEqual([
      expect.stringMatching(/waits for its hook; at most two results are live/),
      expect.stringMatching(/low-latency mode: rank \d needs a window of \d+ bytes/),
      expect.stringMatching(/the hook was called before/),
    ]);
  }
});
