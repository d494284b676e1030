// Gradients of attention over packed sequences against the float64 reference (G10): mixed lengths,
// GQA, causal or not, packed inputs, every backend.

import { type DType, Tensor } from "@open-infra/tensor";
import { calcDiff, seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, describe, expect, it } from "vitest";
import {
  flashAttnVarlenKvpackedBackward,
  flashAttnVarlenKvpackedFunc,
  flashAttnVarlenQkvpackedBackward,
  flashAttnVarlenQkvpackedFunc,
} from "../src/index.ts";
import {
  bitsOf,
  cumulative,
  gradientOracle,
  type MhaShape,
  mhaProblem,
  runBoth,
} from "./mha-problems.ts";
import { backends, bits, drawn, notClose, poisoned } from "./problems.ts";

const seed = testSeed();
const names = ["dq", "dk", "dv"] as const;

/** The rounding of outputs; bf16 has that of the forward pass as well. */
const cosOf: Partial<Record<DType, number>> = { bf16: 3e-6, f16: 1e-7, f32: 1e-11 };

for (const backend of backends("varlen attention, backward")) {
  describe(`varlen attention, backward, ${backend.name}`, () => {
    const device = backend.open();
    afterAll(() => device[Symbol.dispose]());
    const random = seededRandom(seed);
    const small = backend.name === "reference";
    // Each kernel costs a compilation: the narrower instruction sets run fewer dimensions.
    const narrow = backend.name.includes("/");
    const plain = narrow && !backend.name.includes("bf16");

    function check(shape: MhaShape): void {
      const problem = mhaProblem(random, shape);
      const got = runBoth(device, problem);
      const want = gradientOracle(problem);
      const cos = cosOf[shape.dtype] as number;
      for (const name of names) {
        const [g, w] = [got[name].toFloat64(), want[name].toFloat64()];
        const label = `${name}, seed ${seed} ${JSON.stringify(shape)}`;
        expect(notClose(g, w, 1e-3, 8.01 / 128, 7e-6), label).toBe("");
        expect(calcDiff(g, w), label).toBeLessThan(cos);
      }
    }

    it.each([
      [192, 128, 4, 4, true],
      [192, 128, 8, 2, false],
      [128, 128, 2, 2, false],
      [128, 128, 4, 1, true],
    ])("%i/%i, %i heads over %i, causal %s", (dqk, dv, h, hkv, causal) => {
      if (narrow && (dqk === 128 || !causal)) return;
      const short = small || narrow;
      const lensQ = short ? [1, 17, 0, 110, 5] : [1, 17, 128, 0, 333, 9];
      const lensK = short ? [9, 17, 5, 150, 0] : [40, 17, 100, 5, 333, 0];
      check({ h, hkv, dqk, dv, lensQ, lensK, dtype: "bf16", causal });
    });

    it.each([
      [48, 32, "f32"],
      [5, 9, "f16"],
      [1, 130, "bf16"],
    ] as const)("other heads %i/%i, %s", (dqk, dv, dtype) => {
      if (narrow && dqk === 48) return;
      if (plain && dqk === 1) return;
      const lens = { lensQ: [70, 3, 12], lensK: [70, 166, 0] };
      check({ h: 4, hkv: 2, dqk, dv, ...lens, dtype, causal: true });
      check({ h: 3, hkv: 1, dqk, dv, ...lens, dtype, causal: false });
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
        const got = runBoth(device, problem);
        const want = gradientOracle(problem);
        for (const name of names) {
          const label = `${name}, seed ${seed}, ${dqk}/${dv}`;
          expect(calcDiff(got[name].toFloat64(), want[name].toFloat64()), label).toBeLessThan(7e-6);
        }
      }
    });

    it("the gradient of lse", () => {
      const shape = { h: 2, hkv: 1, dqk: 5, dv: 9, lensQ: [40, 6], lensK: [30, 0], causal: true };
      const problem = mhaProblem(random, { ...shape, dtype: "f32" });
      const dLse = Tensor.from(drawn(random, 92), [46, 2], "f32");
      const got = runBoth(device, problem, { dLse });
      const want = gradientOracle(problem, dLse);
      for (const name of names) {
        expect(calcDiff(got[name].toFloat64(), want[name].toFloat64()), name).toBeLessThan(1e-11);
      }
      expect(bits(got.dq)).not.toBe(bits(runBoth(device, problem).dq));
    });

    it("packed tensors are slices, forward and backward", () => {
      const [h, headDimQk, dv] = [2, 5, 9];
      const cuSeqlens = cumulative([40, 0, 33]);
      const packed = (t: number, heads: number, width: number): Tensor =>
        Tensor.from(drawn(random, t * heads * width), [t, heads, width], "bf16");
      const qkv = packed(73, h, 2 * headDimQk + dv);
      const dOut = packed(73, h, dv);
      const [q, kv] = [qkv.slice(2, 0, 5).contiguous(), qkv.slice(2, 5, 19).contiguous()];
      const [k, v] = [kv.slice(2, 0, 5), kv.slice(2, 5, 14)];
      const lens = { lensQ: [40, 0, 33], lensK: [40, 0, 33] };
      const shape = { h, hkv: h, dqk: 5, dv, ...lens, dtype: "bf16" as const, causal: true };
      const cu = { cuSeqlensQ: cuSeqlens, cuSeqlensK: cuSeqlens };
      const base = { softmaxScale: 0.7, causal: true };
      const {
        out,
        lse,
        dq,
        dk,
        dv: dV,
      } = runBoth(device, { shape, q, k, v, dOut, ...cu, ...base });

      const self = { qkv, cuSeqlens, maxSeqlen: 40, headDimQk, ...base };
      const selfForward = flashAttnVarlenQkvpackedFunc(device, self);
      expect(bitsOf(selfForward)).toEqual(bitsOf({ out, lse }));
      const dQkv = poisoned(qkv.shape, "bf16");
      flashAttnVarlenQkvpackedBackward(device, { ...self, ...selfForward, dOut, dQkv });
      expect(bits(dQkv.slice(2, 0, 5))).toBe(bits(dq));
      expect(bits(dQkv.slice(2, 5, 10))).toBe(bits(dk));
      expect(bits(dQkv.slice(2, 10, 19))).toBe(bits(dV));

      const cross = { q, kv, ...cu, maxSeqlenQ: 40, maxSeqlenK: 50, headDimQk, ...base };
      const crossForward = flashAttnVarlenKvpackedFunc(device, cross);
      expect(bitsOf(crossForward)).toEqual(bitsOf({ out, lse }));
      const both = flashAttnVarlenKvpackedBackward(device, { ...cross, ...crossForward, dOut });
      expect(bits(both.dq)).toBe(bits(dq));
      expect(bits(both.dKv)).toBe(bits(dQkv.slice(2, 5, 19)));
    });
  });
}
