// Decode by matrix tiles: what only they can get wrong. On a processor that has them, the bits of
// the tiles and of their emulation are the same.

import { createDevice, type Device, findCompiler } from "@open-infra/jit";
import { Tensor } from "@open-infra/tensor";
import { requirement, seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, describe, expect, it } from "vitest";
import { flashMlaWithKvcache, type Probabilities } from "../src/index.ts";
import { bits, notClose, type PagedProblem, pagedProblem, poisoned } from "./problems.ts";

const seed = testSeed();

function open(isa: string): Device | undefined {
  const missing =
    findCompiler() === undefined ? "no C compiler; install one, e.g. 'apt-get install gcc'" : true;
  if (requirement(`decode by tiles, ${isa}`, missing)) return undefined;
  try {
    return createDevice({ backend: "cpu", threads: 1, isa });
  } catch (error) {
    requirement(`decode by tiles, ${isa}`, (error as Error).message, "optional");
    return undefined;
  }
}

interface Run {
  readonly causal?: boolean;
  readonly probabilities?: Probabilities;
  readonly q?: Tensor;
  readonly kCache?: Tensor;
}

function run(device: Device, problem: PagedProblem, options: Run = {}) {
  const { q, kCache, blockTable, cacheSeqlens, dv, sq, hq, lens } = problem;
  const out = poisoned([lens.length, sq, hq, dv], "f32");
  const lse = poisoned([lens.length, hq, sq], "f32");
  const inputs = { q, kCache, blockTable, cacheSeqlens, headDimV: dv, causal: true };
  flashMlaWithKvcache(device, { ...inputs, out, lse, ...options });
  return { out, lse };
}

/** All rows of a problem in float64. */
function oracle(problem: PagedProblem): number[] {
  const { lens, sq, hq } = problem;
  return lens.flatMap((_, r) =>
    Array.from({ length: sq }, (_, i) =>
      Array.from({ length: hq }, (_, h) => [...problem.row(r, i, h, true).out]).flat(),
    ).flat(),
  );
}

const small = { d: 96, dv: 96, page: 16, dtype: "bf16" as const, sharp: 5 };

const emulated = open("amx-emulated");
describe.skipIf(emulated === undefined)("decode by matrix tiles, emulated", () => {
  const device = emulated as Device;
  const real = open("amx");
  afterAll(() => {
    device[Symbol.dispose]();
    real?.[Symbol.dispose]();
  });

  it.each([
    [1, 16, 1],
    [3, 7, 1],
    [2, 40, 1],
    [5, 13, 2],
    [1, 130, 16],
  ])("%i queries of %i heads, pages of %i", (sq, hq, page) => {
    const random = seededRandom(seed + hq);
    for (const dv of [96, 32]) {
      const shape = { ...small, sq, hq, dv, page, lens: [2, 33, 257 + sq] };
      const problem = pagedProblem(random, shape);
      const want = oracle(problem);
      for (const probabilities of ["bf16", "f32"] as const) {
        const got = run(device, problem, { probabilities });
        const cos = probabilities === "f32" ? 1e-12 : 5e-6;
        const [abs, rel] = probabilities === "f32" ? [1e-6, 1e-5] : [8e-4, 2.01 / 128];
        expect(notClose(got.out.toFloat64(), want, abs, rel, cos), `seed ${seed}`).toBe("");
        if (real === undefined) continue;
        const other = run(real, problem, { probabilities });
        expect(bits(other.out), `seed ${seed}`).toBe(bits(got.out));
        expect(bits(other.lse), `seed ${seed}`).toBe(bits(got.lse));
      }
    }
  });

  it("queries of f32 and f16 keep every bit", () => {
    const problem = pagedProblem(seededRandom(seed), { ...small, sq: 2, hq: 5, lens: [70, 300] });
    const random = seededRandom(seed + 1);
    for (const dtype of ["f32", "f16"] as const) {
      const values = problem.q.toFloat64().map((x) => x + random.normal() * 1e-3);
      const q = Tensor.from(values, problem.q.shape, dtype);
      const inexact = Tensor.from(q.toFloat64(), q.shape, "bf16");
      const got = run(device, problem, { q });
      // The kernel for floats is another one altogether.
      using plain = createDevice({ backend: "reference" });
      const want = run(plain, problem, { q });
      const label = `seed ${seed}, ${dtype}`;
      const [found, expected] = [got.out.toFloat64(), want.out.toFloat64()];
      expect(notClose(found, expected, 1e-6, 1e-5, 1e-12), label).toBe("");
      const rounded = run(device, problem, { q: inexact }).out.toFloat64();
      expect(notClose(rounded, expected, 1e-6, 1e-5, 1e-12), label).not.toBe("");
    }
  });

  it("a head's bits do not depend on how many others there are", () => {
    const problem = pagedProblem(seededRandom(seed), { ...small, sq: 2, hq: 67, lens: [290] });
    const whole = run(device, problem);
    for (const [from, to] of [
      [0, 5],
      [3, 19],
      [20, 52],
      [60, 67],
    ] as const) {
      const part = { ...problem, hq: to - from, q: problem.q.slice(2, from, to) };
      const got = run(device, part);
      const label = `seed ${seed}, heads ${from} to ${to}`;
      expect(bits(got.out), label).toBe(bits(whole.out.slice(2, from, to)));
      expect(bits(got.lse), label).toBe(bits(whole.lse.slice(1, from, to)));
    }
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY])(
    "a key of %d reaches only the queries that see it",
    (value) => {
      for (const [sq, hq] of [
        [6, 5],
        [40, 5],
        [9, 16],
      ] as const) {
        const shape = { ...small, sq, hq, lens: [261 + sq] };
        const problem = pagedProblem(seededRandom(seed + sq), shape);
        const clean = run(device, problem).out;
        const at = 3;
        const key = 261 + at; // The last key that query 3 sees.
        const table = problem.blockTable.raw() as Int32Array;
        const row =
          (table[Math.floor(key / small.page)] as number) * small.page + (key % small.page);
        const cache = problem.kCache.toFloat64();
        cache.fill(value, row * small.d + 40, row * small.d + 50);
        const kCache = Tensor.from(cache, problem.kCache.shape, "bf16");
        const got = run(device, problem, { kCache }).out;
        const label = `seed ${seed}, ${sq} queries of ${hq} heads`;
        expect(bits(got.slice(1, 0, at)), label).toBe(bits(clean.slice(1, 0, at)));
        const seen = got.slice(1, at, sq).toFloat64();
        expect(seen.every(Number.isFinite), label).toBe(false);
      }
    },
  );
});
