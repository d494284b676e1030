// Dispatch and combine against the reference on 1 to 8 ranks that are threads, in every way tokens can
// take: straight into memory, through windows, with nodes and without. Other transports run the same
// cases in transports.test.ts.

import { runThreads } from "@open-infra/ranks";
import { testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { everyKind, flags, fullGrid, oddShapes, part, plainShape, someCases } from "./cases.ts";
import type { GridPart } from "./grid.ts";

const seed = testSeed();

async function run(
  parts: readonly GridPart[],
  options: { readonly ranksPerNode?: number; readonly commThreads?: number } = {},
): Promise<void> {
  const size = parts[0]?.shape.size as number;
  const module = new URL("./grid.ts", import.meta.url);
  const held = await runThreads<number>({
    size,
    module,
    data: parts,
    timeoutMs: 30_000,
    ...options,
  });
  const wanted = parts.reduce((sum, { cases }) => sum + cases.length, 0);
  expect(held, `seed ${seed}`).toEqual(held.map(() => wanted));
}

describe(`dispatch and combine, bit by bit (seed ${seed})`, () => {
  it("passes the original's whole grid on 4 ranks", () =>
    run([part(plainShape(seed, 4), fullGrid(seed))]));

  it("holds for every kind of buffer on one node", () =>
    run(everyKind(plainShape(seed, 4), 5, false), { ranksPerNode: 4 }));

  it("holds for every kind of buffer on two nodes", () =>
    run(everyKind(plainShape(seed, 4), 5, true), { ranksPerNode: 2 }));

  it("holds for every kind of buffer where each rank is a node", () =>
    run(everyKind(plainShape(seed, 4), 3, true), { ranksPerNode: 1 }));

  it("holds on 2 ranks with two threads each", () =>
    run([part({ ...plainShape(seed, 2), numMaxTokensPerRank: 90 }, someCases(seed, 4))], {
      commThreads: 2,
    }));

  it("holds on 8 ranks", () => {
    const shape = { ...plainShape(seed, 8), numTopk: 8 };
    return run(flags.map((directMemory) => part(shape, someCases(seed, 3), { directMemory })));
  });

  it("holds on 8 ranks of 4 nodes", () => {
    const shape = { ...plainShape(seed, 8), numTopk: 8 };
    const parts = flags.map((directMemory) => part(shape, someCases(seed, 3), { directMemory }));
    return run(parts, { ranksPerNode: 2 });
  });

  it("holds on 6 ranks of 2 nodes, three threads each", () => {
    const shape = { ...plainShape(seed, 6), numTopk: 5, numMaxTokensPerRank: 60 };
    const cases = someCases(seed + 4, 3);
    const options = { ranksPerNode: 3, commThreads: 3 };
    return run(
      flags.map((directMemory) => part(shape, cases, { directMemory })),
      options,
    );
  });

  it("holds on 5 ranks that do not fill their nodes, and on one alone", async () => {
    await run([part(plainShape(seed, 5), someCases(seed, 3))], { ranksPerNode: 2 });
    await run([part(plainShape(seed, 1), someCases(seed, 3))]);
  });

  for (const ranksPerNode of [4, 2]) {
    it(`holds for odd worlds, ${ranksPerNode} ranks a node`, () => {
      const parts = Object.values(oddShapes).flatMap((changed, i) =>
        flags.map((directMemory) => {
          const shape = { ...plainShape(seed + 100 * i, 4), ...changed };
          return part(shape, someCases(seed + i, 3), { directMemory });
        }),
      );
      return run(parts, { ranksPerNode });
    });
  }
});
