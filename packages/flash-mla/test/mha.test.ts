// Attention over packed sequences, forward (G10): mixed lengths, GQA, causal or not, every backend.

import type { Device } from "@open-infra/jit";
import { type DType, Tensor } from "@open-infra/tensor";
import { type Random, seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, describe, expect, it } from "vitest";
import { flashAttnVarlenFunc } from "../src/index.ts";
import { backends, bits, drawn, notClose, poisoned, softmaxRow } from "./problems.ts";

const seed = testSeed();

interface Shape {
  readonly h: number;
  readonly hkv: number;
  readonly dqk: number;
  readonly dv: number;
  readonly lensQ: readonly number[];
  readonly lensK: readonly number[];
  readonly dtype: DType;
  readonly causal: boolean;
}

const cumulative = (lens: readonly number[]): Tensor<"i32"> => {
  const sums = [0];
  for (const n of lens) sums.push((sums.at(-1) as number) + n);
  return Tensor.from(sums, [sums.length], "i32");
};

function check(device: Device, random: Random, shape: Shape): void {
  const { h, hkv, dqk, dv, lensQ, lensK, dtype, causal } = shape;
  const cuSeqlensQ = cumulative(lensQ);
  const cuSeqlensK = cumulative(lensK);
  const tq = cuSeqlensQ.raw().at(-1) as number;
  const tk = cuSeqlensK.raw().at(-1) as number;
  const make = (t: number, heads: number, d: number): Tensor =>
    Tensor.from(
      drawn(random, t * heads * d).map((x) => x * 5),
      [t, heads, d],
      dtype,
    );
  const q = make(tq, h, dqk);
  // Keys and values are slices of one packed tensor, as a projection leaves them.
  const kv = make(tk, hkv, dqk + dv);
  const k = kv.slice(2, 0, dqk);
  const v = kv.slice(2, dqk, dqk + dv);
  const out = poisoned([tq, h, dv], dtype);
  const softmaxScale = (dqk + 100) ** -0.5;
  const args = { q, k, v, cuSeqlensQ, cuSeqlensK, softmaxScale, causal, out };
  const { lse } = flashAttnVarlenFunc(device, args);
  const queries = q.toFloat64();
  const packed = kv.toFloat64();
  const width = dqk + dv;
  const want: number[] = [];
  const sums: number[] = [];
  for (let r = 0; r < lensQ.length; r++) {
    for (let i = 0; i < (lensQ[r] as number); i++) {
      for (let head = 0; head < h; head++) {
        const at = ((cuSeqlensQ.raw()[r] as number) + i) * h + head;
        const n = lensK[r] as number;
        const visible = causal ? Math.max(0, Math.min(n, n - (lensQ[r] as number) + i + 1)) : n;
        const base = (j: number): number =>
          (((cuSeqlensK.raw()[r] as number) + j) * hkv + Math.floor(head / (h / hkv))) * width;
        const row = softmaxRow(
          queries.subarray(at * dqk, (at + 1) * dqk),
          visible,
          softmaxScale,
          dv,
          (j) => packed.subarray(base(j), base(j) + dqk),
          (j) => packed.subarray(base(j) + dqk, base(j) + width),
        );
        want.push(...row.out);
        sums.push(row.lse);
      }
    }
  }
  const label = `seed ${seed} ${JSON.stringify(shape)}`;
  const cos = dtype === "f32" ? 1e-12 : 2e-6;
  expect(notClose(out.toFloat64(), want, 1e-3, 8.01 / 128, cos), `out, ${label}`).toBe("");
  expect(notClose(lse.toFloat64(), sums, 2e-6, 1e-6, 1e-12), `lse, ${label}`).toBe("");
  const again = poisoned([tq, h, dv], dtype);
  flashAttnVarlenFunc(device, { ...args, out: again });
  expect(bits(again)).toBe(bits(out));
}

for (const backend of backends("varlen attention")) {
  describe(`varlen attention, ${backend.name}`, () => {
    const device = backend.open();
    afterAll(() => device[Symbol.dispose]());
    const random = seededRandom(seed);
    const small = backend.name === "reference";
    // Each kernel costs a compilation: the narrower instruction sets run fewer dimensions.
    const narrow = backend.name.includes("/");

    it.each([
      [192, 128, 4, 4, true],
      [192, 128, 8, 2, false],
      [128, 128, 4, 4, false],
      [128, 128, 8, 2, true],
    ])("%i/%i, %i heads over %i, causal %s", (dqk, dv, h, hkv, causal) => {
      if (narrow && dqk === 128) return;
      const lensQ = small ? [1, 17, 0, 30] : [1, 17, 128, 0, 333];
      const lensK = small ? [9, 17, 5, 20] : [40, 17, 100, 5, 333];
      check(device, random, { h, hkv, dqk, dv, lensQ, lensK, dtype: "bf16", causal });
    });

    it.each([
      [48, 32, "f32"],
      [5, 9, "f16"],
    ] as const)("small heads %i/%i, %s", (dqk, dv, dtype) => {
      if (narrow && dqk === 48) return;
      const lens = { lensQ: [70, 3], lensK: [70, 66] };
      check(device, random, { h: 4, hkv: 2, dqk, dv, ...lens, dtype, causal: true });
    });
  });
}
