// The FP8 key layouts byte for byte (G5), against an encoder written here, and the helpers around
// them.

import { type DType, Tensor } from "@open-infra/tensor";
import { calcDiff, seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import {
  absIndicesToIndicesInKvcache,
  dequantizeKCache,
  emptyKCache,
  quantizeKCache,
  writeKCache,
} from "../src/index.ts";
import { drawn } from "./problems.ts";
import { decodeFp8, e4m3 } from "./sparse-problems.ts";

const seed = testSeed();
const layouts = ["v32", "model1"] as const;
const form = {
  v32: { d: 576, codes: 512, tile: 128, bytes: 656 },
  model1: { d: 512, codes: 448, tile: 64, bytes: 584 },
} as const;

/** The e4m3 code nearest to x, ties to the even one, by looking at all of them. */
function nearest(x: number): number {
  const sign = x < 0 || Object.is(x, -0) ? 0x80 : 0;
  let best = 0;
  for (let code = 1; code < 0x7f; code++) {
    const [error, least] = [e4m3(code), e4m3(best)].map((y) => Math.abs(y - Math.abs(x)));
    const closer = (error as number) < (least as number);
    if (closer || (error === least && code % 2 === 0)) best = code;
  }
  return sign | best;
}

/** 2^ceil(log2(max(amax / 448, 1e-4))) by trying. */
function scaleOf(values: Float64Array): number {
  const amax = Math.max(1e-4, values.reduce((a, x) => Math.max(a, Math.abs(x)), 0) / 448);
  for (let e = -20; ; e++) if (2 ** e >= amax) return 2 ** e;
}

const random = seededRandom(seed);
const page = 3;

/** Keys with tiles of every size: zeros, tiny, ties, exact powers at the edge of a scale. */
function hardKeys(layout: (typeof layouts)[number]): Tensor<"bf16"> {
  const { d, tile } = form[layout];
  const keys = drawn(random, 2 * page * d);
  for (let t = 0; t < keys.length / tile; t++) {
    const factor = random.pick([0, 1e-6, 0.01, 1, 37, 1e6, 1e30]);
    for (let i = t * tile; i < (t + 1) * tile; i++) keys[i] = (keys[i] as number) * factor;
    if (t % 3 === 0) keys[t * tile + 5] = random.pick([448, 1.75, -1.75 * 2 ** 40, 448.5, 464]);
    if (t % 5 === 0) {
      keys.set([448, 17, -19, 8.5, 2 ** -9, 3 * 2 ** -10, -0], t * tile + 7);
    }
  }
  return Tensor.from(keys, [2, page, 1, d], "bf16");
}

describe.each(layouts)("quantizeKCache, %s", (layout) => {
  const { d, codes, tile, bytes } = form[layout];

  it("gives the bytes of the layout", () => {
    const keys = hardKeys(layout);
    const cache = quantizeKCache(keys, layout);
    expect(cache.shape).toEqual([2, page, 1, bytes]);
    const padded = Math.ceil((page * 584) / 576) * 576;
    expect(cache.stride(0)).toBe(layout === "v32" ? page * 656 : padded);
    const values = keys.toFloat64();
    const bf16 = keys.raw();
    for (let slot = 0; slot < 2 * page; slot++) {
      const block = cache.select(0, Math.floor(slot / page)).bytes();
      const t = slot % page;
      const row = t * (layout === "v32" ? 656 : 576);
      for (let c = 0; c < codes; c += tile) {
        const part = values.subarray(slot * d + c, slot * d + c + tile);
        const scale = scaleOf(part);
        const want = Array.from(part, (x) => nearest(x / scale));
        const label = `seed ${seed}, key ${slot}, channel ${c}`;
        expect([...block.subarray(row + c, row + c + tile)], label).toEqual(want);
        if (layout === "v32") {
          const view = new DataView(block.buffer, block.byteOffset);
          expect(view.getFloat32(row + 512 + (c / tile) * 4, true), label).toBe(scale);
        } else {
          expect(block[page * 576 + t * 8 + c / tile], label).toBe(Math.log2(scale) + 127);
        }
      }
      const rope = block.subarray(row + (layout === "v32" ? 528 : 448)).subarray(0, 128);
      const want = bf16.subarray(slot * d + codes, (slot + 1) * d);
      expect([...rope]).toEqual([...new Uint8Array(want.slice().buffer)]);
    }
  });

  it("a token of zeros has scale 2^-13 and zero codes", () => {
    const cache = quantizeKCache(Tensor.empty([1, 1, 1, d], "f32"), layout);
    const raw = cache.select(0, 0).bytes();
    expect(raw.subarray(0, codes).every((x) => x === 0)).toBe(true);
    if (layout === "v32") {
      expect(new DataView(raw.buffer, raw.byteOffset).getFloat32(512, true)).toBe(2 ** -13);
    } else expect([...raw.subarray(576)]).toEqual([114, 114, 114, 114, 114, 114, 114, 0]);
  });

  it("goes round with the error of e4m3, and once more without any", () => {
    const keys = Tensor.from(drawn(random, 40 * d), [10, 4, 1, d], "bf16");
    const once = dequantizeKCache(quantizeKCache(keys, layout));
    const nope = (t: Tensor): Float64Array => t.slice(3, 0, codes).toFloat64();
    const diff = calcDiff(nope(once), nope(keys));
    expect(diff, `seed ${seed}`).toBeGreaterThan(3e-4);
    expect(diff, `seed ${seed}`).toBeLessThan(4e-4);
    const twice = dequantizeKCache(quantizeKCache(once, layout));
    expect(twice.raw()).toEqual(once.raw());
    expect(once.slice(3, codes, d).toFloat64()).toEqual(keys.slice(3, codes, d).toFloat64());
  });

  it("decodes every byte, whatever the pad, and rounds to bf16", () => {
    const cache = emptyKCache(layout, 2, page);
    for (let block = 0; block < 2; block++) {
      const raw = cache.select(0, block).bytes();
      for (let i = 0; i < raw.length; i++) raw[i] = random.int(0, 256);
    }
    // Scales that are ordinary numbers, not powers of two.
    const view = new DataView(new ArrayBuffer(4));
    for (let slot = 0; slot < 2 * page && layout === "v32"; slot++) {
      const raw = cache.select(0, Math.floor(slot / page)).bytes();
      for (let t = 0; t < 4; t++) {
        view.setFloat32(0, random.next() + 0.1, true);
        raw.set(new Uint8Array(view.buffer), (slot % page) * 656 + 512 + t * 4);
      }
    }
    const got = dequantizeKCache(cache).toFloat64();
    for (let slot = 0; slot < 2 * page; slot++) {
      const want = Tensor.from(decodeFp8(cache, layout, slot), [d], "bf16").toFloat64();
      expect([...got.subarray(slot * d, (slot + 1) * d)]).toEqual([...want]);
    }
  });

  it("writes single tokens and leaves the rest", () => {
    const keys = Tensor.from(drawn(random, 3 * d), [3, d], "f16");
    const cache = emptyKCache(layout, 2, page);
    for (let block = 0; block < 2; block++) cache.select(0, block).bytes().fill(0xaa);
    writeKCache(cache, Tensor.from([4, -1, 0], [3], "i32"), keys);
    const whole = Tensor.empty([2, page, 1, d], "f16");
    whole.raw().set(keys.slice(0, 0, 1).raw(), 4 * d);
    whole.raw().set(keys.slice(0, 2, 3).raw(), 0);
    const want = dequantizeKCache(quantizeKCache(whole, layout)).raw();
    const got = dequantizeKCache(cache).raw();
    for (const slot of [0, 4]) {
      expect(got.subarray(slot * d, (slot + 1) * d)).toEqual(
        want.subarray(slot * d, (slot + 1) * d),
      );
    }
    const other = cache
      .select(0, 0)
      .bytes()
      .subarray(form[layout].bytes - (layout === "v32" ? 0 : 8));
    expect(other.subarray(0, 500).every((x) => x === 0xaa)).toBe(true);
    expect(() => writeKCache(cache, Tensor.from([6, 0, 0], [3], "i32"), keys)).toThrow(
      /slots\[0\] is 6; expected -1 or 0..5/,
    );
  });

  it("takes other dtypes and refuses other shapes", () => {
    for (const dtype of ["f32", "f16"] as DType[]) {
      expect(quantizeKCache(Tensor.empty([1, 2, 1, d], dtype), layout).dim(3)).toBe(bytes);
    }
    expect(() => quantizeKCache(Tensor.empty([1, 2, 1, d - 1], "f32"), layout)).toThrow(/kCache/);
    expect(() => quantizeKCache(Tensor.empty([1, 2, 1, d], "u8"), layout)).toThrow(/dtype u8/);
    expect(() => dequantizeKCache(Tensor.empty([1, 2, 1, 600], "u8"))).toThrow(/656 .* or 584/);
  });
});

it("a NaN or an infinity becomes the NaN code and leaves its tile's scale", () => {
  const keys = new Float64Array(576).fill(0.5);
  keys[3] = Number.NaN;
  keys[4] = Number.POSITIVE_INFINITY;
  const cache = quantizeKCache(Tensor.from(keys, [1, 1, 1, 576], "f32"), "v32");
  const back = dequantizeKCache(cache, "f32").raw();
  expect([...back.subarray(0, 6)]).toEqual([0.5, 0.5, 0.5, Number.NaN, Number.NaN, 0.5]);
});

it("absIndicesToIndicesInKvcache follows the table; other positions name no key", () => {
  const table = Tensor.from([7, 2, 2147480000, 0, -1, 5], [2, 3], "i32");
  const positions = [0, 15, 16, 17, -1, 47, 48, 2147483647, -(2 ** 31), 31, 32, 33];
  const abs = Tensor.from([...positions, ...positions], [2, 2, 6], "i32");
  const got = absIndicesToIndicesInKvcache(abs, table, 16);
  expect(got.shape).toEqual([2, 2, 6]);
  const first = [112, 127, 32, 33, -1, -1, -1, -1, -1, 47, -1, -1];
  const second = [0, 15, -1, -1, -1, 95, -1, -1, -1, -1, 80, 81];
  expect([...got.raw()]).toEqual([...first, ...second]);
  expect(() => absIndicesToIndicesInKvcache(abs, table, 0)).toThrow(/page is 0/);
});
