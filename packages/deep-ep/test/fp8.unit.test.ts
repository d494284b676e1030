// The FP8 recipe against bytes that torch computes.
import { packUe8m0, perTokenCastBack, perTokenCastToFp8, ue8m0Of } from "@open-infra/deep-ep";
import { Tensor } from "@open-infra/tensor";
import { expect, it } from "vitest";
import { tokensOf } from "../src/fp8.ts";

const ramp = Tensor.from(
  Array.from({ length: 128 }, (_, i) => i - 64),
  [1, 128],
  "bf16",
);

it("gives the bytes of the original's cast", () => {
  const { codes, scales } = perTokenCastToFp8(ramp);
  expect(scales.raw()[0]).toBe(Math.fround(0.14285715));
  expect([...codes.raw().subarray(0, 8)]).toEqual([254, 254, 254, 253, 253, 253, 253, 252]);
  expect([...codes.raw().subarray(64, 73)]).toEqual([0, 78, 86, 90, 94, 97, 98, 100, 102]);
  expect(codes.raw()[127]).toBe(126);
  const zero = perTokenCastToFp8(Tensor.empty([1, 128], "bf16"));
  expect(zero.scales.raw()[0]).toBe(Math.fround(2.2321428e-7));
});

it("rounds scales up to powers of two", () => {
  for (const [amax, byte] of [
    [1, 119],
    [64, 125],
    [448, 127],
    [449, 128],
    [0.3, 117],
  ] as const) {
    const x = Tensor.from([amax, 0, 0], [1, 3], "f32");
    const { codes, scales } = perTokenCastToFp8(x, { roundScale: true });
    expect(ue8m0Of(scales.raw()[0] as number)).toBe(byte);
    expect((perTokenCastBack(codes, scales)[0] as number) / amax).toBeCloseTo(1, 1);
  }
});

it("pads a tail of 128 and keeps a NaN to itself", () => {
  const x = Tensor.from(
    Array.from({ length: 130 }, (_, i) => (i === 3 ? Number.NaN : i)),
    [1, 130],
    "f32",
  );
  const { codes, scales } = perTokenCastToFp8(x, { roundScale: true });
  expect(scales.shape).toEqual([1, 2]);
  expect(scales.raw()[1]).toBe(2 ** Math.ceil(Math.log2(129 / 448)));
  const back = perTokenCastBack(codes, scales);
  expect(back[3]).toBeNaN();
  expect(back[64]).toBe(64);
  const packed = packUe8m0(scales);
  expect(packed.shape).toEqual([1, 1]);
  expect([...packed.bytes()]).toEqual([126, 126, 0, 0]);
});

it("takes a tensor or a pair, and says so to whoever gives the cast as it is", () => {
  const cast = perTokenCastToFp8(ramp);
  expect(tokensOf(ramp)).toEqual([ramp, undefined]);
  expect(tokensOf([cast.codes, cast.scales])).toEqual([cast.codes, cast.scales]);
  expect(() => tokensOf(cast as never)).toThrow("[codes, scales]");
});
