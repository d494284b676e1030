// Dispatch and combine against the reference on 1 to 8 ranks that are threads, in every way tokens
// can take: straight into memory, through windows, with nodes and without. Other transports run
// the same cases in transports.test.ts.

import { findCompiler } from "@open-infra/jit";
import { runThreads } from "@open-infra/ranks";
import { requirement, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { everyKind, flags, fullGrid, oddShapes, part, plainShape, someCases } from "./cases.ts";
import type { GridPart } from "./grid.ts";

const seed = testSeed();
const compiler = findCompiler() !== undefined || "no C compiler (apt-get install gcc libc6-dev)";
const skip = requirement("ElasticBuffer", compiler);

async function run(
  parts: readonly GridPart[],
  options: { readonly ranksPerNode?: number; readonly commThreads?: number } = {},
): Promise<void> {
  const size = parts[0]?.shape.size as number;
  const module = new URL("./grid.ts", import.meta.url);
  const held = await runThreads<number>({
    ...{ size, module, data: parts, timeoutMs: 50_000, ...options },
  });
  const wanted = parts.reduce((sum, { cases }) => sum + cases.length, 0);
  expect(held, `seed ${seed}`).toEqual(held.map(() => wanted));
}

describe.skipIf(skip)(`dispatch and combine, bit by bit (seed ${seed})`, () => {
  it("pass the original's whole grid on 4 ranks", () => {
    const shape = plainShape(seed, 4);
    const odd = Object.values(oddShapes).flatMap((changed, i) =>
      flags.map((directMemory) => {
        const drawn = { ...plainShape(seed + 100 * i, 4), ...changed };
        return part(drawn, someCases(seed + i, 2), { directMemory });
      }),
    );
    return run([part(shape, fullGrid(seed)), ...everyKind(shape, 3, false), ...odd]);
  });

  it("hold for every kind of buffer on two nodes", () => {
    const odd = Object.values(oddShapes).flatMap((changed, i) =>
      flags.map((directMemory) => {
        const drawn = { ...plainShape(seed + 100 * i, 4), ...changed };
        return part(drawn, someCases(seed + i, 2), { directMemory });
      }),
    );
    return run([...everyKind(plainShape(seed, 4), 5, true), ...odd], { ranksPerNode: 2 });
  });

  it("hold for every kind of buffer where each rank is a node", () =>
    run(everyKind(plainShape(seed, 3), 2, true), { ranksPerNode: 1 }));

  it("hold on 2 ranks with two threads each", () =>
    run([part({ ...plainShape(seed, 2), numMaxTokensPerRank: 70 }, someCases(seed, 4))], {
      commThreads: 2,
    }));

  it("hold on 8 ranks, of 4 nodes or not", () => {
    const shape = { ...plainShape(seed, 8), numTopk: 8 };
    const parts = flags.flatMap((directMemory) =>
      flags.map((allowHybridMode) =>
        part(shape, someCases(seed, 2), { directMemory, allowHybridMode }),
      ),
    );
    return run(parts, { ranksPerNode: 2 });
  });

  it("hold on 6 ranks of 2 nodes, three threads each", () => {
    const shape = { ...plainShape(seed, 6), numTopk: 5, numMaxTokensPerRank: 40 };
    const options = { ranksPerNode: 3, commThreads: 3 };
    const cases = someCases(seed + 4, 2);
    return run(
      flags.map((directMemory) => part(shape, cases, { directMemory })),
      options,
    );
  });

  it("hold on 5 ranks that do not fill their nodes, and on one alone", async () => {
    await run([part(plainShape(seed, 5), someCases(seed, 2))], { ranksPerNode: 2 });
    await run([part(plainShape(seed, 1), someCases(seed, 3))]);
  });
});
