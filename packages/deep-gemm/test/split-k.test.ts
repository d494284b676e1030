// Products cut along K: the same bits whatever M and the threads are, those of the whole product
// where vectors multiply; and calls that cannot be cut.

import { Tensor } from "@open-infra/tensor";
import { calcDiff, seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, describe, expect, it } from "vitest";
import {
  bf16GemmNn,
  bf16GemmNt,
  fp8GemmNt,
  perBlockCastToFp8,
  perTokenCastToFp8,
} from "../src/index.ts";
import { familyDevices, poisoned, randomTensor, withRowGaps } from "./helpers.ts";

const seed = testSeed();
const devices = familyDevices();
afterAll(() => {
  for (const { device } of devices) device[Symbol.dispose]();
});

const bytes = (t: Tensor): Uint8Array => t.contiguous().bytes().slice();

describe.each(devices)("$name", ({ name, device }) => {
  const slow = name === "reference" || name.endsWith("scalar");
  /** Matrix tiles sum a whole K in one chain. */
  const splitK = name.startsWith("cpu amx");

  it("bf16: any M, tails of K, C, output types and threads", () => {
    const random = seededRandom(seed);
    const [n, k] = [20, 1700];
    const most = slow ? 9 : 70;
    const a = randomTensor(random, [most, k], "bf16");
    const b = randomTensor(random, [n, k], "bf16");
    for (const dtype of ["f32", "bf16", "f16"] as const) {
      const c = randomTensor(random, [most, n], dtype);
      const whole = withRowGaps(poisoned([most, n], dtype), 3);
      bf16GemmNt(device, { a, b, d: whole, c, splitK });
      for (const m of slow ? [1, 9] : [1, 2, 7, 33, 70]) {
        for (const threads of [1, 2]) {
          const d = withRowGaps(poisoned([m, n], dtype), 5);
          const part = { a: a.slice(0, 0, m), c: c.slice(0, 0, m) };
          bf16GemmNt(device, { ...part, b, d, threads, splitK: true });
          const label = `seed ${seed} ${dtype} M=${m} threads ${threads}`;
          expect(bytes(d), label).toEqual(bytes(whole.slice(0, 0, m)));
        }
      }
    }
    // Against float64, and where B lies across K.
    const d = poisoned([most, n], "f32");
    bf16GemmNn(device, { a, b: b.transpose(0, 1).clone(), d, splitK: true });
    const [x, y] = [a.toFloat64(), b.toFloat64()];
    const want = Float64Array.from({ length: most * n }, (_, i) => {
      let sum = 0;
      for (let j = 0; j < k; j++) {
        sum += (x[Math.floor(i / n) * k + j] as number) * (y[(i % n) * k + j] as number);
      }
      return sum;
    });
    expect(calcDiff(d.toFloat64(), want), `seed ${seed}`).toBeLessThan(1e-10);
  });

  it("fp8 with either place of scales; C is d; short and empty K", () => {
    const random = seededRandom(seed + 1);
    for (const [m, n, k] of [
      [1, 130, 1536],
      [6, 40, 1100],
      [3, 24, 512],
      [3, 24, 0],
      [0, 24, 1024],
    ] as const) {
      const a = perTokenCastToFp8(device, { x: randomTensor(random, [m, k], "bf16") });
      const x = randomTensor(random, [n, k], "bf16");
      for (const [b, recipe] of [
        [perBlockCastToFp8(device, { x }), [1, 128, 128]],
        [perTokenCastToFp8(device, { x }), [1, 1, 128]],
      ] as const) {
        const c = randomTensor(random, [m, n], "f32");
        const [want, got] = [c.clone(), c.clone()];
        const args = { a, b, recipe };
        fp8GemmNt(device, { ...args, d: want, c: want, splitK });
        const whole = c.clone();
        fp8GemmNt(device, { ...args, d: whole, c: whole });
        const diff = calcDiff(want.toFloat64(), whole.toFloat64());
        expect(diff, `seed ${seed} ${m} ${n} ${k}`).toBeLessThan(1e-10);
        fp8GemmNt(device, { ...args, d: got, c: got, splitK: true });
        expect(bytes(got), `seed ${seed} ${m} ${n} ${k} ${recipe}`).toEqual(bytes(want));
      }
    }
  });
});

describe("refuses", () => {
  const { device } = devices[0] as (typeof devices)[0];
  const t = (shape: number[], dtype: "bf16" | "f32" = "bf16"): Tensor => Tensor.empty(shape, dtype);
  const args = { a: t([2, 1024]), b: t([8, 1024]), d: t([2, 8]), splitK: true };

  it("an epilogue, and what the product itself refuses", () => {
    const epilogue = { alpha: 2 };
    expect(() => bf16GemmNt(device, { ...args, epilogue })).toThrow(
      /splitK is true with an epilog/,
    );
    expect(() => bf16GemmNt(device, { ...args, b: t([8, 1000]) })).toThrow(/K=1024/);
  });

  it("scales of more k than a part has", () => {
    const codes = (shape: number[], blocks: number[]) => ({
      data: Tensor.empty(shape, "e4m3fn"),
      scales: Tensor.empty(blocks, "f32"),
    });
    const [a, b] = [codes([2, 1536], [2, 2]), codes([8, 1536], [8, 2])];
    const call = { a, b, d: t([2, 8], "f32"), recipe: [1, 1, 768] as const, splitK: true };
    expect(() => fp8GemmNt(device, call)).toThrow(/splitK is true with this recipe.*512/);
  });
});
