// Packed ue8m0 scales as operands give to the bit what the same scales give as float32, in every
// function that takes scales and in every layout the packing functions make.

import { Tensor } from "@open-infra/tensor";
import { seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, describe, expect, it } from "vitest";
import {
  fp8Einsum,
  fp8GemmNn,
  fp8GemmNt,
  fp8GemmNtSkipHeadMid,
  fp8GemmTn,
  fp8GemmTt,
  getKGroupedMnMajorTmaAlignedPackedUe8m0Tensor,
  getMnMajorTmaAlignedPackedUe8m0Tensor,
  kGroupedFp8GemmNtContiguous,
  kGroupedFp8GemmTnContiguous,
  mGroupedFp8GemmNtContiguous,
  mGroupedFp8GemmNtMasked,
  packUe8m0ToInt,
  type ScaledTensor,
  supports,
} from "../src/index.ts";
import { familyDevices, poisoned, randomTensor } from "./helpers.ts";

const seed = testSeed();
const devices = familyDevices();
afterAll(() => {
  for (const { device } of devices) device[Symbol.dispose]();
});

type Random = ReturnType<typeof seededRandom>;

/** Codes with a scale of a power of two per row and `granK` columns. */
function operand(
  random: Random,
  shape: readonly number[],
  granK: number,
  dtype: "e4m3fn" | "e2m1" = "e4m3fn",
): ScaledTensor {
  const values = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.5, -1, -3];
  const blocks = [...shape.slice(0, -1), Math.ceil((shape.at(-1) as number) / granK)];
  return {
    data: randomTensor(random, shape, dtype, () => random.pick(values)),
    scales: randomTensor(random, blocks, "f32", () => 2 ** random.int(-3, 4)),
  };
}

/** The same scales packed, in rows or as the original's GPU layout has them. */
const packings: readonly ((x: ScaledTensor) => ScaledTensor)[] = [
  ({ data, scales }) => ({ data, scales: packUe8m0ToInt(scales) }),
  ({ data, scales }) => ({ data, scales: getMnMajorTmaAlignedPackedUe8m0Tensor(scales) }),
];

const turned = ({ data, scales }: ScaledTensor): ScaledTensor => ({
  data: data.transpose(-2, -1).clone(),
  scales: scales.transpose(-2, -1),
});

const bytes = (t: Tensor): Uint8Array => t.contiguous().bytes().slice();
const i32 = (values: readonly number[]): Tensor => Tensor.from(values, [values.length], "i32");

