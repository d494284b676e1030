// Products with FP4 factors on every backend: the tight check against the dequantised operands
// beside the original's loose ones against what was quantised; scales packed and not.

import { calcDiff, seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, describe, expect, it } from "vitest";
import {
  castBackFromFp4,
  castBackFromFp8,
  fp8Fp4GemmNt,
  perTokenCastToFp4,
  perTokenCastToFp8,
  transposePackedFp4,
  unpackUe8m0FromInt,
} from "../src/index.ts";
import { allDevices, poisoned, product, randomTensor } from "./helpers.ts";

const seed = testSeed();
const all = allDevices();
// Of the compiled ones the best and a narrow one: layouts.test.ts has FP4 on all of them.
const devices = all.filter(({ name }, i) => i < 2 || name.endsWith("avx2"));
afterAll(() => {
  for (const { device } of all) device[Symbol.dispose]();
});

const fp4 = { granK: 32, useUe8m0: true };

describe.each(devices)("$name", ({ device }) => {
  it.each([
    ["FP8 × FP4", 1e-2, 4e-3],
    ["FP4 × FP4", 2e-2, 8e-3],
  ] as const)("%s", (kind, loose, floor) => {
    const random = seededRandom(seed);
    for (const [m, n, k] of [
      [33, 40, 512],
      [1, 72, 256],
      [7, 9, 160],
    ] as const) {
      const x = randomTensor(random, [m, k], "bf16");
      const y = randomTensor(random, [n, k], "bf16");
      const b = perTokenCastToFp4(device, { x: y, ...fp4 });
      const both = kind === "FP4 × FP4";
      const a = both
        ? perTokenCastToFp4(device, { x, ...fp4 })
        : perTokenCastToFp8(device, { x, useUe8m0: true });
      const granA = both ? 32 : 128;
      const back = both
        ? castBackFromFp4(device, { x: a, granK: granA })
        : castBackFromFp8(device, { x: a, granM: 1, granK: granA });
      const dense = castBackFromFp4(device, { x: b, granK: 32 });
      const label = `seed ${seed} [${m},${n},${k}]`;
      const want = product(back.toFloat64(), dense.toFloat64(), [m, n, k]);
      const recipes = { recipeA: [1, granA], recipeB: [1, 32] } as const;
      const d = poisoned([m, n], both ? "bf16" : "f32");
      fp8Fp4GemmNt(device, { a, b, d, ...recipes });
      const got = d.toFloat64();
      expect(calcDiff(got, want), label).toBeLessThan(both ? 5e-6 : 1e-10);
      if (m < 30) continue;
      const diff = calcDiff(got, product(x.toFloat64(), y.toFloat64(), [m, n, k]));
      expect(diff, label).toBeLessThan(loose);
      expect(diff, label).toBeGreaterThan(floor);
    }
  });

  it("packed scales and codes packed across K arrive at the same product", () => {
    const random = seededRandom(seed + 1);
    const [m, n, k] = [6, 10, 128];
    const a = perTokenCastToFp8(device, {
      x: randomTensor(random, [m, k], "bf16"),
      useUe8m0: true,
    });
    const y = randomTensor(random, [n, k], "bf16");
    const b = perTokenCastToFp4(device, { x: y, ...fp4 });
    const packed = perTokenCastToFp4(device, { x: y, ...fp4, usePackedUe8m0: true });
    const [d, e] = [poisoned([m, n], "f32"), poisoned([m, n], "f32")];
    const recipes = { recipeA: [1, 128], recipeB: [1, 32] } as const;
    fp8Fp4GemmNt(device, { a, b, d, ...recipes });
    const scales = unpackUe8m0FromInt(packed.scales, k / 32);
    const across = transposePackedFp4(device, packed.data);
    const data = transposePackedFp4(device, across);
    fp8Fp4GemmNt(device, { a, b: { data, scales }, d: e, ...recipes });
    expect(e.bytes(), `seed ${seed}`).toEqual(d.bytes());
  });
});
