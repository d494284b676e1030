// Gold test 14 of the paper's checklist and its neighbours: every dtype, counts that nothing
// divides, every number of ranks from 1 to 17, nodes of any size, every way buffers are reached.

import { runProcesses, runThreads } from "@open-infra/ranks";
import { testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { type Case, kinds, type Script } from "./ranks/collectives.ts";
import { soakRound } from "./soak/collectives.soak.ts";

const module = new URL("./ranks/collectives.ts", import.meta.url);
type Transport = "heap" | "shm" | "tcp";

const plain: Case = {
  kind: "allreduce",
  dtype: "f32",
  op: "sum",
  algorithm: "auto",
  wire: "accumulator",
  count: 1000,
  devices: 1,
  root: 0,
  inPlace: true,
  registered: false,
  values: "integers",
  seed: 1,
};

/** Small chunks and few inline bytes, so that short buffers take many turns. */
const open = { chunkBytes: 512, smallBytes: 256, stageBytes: 4096 };

/** Runs scripts on threads; each rank checks every result, and says how many there were. */
async function threads(
  size: number,
  ranksPerNode: number,
  scripts: readonly Script[],
  transport: Transport = "heap",
): Promise<void> {
  const options = { size, ranksPerNode, transport, timeoutMs: 60_000, module, data: scripts };
  const cases = scripts.reduce((sum, script) => sum + script.cases.length, 0);
  expect(await runThreads(options)).toEqual(new Array(size).fill(cases));
}

/** The first `n` of `size` ranks together, the others alone. */
function firstOf(n: number, size: number): number[][] {
  const all = Array.from({ length: size }, (_, rank) => rank);
  return [all.slice(0, n), ...all.slice(n).map((rank) => [rank])];
}

describe("allreduce of 1 to 17 ranks equals the reference sum, on every rank", () => {
  const dtypes = ["f32", "bf16", "f16", "e4m3fn", "e5m2", "f64", "i32", "i64"] as const;
  const layouts: [number, number[]][] = [
    [1, [1, 3, 5, 7, 9, 11, 13, 15, 17]],
    [3, [2, 4, 6, 8, 10, 12, 14, 16]],
    [17, [2, 8, 17]],
  ];
  for (const [ranksPerNode, sizes] of layouts) {
    it(`${ranksPerNode} a node`, async () => {
      const scripts = sizes.map((n): Script => {
        const cases = dtypes.map((dtype, d): Case => {
          const algorithm = (["auto", "tree", "ring"] as const)[(n + d) % 3] as "auto";
          return { ...plain, dtype, algorithm, count: 397 + 131 * d + n, seed: d };
        });
        return { cases, open, sets: firstOf(n, 17) };
      });
      await threads(17, ranksPerNode, scripts);
    }, 120_000);
  }
});

describe("every kind", () => {
  const cases = kinds.flatMap((kind) =>
    [0, 1, 777].flatMap((count) =>
      [true, false].map((inPlace, i): Case => {
        return { ...plain, kind, count, inPlace, devices: 1 + i, root: 1, seed: count };
      }),
    ),
  );
  const registered = cases.map((c): Case => ({ ...c, registered: true }));
  for (const transport of ["heap", "shm", "tcp"] as const) {
    it(`over ${transport}`, async () => {
      for (const ranksPerNode of [4, 2]) {
        await threads(4, ranksPerNode, [{ cases: [...cases, ...registered], open }], transport);
      }
    }, 120_000);
  }

  it("between processes of a host", async () => {
    const data = [{ cases: [...cases, ...registered], open }];
    await runProcesses<number>({ size: 3, ranksPerNode: 2, timeoutMs: 60_000, module, data });
  }, 120_000);
});

describe("what is special", () => {
  it("NaN and infinities go where arithmetic takes them, in every operation", async () => {
    const cases = (["sum", "avg", "max", "min"] as const).map(
      (op, i): Case => ({ ...plain, op, values: "special", seed: 7 + i, count: 300 }),
    );
    await threads(3, 1, [{ cases, open }]);
  });

  it("does not depend on the size of chunks, nor on how many threads communicate", async () => {
    const cases = (["tree", "ring"] as const).map(
      (algorithm): Case => ({ ...plain, algorithm, values: "reals", count: 5_003 }),
    );
    const chunks = [512, 8192, 1 << 20];
    const data = chunks.map((chunkBytes) => ({ cases, open: { ...open, chunkBytes } }));
    const timeoutMs = 60_000;
    await threads(5, 2, data);
    await runThreads({ size: 4, ranksPerNode: 2, commThreads: 2, timeoutMs, module, data });
  });

  it("works in disjoint sets of members at once", async () => {
    const sets = [
      [0, 5],
      [1, 4],
      [2, 3, 6],
    ];
    const cases = kinds.map((kind): Case => ({ ...plain, kind, values: "reals", root: 1 }));
    await threads(7, 2, [{ cases, open, sets }]);
    await threads(7, 2, [{ cases, open, sets }], "shm");
  });
});

describe("random operations", () => {
  // A slice of soak/collectives.soak.ts.
  for (let round = 0; round < 3; round++) {
    it(`round ${round}`, async () => {
      await soakRound(testSeed() + round, 12);
    }, 120_000);
  }
});