describe.each(devices)("$name", ({ device }) => {
  it("dense products of every layout, e4m3 by 128 and e2m1 by 32", () => {
    const random = seededRandom(seed);
    for (const [granK, dtype] of [
      [128, "e4m3fn"],
      [32, "e2m1"],
    ] as const) {
      const [m, n, k] = [5, 24, 640];
      const [a, b] = [operand(random, [m, k], granK, dtype), operand(random, [n, k], granK, dtype)];
      const recipe = [1, 1, granK] as const;
      const want = poisoned([m, n], "f32");
      fp8GemmNt(device, { a, b, d: want, recipe });
      const calls = [
        [fp8GemmNt, (x: ScaledTensor) => x, (x: ScaledTensor) => x],
        [fp8GemmNn, (x: ScaledTensor) => x, turned],
        [fp8GemmTn, turned, turned],
        [fp8GemmTt, turned, (x: ScaledTensor) => x],
      ] as const;
      for (const pack of packings) {
        for (const [gemm, turnA, turnB] of dtype === "e2m1" ? calls.slice(0, 1) : calls) {
          const label = `seed ${seed} ${dtype} ${gemm.name}`;
          const d = poisoned([m, n], "f32");
          const options = granK === 128 ? {} : { recipe };
          gemm(device, { a: turnA(pack(a)), b: turnB(pack(b)), d, ...options });
          expect(bytes(d), label).toEqual(bytes(want));
          // One of them packed, the other float.
          gemm(device, { a: turnA(pack(a)), b: turnB(b), d: d.fill(7), recipe });
          expect(bytes(d), label).toEqual(bytes(want));
        }
      }
    }
  });

  it("skipped columns, groups of rows, masked slabs, einsum", () => {
    const random = seededRandom(seed + 1);
    const [m, n, k, g] = [7, 16, 300, 3];
    const recipe = [1, 1, 128] as const;
    const a = operand(random, [m, k], 128);
    const b = operand(random, [n, k], 128);
    const experts = operand(random, [g, n, k], 128);
    const slabs = operand(random, [g, m, k], 128);
    const heads = operand(random, [m, g, k], 128);
    const groupedLayout = i32([0, 0, 2, -1, 1, 1, 2]);
    const run = (pack: (x: ScaledTensor) => ScaledTensor): Tensor[] => {
      const out = [
        Tensor.empty([m, 24], "f32").fill(7),
        poisoned([m, n], "bf16"),
        Tensor.empty([g, m, n], "f32").fill(7),
        poisoned([m, g, n], "f32"),
      ] as const;
      const headSplits = [4, 4, 4] as const;
      fp8GemmNtSkipHeadMid(device, { a: pack(a), b: pack(b), d: out[0], headSplits, recipe });
      const grouped = { a: pack(a), b: pack(experts), d: out[1], groupedLayout, recipe };
      mGroupedFp8GemmNtContiguous(device, grouped);
      const maskedM = i32([2, 0, 7]);
      const masked = { a: pack(slabs), b: pack(experts), d: out[2], maskedM, recipe };
      mGroupedFp8GemmNtMasked(device, masked);
      const einsum = { a: packRows(pack, heads), b: pack(experts), d: out[3], recipe };
      fp8Einsum(device, "bhr,hdr->bhd", einsum);
      return [...out];
    };
    // A stack of rows [m, g, k] is packed row by row.
    const packRows = (pack: (x: ScaledTensor) => ScaledTensor, x: ScaledTensor): ScaledTensor =>
      pack === same ? x : { data: x.data, scales: packUe8m0ToInt(x.scales) };
    const same = (x: ScaledTensor): ScaledTensor => x;
    const want = run(same).map(bytes);
    for (const pack of packings) expect(run(pack).map(bytes), `seed ${seed}`).toEqual(want);
  });

  it("groups along K, each packed alone", () => {
    const random = seededRandom(seed + 2);
    const ks = [640, 0, 100, 128];
    const [m, n] = [6, 20];
    const total = ks.reduce((x, y) => x + y, 0);
    const rows = ks.reduce((x, k) => x + Math.ceil(k / 128), 0);
    const part = (mn: number): ScaledTensor => ({
      data: operand(random, [total, mn], 1).data,
      scales: randomTensor(random, [rows, mn], "f32", () => 2 ** random.int(-3, 4)),
    });
    const [a, b] = [part(m), part(n)];
    const pack = ({ data, scales }: ScaledTensor): ScaledTensor => ({
      data,
      scales: getKGroupedMnMajorTmaAlignedPackedUe8m0Tensor({ sf: scales, ks }),
    });
    const want = poisoned([ks.length, m, n], "f32");
    const got = poisoned([ks.length, m, n], "f32");
    kGroupedFp8GemmTnContiguous(device, { a, b, d: want, ks });
    kGroupedFp8GemmTnContiguous(device, { a: pack(a), b: pack(b), d: got, ks });
    expect(bytes(got), `seed ${seed}`).toEqual(bytes(want));
    // The same matrices one after another, K adjacent.
    const flat = ({ data, scales }: ScaledTensor): ScaledTensor => {
      const out = Tensor.empty([data.size], "e4m3fn");
      let from = 0;
      for (const k of ks) {
        const matrix = data
          .slice(0, from, from + k)
          .transpose(0, 1)
          .clone();
        out.bytes().set(matrix.bytes(), from * data.dim(1));
        from += k;
      }
      return { data: out, scales: scales.transpose(0, 1) };
    };
    kGroupedFp8GemmNtContiguous(device, { a: flat(pack(a)), b: flat(pack(b)), d: got.fill(7), ks });
    expect(bytes(got), `seed ${seed} nt`).toEqual(bytes(want));
  });
});

it("refuses packed scales of another number, by name", () => {
  const { device } = devices[0] as (typeof devices)[0];
  const a = { data: Tensor.empty([2, 640], "e4m3fn"), scales: Tensor.empty([2, 2], "i32") };
  const b = { data: Tensor.empty([8, 640], "e4m3fn"), scales: Tensor.empty([8, 1], "i32") };
  const d = Tensor.empty([2, 8], "f32");
  expect(() => fp8GemmNt(device, { a, b, d })).toThrow(
    /fp8GemmNt: b\.scales is \[8,1\].*2 int32 along K: a scale each 128/,
  );
  const rows = { data: b.data, scales: Tensor.empty([7, 2], "i32") };
  expect(() => fp8GemmNt(device, { a, b: rows, d })).toThrow(/b\.scales is \[7,2\]|\[7,5\]/);
  const spec = (shape: number[], words: number[]) => ({
    data: { dtype: "e4m3fn" as const, shape },
    scales: { dtype: "i32" as const, shape: words },
  });
  const shapes = { a: spec([2, 640], [2, 2]), b: spec([8, 640], [8, 2]), d };
  expect(supports(fp8GemmNt, shapes, "cpu")).toBe(true);
  const wrong = { ...shapes, b: spec([8, 640], [8, 3]) };
  expect(supports(fp8GemmNt, wrong, "cpu")).toMatch(/b\.scales is \[8,3\]/);
});
