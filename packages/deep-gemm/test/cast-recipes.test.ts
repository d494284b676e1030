// The casts beyond tokens and blocks: channels, recipes, dimensions, groups along K, FP4; every
// code there is, cases worked out by hand, and every backend against the reference.

import { createDevice } from "@open-infra/jit";
import { e4m3FromNumber, Tensor } from "@open-infra/tensor";
import { calcDiff, seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, describe, expect, it } from "vitest";
import {
  castBackFromFp4,
  castBackFromFp8,
  kGroupedCastToFp8,
  perChannelCastToFp8,
  perCustomDimsCastToFp8,
  perRecipeCastToFp8,
  perTokenCastToFp4,
  perTokenCastToFp8,
  type ScaledTensor,
  transposePackedFp4,
  unpackFp4,
  unpackUe8m0FromInt,
} from "../src/index.ts";
import { allDevices, poisoned, randomTensor, withRowGaps } from "./helpers.ts";

const seed = testSeed();
const devices = allDevices();
const reference = createDevice({ backend: "reference" });
afterAll(() => {
  for (const { device } of devices) device[Symbol.dispose]();
});

const codes = (t: Tensor): number[] => [...t.contiguous().bytes()];
const numbers = (t: Tensor): number[] => [...t.toFloat32()];

function expectSame(got: ScaledTensor, want: ScaledTensor, label: string): void {
  expect(got.data.shape, label).toEqual(want.data.shape);
  expect(codes(got.data), label).toEqual(codes(want.data));
  expect(got.scales.shape, label).toEqual(want.scales.shape);
  expect(numbers(got.scales), label).toEqual(numbers(want.scales));
}

/** Every bf16 number of at most `most`, in rows of 128 that begin with `most`: scale 1 for all. */
function everyBf16(most: number): Tensor {
  const all = Tensor.empty([65536], "bf16");
  const raw = all.raw();
  for (let i = 0; i < 65536; i++) raw[i] = i;
  const values = [...all.toFloat32()].filter((x) => Math.abs(x) <= most);
  while (values.length % 127 !== 0) values.push(0);
  const rows = values.length / 127;
  const out = new Float32Array(rows * 128);
  for (let r = 0; r < rows; r++) {
    out[r * 128] = most;
    out.set(values.slice(r * 127, (r + 1) * 127), r * 128 + 1);
  }
  return Tensor.from(out, [rows, 128], "bf16");
}

