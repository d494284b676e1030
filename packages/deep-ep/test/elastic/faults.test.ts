// Ranks that disagree, stay away, or die: every other rank ends with an error that names the one
// to blame, and none waits for ever.

import { findCompiler } from "@open-infra/jit";
import { runProcesses, runThreads } from "@open-infra/ranks";
import { requirement, seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { type Ending, type FaultData, phases } from "./faults.ts";

const compiler = findCompiler() !== undefined || "no C compiler (apt-get install gcc libc6-dev)";
const skip = requirement("faults of ElasticBuffer", compiler);
const module = new URL("./faults.ts", import.meta.url);

const size = 3;
const odd = 1;

function threads(
  data: Omit<FaultData, "odd">,
  options: { readonly size: number; readonly timeoutMs: number },
): Promise<Ending[]> {
  return runThreads<Ending>({ ...options, module, data: { ...data, odd } });
}

describe.skipIf(skip)("ranks that disagree", () => {
  const cases: readonly (readonly [string, Omit<FaultData, "odd">, RegExp])[] = [
    ["in the buffer's tokens", { create: { numMaxTokensPerRank: 8 } }, /numMaxTokensPerRank/],
    ["in a buffer's recipe", { create: { allowMultipleReduction: false } }, /allowMultipleReduct/],
    [
      "in the most tokens of a dispatch",
      { options: { numMaxTokensPerRank: 7 } },
      /numMaxTokensPer/,
    ],
    ["in the number of experts", { options: { numExperts: 12 } }, /numExperts/],
    ["in the alignment", { options: { expertAlignment: 8 } }, /expertAlignment/],
    ["in the layout", { options: { doExpand: true } }, /doExpand/],
    ["in the columns", { hidden: 32 }, /bytes of a token/],
    ["in the selections", { topk: 3 }, /numTopk/],
  ];
  it.each(cases)("%s learn of it", async (_name, data, what) => {
    const endings = await threads(data, { size: 2, timeoutMs: 20_000 });
    expect(endings.some(({ name }) => name === "RankMismatchError")).toBe(true);
    for (const { name, message } of endings) {
      expect(name).toMatch(/RankMismatchError|GroupAbortedError/);
      expect(message).toMatch(what);
    }
  });
});

describe.skipIf(skip)("a rank that stays away", () => {
  it("is named by all who wait for it", async () => {
    const endings = await threads({ absent: "combine" }, { size, timeoutMs: 1500 });
    for (const [rank, { name, peer, message }] of endings.entries()) {
      expect(name).toMatch(/RankTimeoutError|GroupAbortedError/);
      expect(message).toContain("combine");
      if (rank !== odd) expect(peer, message).toBe(odd);
    }
  });
});

describe.skipIf(skip)("a rank that is killed", () => {
  const die = async (data: Omit<FaultData, "odd">): Promise<void> => {
    const endings = await runProcesses<Ending | undefined>({
      ...{ size, module, data: { ...data, odd }, timeoutMs: 20_000, onRankExit: "continue" },
    });
    expect(endings[odd]).toBeUndefined();
    for (const [rank, ending] of endings.entries()) {
      if (rank === odd) continue;
      expect(ending?.name, ending?.message).toMatch(/RankDeadError|GroupAbortedError/);
      expect(ending?.message).toContain(`rank ${odd}`);
    }
  };

  it.each(phases)("before %s is named by the others", (dies) => die({ dies }));

  it("in the middle of it all is named by the others", () => {
    const { next } = seededRandom(testSeed());
    return die({ diesAfterMs: 50 + Math.floor(next() * 300) });
  });
});
