// The FP8 casts, byte for byte: fixed cases worked out by hand, then every backend against the
// reference on random matrices.

import { createDevice } from "@open-infra/jit";
import { Tensor } from "@open-infra/tensor";
import { calcDiff, seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, describe, expect, it } from "vitest";
import {
  castBackFromFp8,
  ceilToUe8m0,
  perBlockCastToFp8,
  perTokenCastToFp8,
  type ScaledTensor,
} from "../src/index.ts";
import { allDevices, poisoned, randomTensor, withRowGaps } from "./helpers.ts";

const seed = testSeed();
const devices = allDevices();
const reference = createDevice({ backend: "reference" });
afterAll(() => {
  for (const { device } of devices) device[Symbol.dispose]();
});

const codes = (t: ScaledTensor): number[] => [...(t.data.raw() as Uint8Array)];
const scales = (t: ScaledTensor): number[] => [...(t.scales.raw() as Float32Array)];

it("ceilToUe8m0 rounds up to powers of two and clamps", () => {
  expect([1, 1.0000001, 0.75, 0, 2 ** -130, 2 ** 127, 2 ** 127 * 1.5].map(ceilToUe8m0)).toEqual([
    1,
    2,
    1,
    2 ** -126,
    2 ** -126,
    2 ** 127,
    2 ** 127,
  ]);
});

describe.each(devices)("$name", ({ device }) => {
  it("codes of known values: scale 1 makes ties and subnormals visible", () => {
    // amax 448 gives scale 1; 17 and 19 are ties to even, 2^-10 a tie to zero, 1.5 · 2^-9 to 2^-8.
    const x = Tensor.from([448, -448, 0, 17, 19, 2 ** -9, 2 ** -10, 1.5 * 2 ** -9], [1, 8], "f32");
    const cast = perTokenCastToFp8(device, { x });
    expect(scales(cast)).toEqual([1]);
    expect(codes(cast)).toEqual([0x7e, 0xfe, 0, 0x58, 0x5a, 0x01, 0x00, 0x02]);
  });

  it("blocks of zeros and of tiny values take the 1e-4 floor", () => {
    const x = Tensor.from([0, 0, 1e-5, 0], [2, 2], "f32");
    const cast = perTokenCastToFp8(device, { x });
    const floor = Math.fround(Math.fround(1e-4) / 448);
    expect(scales(cast)).toEqual([floor, floor]);
    expect(codes(cast).slice(0, 2)).toEqual([0, 0]);
    expect(scales(perTokenCastToFp8(device, { x, useUe8m0: true }))).toEqual([2 ** -22, 2 ** -22]);
  });

  it("a NaN spoils its block only", () => {
    const values = new Float64Array(256).fill(2);
    values[3] = Number.NaN;
    const cast = perTokenCastToFp8(device, { x: Tensor.from(values, [1, 256], "f32") });
    expect(Number.isNaN(scales(cast)[0])).toBe(true);
    expect(codes(cast).every((code, i) => ((code & 0x7f) === 0x7f) === i < 128)).toBe(true);
  });

  it.each(["f32", "bf16", "f16"] as const)("%s against the reference, tails and gaps", (dtype) => {
    const random = seededRandom(seed);
    for (const [m, k] of [
      [1, 1],
      [5, 200],
      [130, 333],
      [0, 7],
      [3, 0],
    ] as const) {
      const dense = randomTensor(
        random,
        [m, k],
        dtype,
        () => random.normal() * 2 ** random.int(-9, 9),
      );
      const x = withRowGaps(dense, 3);
      for (const useUe8m0 of [false, true]) {
        for (const cast of [perTokenCastToFp8, perBlockCastToFp8]) {
          const got = cast(device, { x, useUe8m0 });
          const want = cast(reference, { x: dense, useUe8m0 });
          const label = `seed ${seed} ${cast.name} [${m},${k}]`;
          expect(codes(got), label).toEqual(codes(want));
          expect(scales(got), label).toEqual(scales(want));
          const granM = cast === perTokenCastToFp8 ? 1 : 128;
          const back = castBackFromFp8(device, { x: got, granM });
          expect(back.bytes(), label).toEqual(
            castBackFromFp8(reference, { x: want, granM }).bytes(),
          );
          if (m * k > 1) {
            expect(calcDiff(back.toFloat64(), dense.toFloat64()), label).toBeLessThan(2e-3);
          }
        }
      }
    }
  });

  it("writes into given tensors, other granularities, and wider rows", () => {
    const random = seededRandom(seed);
    const x = randomTensor(random, [4, 96], "bf16");
    const wide = poisoned([4, 128], "e4m3fn");
    const out = { data: wide.slice(1, 0, 96), scales: poisoned([4, 3], "f32") };
    expect(perTokenCastToFp8(device, { x, granK: 32, out })).toBe(out);
    const want = perTokenCastToFp8(reference, { x, granK: 32 });
    expect(out.data.contiguous().bytes()).toEqual(want.data.bytes());
    expect(scales(out)).toEqual(scales(want));
    expect(
      wide
        .slice(1, 96, 128)
        .contiguous()
        .bytes()
        .every((b) => b === 0xff),
    ).toBe(true);
  });
});
