// Results of a sequence, forward and backward, are the same to the last bit again and again, alone
// or in a batch, in a chunk of its queries, on one thread or more (G11); and what is not finite
// reaches nothing that does not see it.

import { type DType, Tensor } from "@open-infra/tensor";
import { seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, describe, expect, it } from "vitest";
import { flashAttnVarlenFunc } from "../src/index.ts";
import { bitsOf, cumulative, type MhaProblem, mhaProblem, runBoth } from "./mha-problems.ts";
import { backends, bits } from "./problems.ts";

const seed = testSeed();
/** Odd ones, which vectors compute, and ones that matrix tiles take where there are any. */
const headDims = [
  [5, 9],
  [64, 32],
] as const;
const shapes = [
  { h: 4, hkv: 2, dqk: 5, dv: 9, dtype: "bf16", causal: true, probabilities: "bf16" },
  { h: 4, hkv: 2, dqk: 5, dv: 9, dtype: "bf16", causal: true, probabilities: "f32" },
  { h: 4, hkv: 2, dqk: 64, dv: 32, dtype: "bf16", causal: true, probabilities: "bf16" },
  { h: 3, hkv: 1, dqk: 64, dv: 64, dtype: "bf16", causal: false, probabilities: "f32" },
  { h: 6, hkv: 1, dqk: 48, dv: 40, dtype: "f32", causal: false, probabilities: "f32" },
] as const;

/** Sequence `r` of a problem as a problem of its own. */
function alone(problem: MhaProblem, r: number): MhaProblem {
  const { lensQ, lensK } = problem.shape;
  const before = (lens: readonly number[]): number => lens.slice(0, r).reduce((a, b) => a + b, 0);
  const [n, keys] = [lensQ[r] as number, lensK[r] as number];
  const pick = (t: Tensor, at: number, count: number): Tensor => t.slice(0, at, at + count);
  return {
    ...problem,
    shape: { ...problem.shape, lensQ: [n], lensK: [keys] },
    q: pick(problem.q, before(lensQ), n),
    dOut: pick(problem.dOut, before(lensQ), n),
    k: pick(problem.k, before(lensK), keys),
    v: pick(problem.v, before(lensK), keys),
    cuSeqlensQ: cumulative([n]),
    cuSeqlensK: cumulative([keys]),
  };
}

/** A copy of a tensor with some rows filled. */
function spoilt(t: Tensor, rows: readonly number[], value = Number.NaN): Tensor {
  const values = t.toFloat64();
  const width = t.size / t.dim(0);
  for (const row of rows) values.fill(value, row * width, (row + 1) * width);
  return Tensor.from(values, t.shape, t.dtype);
}

const variants = headDims.flatMap((dims) => [[dims, "bf16"] as const, [dims, "f32"] as const]);

const lens = { lensQ: [1, 200, 0, 17, 333, 30, 5], lensK: [400, 150, 7, 17, 333, 0, 9] };

