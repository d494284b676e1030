// The executor over a group of ranks: the contract of transports, and training over threads,
// processes and links that gives the same numbers as one event loop.

import { type Group, joinGroup, MemoryStore, runProcesses, runThreads } from "@open-infra/ranks";
import { afterAll, describe, expect, it } from "vitest";
import { RanksTransport } from "../../src/runtime/ranks-transport.ts";
import { trainInOneLoop } from "./ranks/train.ts";
import { transportContract } from "./transport-contract.ts";

const groups: Group[] = [];
afterAll(async () => {
  // Of ranks that share a thread, none may wait for another.
  for (const group of groups) group.abort("the test is over");
  await Promise.allSettled(groups.map((group) => group.close()));
});

async function connect(numRanks: number): Promise<RanksTransport[]> {
  const store = new MemoryStore();
  const joined = await Promise.all(
    Array.from({ length: numRanks }, (_, rank) =>
      joinGroup({ rank, size: numRanks, store, timeoutMs: 10_000 }),
    ),
  );
  groups.push(...joined);
  return Promise.all(joined.map((group) => RanksTransport.open(group)));
}

transportContract("a group of ranks", connect);

describe("training over ranks", () => {
  const module = new URL("./ranks/train.ts", import.meta.url);
  const data = { numChunks: 8, steps: 2, seed: 5 };

  it("gives the bits of one event loop: threads, processes, links", async () => {
    const wanted = await trainInOneLoop(4, data);
    const run = { size: 4, timeoutMs: 30_000, module, data };
    expect(await runThreads(run)).toEqual(wanted);
    expect(await runThreads({ ...run, ranksPerNode: 2, transport: "tcp" })).toEqual(wanted);
    expect(await runProcesses(run)).toEqual(wanted);
  }, 60_000);

  it("says when the copies' gradients do not match", async () => {
    const run = { size: 2, timeoutMs: 20_000, module, data: { ...data, mismatch: true } };
    await expect(runThreads(run)).rejects.toThrow(/gradients of the other copies/);
  });
});
