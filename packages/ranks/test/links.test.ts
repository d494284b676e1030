// Links between ranks whose memory is not mapped: the same bytes and order as in shared memory, on
// each transport, with ranks as threads. What the contract suite asks of every transport is there.

import { findCompiler } from "@open-infra/jit";
import { hasUcx, runThreads } from "@open-infra/ranks";
import { requirement, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";

const compiler = findCompiler() !== undefined || "no C compiler (apt-get install gcc libc6-dev)";
const ucx = hasUcx() || "no libucp.so.0 (apt-get install libucx0)";
const seed = testSeed();

const module = (name: string): URL => new URL(`./links/${name}.ts`, import.meta.url);

describe.each([
  { transport: "tcp", met: compiler },
  { transport: "ucx", met: compiler === true ? ucx : compiler },
] as const)("links over $transport", ({ transport, met }) => {
  const skip = requirement(`links over ${transport}`, met);

  it.skipIf(skip).each([2, 3])(
    "carry random puts of %i ranks, every byte before its signal",
    async (size) => {
      const data = { seed: seed + size, rounds: 5, largest: (1 << 20) + 77 };
      const checked = await runThreads<number>({
        ...{ size, transport, data, module: module("puts"), timeoutMs: 30_000 },
      });
      for (const bytes of checked) expect(bytes, `seed ${data.seed}`).toBeGreaterThan(0);
    },
  );

  it.skipIf(skip)("close a window after the puts into it that nobody waited for", async () => {
    const results = await runThreads<string>({
      ...{ size: 2, transport, data: "stragglers", module: module("endings"), timeoutMs: 30_000 },
    });
    expect(results).toEqual(["done", "done"]);
  });

  it.skipIf(skip)("carry an abort with its reason to ranks that wait", async () => {
    const results = await runThreads<string>({
      ...{ size: 3, transport, data: "abort", module: module("endings"), timeoutMs: 30_000 },
    });
    expect(results[0]).toBe("aborted");
    for (const result of results.slice(1)) {
      expect(result).toContain("GroupAbortedError");
      expect(result).toContain("enough of it");
    }
  });

  it.skipIf(skip)("say what a slow peer is in when a wait for it times out", async () => {
    const results = await runThreads<string>({
      ...{ size: 2, transport, data: "slow", module: module("endings"), timeoutMs: 1500 },
    });
    expect(results[0]).toContain("RankTimeoutError");
    expect(results[0]).toContain("a long computation");
  });

  it.skipIf(skip)("let a window's memory go only when nobody writes into it", async () => {
    const results = await runThreads<string>({
      ...{ size: 3, transport, data: "windows", module: module("endings"), timeoutMs: 30_000 },
    });
    expect(results).toEqual(["done", "done", "done"]);
  });
});