for (const backend of backends("varlen attention, invariance", { reference: false })) {
  describe(`varlen attention, invariance, ${backend.name}`, () => {
    const threads = [1, 2, 3].map((n) => backend.open(n));
    const device = threads[1]!;
    afterAll(() => threads.map((d) => d[Symbol.dispose]()));
    const narrow = backend.name.includes("/");

    it.each(shapes)("alone, in a batch, again, on other threads: %o", (shape) => {
      if (narrow && shape.dtype === "f32") return;
      const random = seededRandom(seed);
      const { probabilities, ...rest } = shape;
      const problem = { ...mhaProblem(random, { ...rest, ...lens }), probabilities };
      const whole = runBoth(device, problem);
      const want = bitsOf(whole);
      for (let i = 0; i < 5; i++) expect(bitsOf(runBoth(device, problem))).toEqual(want);
      for (const other of threads) expect(bitsOf(runBoth(other, problem))).toEqual(want);
      let [startQ, startK] = [0, 0];
      for (const [r, n] of lens.lensQ.entries()) {
        const keys = lens.lensK[r] as number;
        const { out, lse, dq, dk, dv } = whole;
        const ofQueries = { out, lse, dq };
        const part = {
          ...bitsOf(mapped(ofQueries, (t) => t.slice(0, startQ, startQ + n))),
          ...bitsOf(mapped({ dk, dv }, (t) => t.slice(0, startK, startK + keys))),
        };
        const own = alone(problem, r);
        for (const dev of threads) {
          expect(bitsOf(runBoth(dev, own)), `seed ${seed}, sequence ${r}`).toEqual(part);
        }
        startQ += n;
        startK += keys;
      }
    });

    it.each(shapes.slice(0, 3))("a chunk of the queries: %o", ({ probabilities, ...shape }) => {
      const random = seededRandom(seed);
      const single = { lensQ: [300], lensK: [300] };
      const problem = { ...mhaProblem(random, { ...shape, ...single }), probabilities };
      const { out, lse } = flashAttnVarlenFunc(device, problem);
      for (let round = 0; round < 4; round++) {
        const [from, to] = [random.int(0, 150), random.int(150, 301)];
        const chunk = flashAttnVarlenFunc(device, {
          ...problem,
          q: problem.q.slice(0, from, to),
          k: problem.k.slice(0, 0, to),
          v: problem.v.slice(0, 0, to),
          cuSeqlensQ: cumulative([to - from]),
          cuSeqlensK: cumulative([to]),
        });
        const part = mapped({ out, lse }, (t) => t.slice(0, from, to));
        expect(bitsOf(chunk), `seed ${seed}, ${from} to ${to}`).toEqual(bitsOf(part));
      }
    });

    /** A causal sequence of 300 with two query heads a key head, and its clean results. */
    function clean(dtype: DType, probabilities: "f32" | "bf16", dims: readonly [number, number]) {
      const single = { lensQ: [300], lensK: [300], causal: true };
      const [dqk, dv] = dims;
      const shape = { h: 4, hkv: 2, dqk, dv, ...single, dtype };
      const problem = { ...mhaProblem(seededRandom(seed), shape), probabilities };
      return { problem, results: runBoth(device, problem) };
    }

    it.each([
      ["k", 77, Number.NaN],
      ["v", 77, Number.NaN],
      ["v", 130, Number.POSITIVE_INFINITY],
      ["k", 255, Number.NEGATIVE_INFINITY],
      ["v", 0, Number.NaN],
      ["k", 299, Number.NaN],
    ] as const)("a %s row %i of %d reaches only queries that see it", (name, row, value) => {
      for (const [dims, probabilities] of variants) {
        const { problem, results } = clean("bf16", probabilities, dims);
        const bad = { ...problem, [name]: spoilt(problem[name], [row], value) };
        const got = runBoth(device, bad);
        for (const part of ["out", "lse", "dq"] as const) {
          const before = (t: Tensor): string => bits(t.slice(0, 0, row));
          expect(before(got[part]), `${part} before`).toBe(before(results[part]));
        }
        const after = got.out.slice(0, row, 300).toFloat64();
        expect(after.some(Number.isNaN) || after.some((x) => !Number.isFinite(x))).toBe(true);
      }
    });

    it.each([
      ["q", 77],
      ["dOut", 78],
      ["q", 150],
      ["dOut", 201],
      ["q", 0],
      ["dOut", 299],
    ] as const)("a %s row %i that is NaN reaches only the keys it sees", (name, row) => {
      for (const [dims, probabilities] of variants) {
        const { problem, results } = clean("bf16", probabilities, dims);
        const got = runBoth(device, { ...problem, [name]: spoilt(problem[name], [row]) });
        for (const part of ["dk", "dv"] as const) {
          const after = (t: Tensor): string => bits(t.slice(0, row + 1, 300));
          expect(after(got[part]), `${part} after`).toBe(after(results[part]));
        }
        const others = (t: Tensor): string[] =>
          [t.slice(0, 0, row), t.slice(0, row + 1, 300)].map(bits);
        expect(others(got.dq)).toEqual(others(results.dq));
        expect(
          got.dv
            .slice(0, 0, row + 1)
            .toFloat64()
            .some(Number.isNaN),
        ).toBe(name === "q" || name === "dOut");
      }
    });

    it("queries that see nothing and keys that nobody sees may hold anything", () => {
      const shape = { h: 4, hkv: 2, causal: true, dtype: "bf16" as const };
      const uneven = { lensQ: [100, 0, 6], lensK: [60, 5, 0] };
      for (const [[dqk, dv], probabilities] of variants) {
        const problem = {
          ...mhaProblem(seededRandom(seed), { ...shape, ...uneven, dqk, dv }),
          probabilities,
        };
        const results = runBoth(device, problem);
        // Queries 0 to 39 of the first sequence come before its first key.
        const blind = [...Array(40).keys(), 100, 101, 102, 103, 104, 105];
        const unseen = [60, 61, 62, 63, 64];
        const bad = {
          ...problem,
          q: spoilt(problem.q, blind),
          dOut: spoilt(problem.dOut, blind),
          k: spoilt(problem.k, unseen),
          v: spoilt(problem.v, unseen, Number.POSITIVE_INFINITY),
        };
        expect(bitsOf(runBoth(device, bad))).toEqual(bitsOf(results));
        const zeros = (t: Tensor): boolean => t.toFloat64().every((x) => Object.is(x, 0));
        expect(zeros(results.out.slice(0, 0, 40))).toBe(true);
        expect(zeros(results.dq.slice(0, 0, 40))).toBe(true);
        expect(zeros(results.dk.slice(0, 60, 65))).toBe(true);
        expect(zeros(results.dv.slice(0, 60, 65))).toBe(true);
        const lse = results.lse.slice(0, 0, 40).toFloat64();
        expect(lse.every((x) => x === Number.POSITIVE_INFINITY)).toBe(true);
      }
    });
  });
}

function mapped(tensors: Record<string, Tensor>, f: (t: Tensor) => Tensor): Record<string, Tensor> {
  return Object.fromEntries(Object.entries(tensors).map(([name, t]) => [name, f(t)]));
}