describe.each(devices)("$name", ({ name, device }) => {
  const slow = name === "reference" || name.endsWith("scalar");

  it("D1: e4m3 of every bf16 number, rows and columns", () => {
    const x = everyBf16(448);
    const want = Uint8Array.from(x.toFloat32(), (v) => e4m3FromNumber(v));
    const tokens = perTokenCastToFp8(device, { x });
    expect(numbers(tokens.scales).every((s) => s === 1)).toBe(true);
    expect(Buffer.compare(tokens.data.bytes(), want)).toBe(0);
    const turned = x.transpose(0, 1).clone();
    const channels = perChannelCastToFp8(device, { x: turned });
    expect(Buffer.compare(channels.data.transpose(0, 1).contiguous().bytes(), want)).toBe(0);
    const back = castBackFromFp8(device, { x: tokens, granM: 1 });
    const again = perTokenCastToFp8(device, { x: back });
    expect(Buffer.compare(again.data.bytes(), want)).toBe(0);
  });

  it("D1: e2m1 of every bf16 number: nearest, ties to the smaller, no negative zero", () => {
    const x = everyBf16(6);
    const values = [0, 0.5, 1, 1.5, 2, 3, 4, 6];
    const want = Uint8Array.from(x.toFloat32(), (v) => {
      let best = 0;
      values.forEach((value, code) => {
        const nearer = Math.abs(Math.abs(v) - value) < Math.abs(Math.abs(v) - (values[best] ?? 0));
        if (nearer) best = code;
      });
      return v < 0 && best > 0 ? best | 8 : best;
    });
    const cast = perTokenCastToFp4(device, { x });
    expect(numbers(cast.scales).every((s) => s === 1)).toBe(true);
    expect(Buffer.compare(unpackFp4(cast.data).bytes(), want)).toBe(0);
  });

  it("D1: codes and bytes of FP4 by hand", () => {
    const given = [
      0, 0.25, 0.250001, 0.75, 0.76, 1.25, 1.3, 1.75, 1.8, 2.5, 2.6, 3.5, 3.6, 5, 5.1, 6,
    ];
    const x = Tensor.from([...given, -0.2, -0.3], [1, 18], "f32");
    const cast = perTokenCastToFp4(device, { x });
    expect(numbers(cast.scales)).toEqual([1]);
    const want = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 0, 9];
    expect(codes(unpackFp4(cast.data))).toEqual(want);
    // The even element in the low half.
    expect(codes(cast.data)).toEqual([0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x90]);
    const back = castBackFromFp4(device, { x: cast });
    expect(numbers(back).slice(-2)).toEqual([0, -0.5]);
  });

  it("FP4: the 1e-4 floor, a tail, powers of two, packed scales, NaN", () => {
    const values = new Float32Array(2 * 70);
    values.set([1e-6, -1e-6], 0);
    values.set([3, -7], 32);
    values[70 + 64] = Number.NaN;
    const x = Tensor.from(values, [2, 70], "f32");
    const cast = perTokenCastToFp4(device, { x, granK: 32, useUe8m0: true });
    expect(cast.scales.shape).toEqual([2, 3]);
    const floor = 2 ** -15; // 1e-4 / 6, rounded up
    expect(numbers(cast.scales)).toEqual([floor, 2, floor, floor, floor, Number.NaN]);
    expect(codes(unpackFp4(cast.data)).slice(32, 34)).toEqual([3, 13]); // 1.5, and −3.5, a tie
  });

  it("FP4 against the reference: types, tails, gaps, granularities, packed scales", () => {
    const random = seededRandom(seed);
    for (const dtype of ["f32", "bf16", "f16"] as const) {
      for (const [m, k, granK] of [
        [5, 200, 32],
        [3, 64, 128],
        [9, 6, 4],
        [2, 130, 10],
        [0, 8, 32],
        [3, 0, 32],
      ] as const) {
        const next = (): number => random.normal() * 2 ** random.int(-9, 9);
        const dense = randomTensor(random, [m, k], dtype, next);
        const x = withRowGaps(dense, 3);
        const label = `seed ${seed} ${dtype} [${m},${k}] ${granK}`;
        for (const useUe8m0 of [false, true]) {
          const got = perTokenCastToFp4(device, { x, granK, useUe8m0 });
          expectSame(got, perTokenCastToFp4(reference, { x: dense, granK, useUe8m0 }), label);
          const back = castBackFromFp4(device, { x: got, granK });
          const want = castBackFromFp4(reference, { x: got, granK });
          expect(back.bytes(), label).toEqual(want.bytes());
          if (m * k === 0) continue;
          expect(calcDiff(back.toFloat64(), dense.toFloat64()), label).toBeLessThan(0.03);
          if (!useUe8m0) continue;
          const packed = perTokenCastToFp4(device, { x, granK, useUe8m0, usePackedUe8m0: true });
          expect(codes(packed.data)).toEqual(codes(got.data));
          const scales = unpackUe8m0FromInt(packed.scales, Math.ceil(k / granK));
          expect(numbers(scales)).toEqual(numbers(got.scales));
          expect(codes(castBackFromFp4(device, { x: packed, granK }))).toEqual(codes(back));
        }
      }
    }
  });

  it("packed codes turned: the same codes elsewhere, and back", () => {
    const random = seededRandom(seed);
    for (const [m, k] of [
      [2, 2],
      [70, 130],
      [64, 6],
      [0, 4],
    ] as const) {
      const values = [0, 0.5, -1, 1.5, -2, 3, -4, 6, -0.5];
      const x = randomTensor(random, [m, k], "e2m1", () => random.pick(values));
      const turned = transposePackedFp4(device, x);
      expect(turned.shape).toEqual([k, m]);
      const want = unpackFp4(x).transpose(0, 1);
      expect(codes(unpackFp4(turned)), `seed ${seed} [${m},${k}]`).toEqual(codes(want));
      expect(codes(transposePackedFp4(device, turned))).toEqual(codes(x));
    }
  });

  it("channels against tokens of the transpose: types, tails, gaps, granularities", () => {
    const random = seededRandom(seed);
    for (const dtype of ["f32", "bf16", "f16"] as const) {
      for (const [m, n, granM] of [
        [200, 70, 128],
        [33, 5, 32],
        [7, 129, 3],
        [0, 4, 128],
        [4, 0, 128],
      ] as const) {
        const next = (): number => random.normal() * 2 ** random.int(-9, 9);
        const dense = randomTensor(random, [m, n], dtype, next);
        if (m > 4) dense.select(0, 3).slice(0, 2, 3).fill(Number.NaN);
        for (const useUe8m0 of [false, true]) {
          const got = perChannelCastToFp8(device, { x: withRowGaps(dense, 3), granM, useUe8m0 });
          const x = dense.transpose(0, 1).clone();
          const want = perTokenCastToFp8(reference, { x, granK: granM, useUe8m0 });
          const turned = {
            data: got.data.transpose(0, 1),
            scales: got.scales.transpose(0, 1),
          };
          expectSame(turned, want, `seed ${seed} ${dtype} [${m},${n}] ${granM}`);
        }
      }
    }
  });

  it("any recipe is the blocks it names", () => {
    const random = seededRandom(seed);
    const x = randomTensor(random, [70, 300], "bf16");
    for (const recipe of [
      [1, 128],
      [128, 128],
      [1, 32],
      [32, 64],
      [128, 1],
      [7, 50],
    ] as const) {
      const got = perRecipeCastToFp8(device, { x, recipe });
      const [granM, granK] = recipe;
      expect(got.scales.shape).toEqual([Math.ceil(70 / granM), Math.ceil(300 / granK)]);
      const values = x.toFloat64();
      const scales = got.scales.toFloat64();
      const amax = new Float64Array(scales.length);
      values.forEach((v, i) => {
        const block = Math.floor(Math.floor(i / 300) / granM) * got.scales.dim(1);
        const at = block + Math.floor((i % 300) / granK);
        amax[at] = Math.max(amax[at] as number, Math.abs(v));
      });
      const want = amax.map((a) => Math.fround(Math.max(a, Math.fround(1e-4)) / 448));
      expect(scales, `recipe ${recipe}`).toEqual(want);
    }
  });

  it("scales by dimensions, in every order and of views", () => {
    const random = seededRandom(seed);
    const x = randomTensor(random, [3, 4, 10], "f32").transpose(0, 1); // [4,3,10], strided
    const values = x.toFloat64();
    for (const dims of [[0], [1], [2], [0, 1], [1, 2], [0, 2], [-1], [0, 1, 2], []]) {
      for (const useUe8m0 of [false, true]) {
        const got = perCustomDimsCastToFp8(device, { x, dims, useUe8m0 });
        const kept = dims.map((d) => (d + 3) % 3);
        const indexOf = (i: number): number => {
          const at = [Math.floor(i / 30), Math.floor(i / 10) % 3, i % 10];
          return kept.reduce((index, d) => index * (x.shape[d] as number) + (at[d] as number), 0);
        };
        const label = `seed ${seed} dims ${dims}`;
        expect(got.scales.shape, label).toEqual(kept.map((d) => x.shape[d]));
        expect(got.data.shape, label).toEqual([4, 3, 10]);
        const groups: number[][] = Array.from({ length: got.scales.size }, () => []);
        for (const [i, v] of values.entries()) (groups[indexOf(i)] as number[]).push(v);
        const bytes = got.data.bytes();
        groups.forEach((group, g) => {
          const row = Tensor.from(group, [1, group.length], "f32");
          const want = perTokenCastToFp8(reference, { x: row, granK: group.length, useUe8m0 });
          expect(numbers(got.scales)[g], label).toBe(numbers(want.scales)[0]);
          const mine = [...bytes].filter((_, i) => indexOf(i) === g);
          expect(mine, label).toEqual(codes(want.data));
        });
      }
    }
  });

  it("groups along K: scales end with their group, in both layouts", () => {
    const random = seededRandom(seed);
    const ks = [128, 0, 100, 256, 1];
    const [total, m] = [485, 37];
    const x = randomTensor(random, [total, m], "bf16");
    const tn = kGroupedCastToFp8(device, { x, ks, layout: "tn" });
    const nt = kGroupedCastToFp8(device, { x, ks, layout: "nt" });
    expect(tn.scales.shape).toEqual([5, m]);
    expect(nt.scales.shape).toEqual([m, 5]);
    expect(codes(nt.scales.transpose(0, 1))).toEqual(codes(tn.scales));
    let [from, row] = [0, 0];
    for (const k of ks) {
      const alone = perChannelCastToFp8(reference, { x: x.slice(0, from, from + k) });
      const blocks = Math.ceil(k / 128);
      expect(codes(tn.data.slice(0, from, from + k))).toEqual(codes(alone.data));
      expect(codes(tn.scales.slice(0, row, row + blocks))).toEqual(codes(alone.scales));
      const flat = nt.data.slice(0, from * m, (from + k) * m);
      expect(codes(flat)).toEqual(codes(alone.data.transpose(0, 1)));
      from += k;
      row += blocks;
    }
  });

  it("many codes, which go past the caches, are those of few", () => {
    if (slow) return;
    const random = seededRandom(seed);
    const [m, k] = [2080, 4160];
    const x = randomTensor(random, [130, k], "bf16");
    const all = Tensor.empty([m, k], "bf16");
    for (let i = 0; i < m; i += 130) all.slice(0, i, i + 130).copyFrom(x);
    // Rows that begin on a line, and rows that do not.
    const apart = poisoned([m, k + 24], "e4m3fn").slice(1, 8, k + 8);
    for (const cast of [
      (y: Tensor) => perTokenCastToFp8(device, { x: y }),
      (y: Tensor) => perRecipeCastToFp8(device, { x: y, recipe: [130, 128] }),
      (y: Tensor) => perChannelCastToFp8(device, { x: y, granM: 130 }),
      (y: Tensor) => perTokenCastToFp4(device, { x: y, granK: 32 }),
      (y: Tensor) => {
        const scales = Tensor.empty([y.dim(0), Math.ceil(k / 128)], "f32");
        return perTokenCastToFp8(device, {
          x: y,
          out: { data: apart.slice(0, 0, y.dim(0)), scales },
        });
      },
    ]) {
      const few = cast(x).data.contiguous().bytes().slice();
      const many = cast(all).data.contiguous().bytes();
      const step = few.length;
      for (let i = 0; i < many.length; i += step) {
        const part = many.subarray(i, i + step);
        expect(Buffer.compare(part, few), `seed ${seed} at ${i}`).toBe(0);
      }
    }
  });

  it("writes into given tensors and nowhere else", () => {
    const random = seededRandom(seed);
    const x = randomTensor(random, [40, 20], "f32");
    const wide = poisoned([40, 32], "e4m3fn");
    const out = { data: wide.slice(1, 0, 20), scales: poisoned([2, 20], "f32") };
    expect(perChannelCastToFp8(device, { x, granM: 32, out })).toBe(out);
    expectSame(out, perChannelCastToFp8(reference, { x, granM: 32 }), `seed ${seed}`);
    expect(codes(wide.slice(1, 20, 32)).every((b) => b === 0xff)).toBe(true);
  });
});
