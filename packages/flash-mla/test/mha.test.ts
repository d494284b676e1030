// Attention over packed sequences, forward (G10): mixed lengths, GQA, causal or not, every backend.

import { type DType, Tensor } from "@open-infra/tensor";
import { seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, describe, expect, it } from "vitest";
import { flashAttnVarlenFunc } from "../src/index.ts";
import { forwardOracle, type MhaShape, mhaProblem } from "./mha-problems.ts";
import { backends, bits, notClose, poisoned } from "./problems.ts";

const seed = testSeed();

/** The rounding of outputs. */
const cosOf: Partial<Record<DType, number>> = { bf16: 2e-6, f16: 1e-7, f32: 1e-12 };

for (const backend of backends("varlen attention")) {
  describe(`varlen attention, ${backend.name}`, () => {
    const device = backend.open();
    afterAll(() => device[Symbol.dispose]());
    const random = seededRandom(seed);
    const small = backend.name === "reference";
    // Each kernel costs a compilation: the narrower instruction sets run fewer dimensions.
    const narrow = backend.name.includes("/");
    const plain = narrow && !backend.name.includes("bf16");

    function check(shape: MhaShape): void {
      const problem = mhaProblem(random, shape);
      const { q, dOut } = problem;
      const out = poisoned(dOut.shape, shape.dtype);
      const { lse } = flashAttnVarlenFunc(device, { ...problem, out });
      const want = forwardOracle(problem);
      const label = `seed ${seed} ${JSON.stringify(shape)}`;
      const cos = cosOf[shape.dtype] as number;
      expect(notClose(out.toFloat64(), want.out, 1e-3, 8.01 / 128, cos), `out, ${label}`).toBe("");
      expect(notClose(lse.toFloat64(), want.lse, 2e-6, 1e-6, 1e-12), `lse, ${label}`).toBe("");
      const sums = poisoned([shape.h, q.dim(0)], "f32").transpose(0, 1);
      const wide = poisoned([q.dim(0), shape.h, shape.dv + 3], shape.dtype);
      const strided = wide.slice(2, 1, shape.dv + 1);
      flashAttnVarlenFunc(device, { ...problem, out: strided, lse: sums });
      expect(bits(strided), label).toBe(bits(out));
      expect(bits(sums), label).toBe(bits(lse));
      const margin = [0, shape.dv + 1, shape.dv + 2].map((c) => wide.slice(2, c, c + 1));
      expect(margin.every((t) => t.toFloat64().every(Number.isNaN))).toBe(true);
    }

    it.each([
      [192, 128, 4, 4, true],
      [192, 128, 8, 2, false],
      [128, 128, 4, 4, false],
      [128, 128, 8, 2, true],
    ])("%i/%i, %i heads over %i, causal %s", (dqk, dv, h, hkv, causal) => {
      if (narrow && (dqk === 128 || !causal)) return;
      const lensQ = small || narrow ? [1, 17, 0, 110] : [1, 17, 128, 0, 333, 9];
      const lensK = small || narrow ? [9, 17, 5, 150] : [40, 17, 100, 5, 333, 0];
      check({ h, hkv, dqk, dv, lensQ, lensK, dtype: "bf16", causal });
    });

    it.each([
      [48, 32, "f32"],
      [5, 9, "f16"],
      [1, 130, "bf16"],
    ] as const)("other heads %i/%i, %s", (dqk, dv, dtype) => {
      if (narrow && dqk === 48) return;
      if (plain && dqk === 1) return;
      const lens = { lensQ: [70, 3], lensK: [70, 66] };
      check({ h: 4, hkv: 2, dqk, dv, ...lens, dtype, causal: true });
    });

    it("probabilities that may be rounded", () => {
      const lens = { lensQ: [1, 17, 100], lensK: [40, 17, 163] };
      for (const [dqk, dv] of [
        [5, 9],
        [64, 32],
      ] as const) {
        const heads = { h: 4, hkv: 2, dqk, dv };
        const shape = { ...heads, ...lens, dtype: "bf16" as const, causal: true };
        const problem = { ...mhaProblem(random, shape), probabilities: "bf16" as const };
        const { out, lse } = flashAttnVarlenFunc(device, problem);
        const want = forwardOracle(problem);
        const label = `seed ${seed}, ${dqk}/${dv}`;
        expect(notClose(out.toFloat64(), want.out, 4e-3, 8.01 / 128, 5e-6), label).toBe("");
        expect(notClose(lse.toFloat64(), want.lse, 2e-6, 1e-6, 1e-12), label).toBe("");
      }
    });

    it.each([0, -0.3])("a scale of %d", (softmaxScale) => {
      const lens = { lensQ: [20], lensK: [150] };
      const heads = { h: 2, hkv: 1, dqk: 5, dv: 9 };
      const shape = { ...heads, ...lens, dtype: "f32" as const, causal: true };
      const problem = { ...mhaProblem(random, shape), softmaxScale };
      const { out } = flashAttnVarlenFunc(device, problem);
      const want = forwardOracle(problem);
      expect(notClose(out.toFloat64(), want.out, 1e-5, 1e-5, 1e-12), `seed ${seed}`).toBe("");
    });

    it("no sequence, and only empty ones", () => {
      for (const lens of [[], [0, 0]]) {
        const shape = { h: 2, hkv: 1, dqk: 5, dv: 9, lensQ: lens, lensK: lens, causal: true };
        const problem = mhaProblem(random, { ...shape, dtype: "f32" });
        expect(flashAttnVarlenFunc(device, problem).out.shape).toEqual([0, 2, 9]);
      }
    });

    it("dtypes of its own for queries, keys and output", () => {
      const heads = { h: 2, hkv: 2, dqk: 5, dv: 9 };
      const lens = { lensQ: [40], lensK: [40] };
      const shape = { ...heads, ...lens, dtype: "bf16" as const, causal: true };
      const problem = mhaProblem(random, shape);
      const q = Tensor.from(problem.q.toFloat64(), problem.q.shape, "f32");
      const out = poisoned(problem.dOut.shape, "f32");
      flashAttnVarlenFunc(device, { ...problem, q, out });
      const want = forwardOracle(problem).out;
      expect(notClose(out.toFloat64(), want, 1e-5, 1e-5, 1e-12), `seed ${seed}`).toBe("");
    });
  });
}
