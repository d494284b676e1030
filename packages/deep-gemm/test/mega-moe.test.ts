// The mixture of experts in one call: against a float64 chain with the same rounding in between, to
// the bit against one token and expert at a time, and what it refuses.

import { Tensor } from "@open-infra/tensor";
import { calcDiff, seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, describe, expect, it } from "vitest";
import {
  bf16GemmNt,
  bf16MegaMoe,
  castBackFromFp4,
  castBackFromFp8,
  fp8Fp4MegaMoe,
  fp8GemmNt,
  getSymmBufferForMegaMoe,
  type MegaMoeBuffer,
  packUe8m0ToInt,
  perTokenCastToFp4,
  perTokenCastToFp8,
  type ScaledTensor,
  supports,
  transformWeightsForMegaMoe,
} from "../src/index.ts";
import { familyDevices, poisoned, randomTensor, withRowGaps } from "./helpers.ts";

const seed = testSeed();
const devices = familyDevices();
afterAll(() => {
  for (const { device } of devices) device[Symbol.dispose]();
});

const [tokens, experts, topk, hidden, inner] = [7, 5, 3, 256, 128];
const sizes = { numExperts: experts, numMaxTokensPerRank: 9, numTopk: topk, hidden };
const fp8Sizes = { ...sizes, intermediateHidden: inner };
const recipe = [1, 1, 32] as const;

/** Random choices, some of them none; token 2 has no expert, expert 4 no token. */
function choose(buffer: MegaMoeBuffer, random: ReturnType<typeof seededRandom>): number[][] {
  const chosen = Array.from({ length: tokens }, (_, t) =>
    Array.from({ length: topk }, () => (t === 2 || random.next() < 0.2 ? -1 : random.int(0, 4))),
  );
  // What lies behind the tokens is not looked at.
  buffer.topkIdx.raw().fill(99n);
  buffer.topkIdx.raw().set(chosen.flat().map(BigInt));
  buffer.topkWeights.raw().fill(Number.NaN);
  for (let i = 0; i < tokens * topk; i++) buffer.topkWeights.raw()[i] = random.next();
  return chosen;
}

const silu = (x: number): number => x / (1 + Math.exp(-x));

/** Weights [E, n, k] of e2m1 with scales, as they are and as float64. */
function fp4Weights(
  device: (typeof devices)[0]["device"],
  random: ReturnType<typeof seededRandom>,
  [n, k]: readonly [number, number],
): {
  readonly weights: ScaledTensor;
  readonly packed: ScaledTensor;
  readonly values: Float64Array;
} {
  const x = randomTensor(random, [experts * n, k], "bf16", () => random.normal() / 8);
  const cast = perTokenCastToFp4(device, { x, granK: 32, useUe8m0: true });
  const data = cast.data.reshape([experts, n, k]);
  const scales = cast.scales.reshape([experts, n, k / 32]);
  return {
    weights: { data, scales },
    packed: { data, scales: packUe8m0ToInt(scales) },
    values: castBackFromFp4(device, { x: cast, granK: 32 }).toFloat64(),
  };
}

const expertOf = ({ data, scales }: ScaledTensor, e: number): ScaledTensor => ({
  data: data.select(0, e),
  scales: scales.select(0, e),
});

/** Expert e's [n, k] of weights times k numbers. */
function product(weights: Float64Array, e: number, x: Float64Array): Float64Array {
  const n = weights.length / experts / x.length;
  return Float64Array.from({ length: n }, (_, i) => {
    let sum = 0;
    for (const [j, v] of x.entries()) sum += (weights[(e * n + i) * x.length + j] as number) * v;
    return sum;
  });
}

/** weight · silu(gate) · value of gates and values. */
function gatedOf(both: Float64Array, clamp: number, weight: number): Float64Array {
  const n = both.length / 2;
  return Float64Array.from({ length: n }, (_, i) => {
    const value = Math.max(-clamp, Math.min(clamp, both[n + i] as number));
    return silu(Math.min(clamp, both[i] as number)) * value * weight;
  });
}

/** Adds a row to row `t` of as many columns. */
function add(sums: Float64Array, t: number, row: Float64Array): void {
  for (const [i, v] of row.entries()) {
    sums[t * row.length + i] = (sums[t * row.length + i] as number) + v;
  }
}

describe.each(devices)("$name", ({ device }) => {
  it("D16: fp8 × fp4 against float64, and one token and expert at a time", () => {
    const random = seededRandom(seed);
    const buffer = getSymmBufferForMegaMoe(fp8Sizes);
    const chosen = choose(buffer, random);
    const x = randomTensor(random, [tokens, hidden], "bf16");
    const cast = perTokenCastToFp8(device, { x, granK: 32, useUe8m0: true });
    buffer.x.bytes().fill(0xff); // NaN behind the tokens.
    buffer.x.slice(0, 0, tokens).copyFrom(cast.data);
    (buffer.xSf as Tensor).slice(0, 0, tokens).copyFrom(packUe8m0ToInt(cast.scales));
    const l1 = fp4Weights(device, random, [2 * inner, hidden]);
    const l2 = fp4Weights(device, random, [hidden, inner]);
    const stats = Tensor.from([1, 2, 3, 4, 5], [experts], "i32");
    const y = withRowGaps(poisoned([tokens, hidden], "bf16"), 3);
    const [l1Weights, l2Weights] = transformWeightsForMegaMoe(l1.packed, l2.packed);
    const clamp = 2;
    fp8Fp4MegaMoe(device, {
      y,
      l1Weights,
      l2Weights,
      symBuffer: buffer,
      cumulativeLocalExpertRecvStats: stats,
      activationClamp: clamp,
    });
    const counts = Array.from(
      { length: experts },
      (_, e) => chosen.flat().filter((id) => id === e).length,
    );
    expect([...stats.raw()]).toEqual(counts.map((n, e) => n + e + 1));
    const again = poisoned([tokens, hidden], "bf16");
    const plain = { l1Weights: l1.weights, l2Weights: l2.weights, symBuffer: buffer };
    fp8Fp4MegaMoe(device, { ...plain, y: again, activationClamp: clamp, threads: 1 });
    expect(again.bytes(), `seed ${seed}`).toEqual(y.contiguous().bytes());

    const values = castBackFromFp8(device, { x: cast, granM: 1, granK: 32 }).toFloat64();
    const want = new Float64Array(tokens * hidden);
    const exact = new Float64Array(tokens * hidden);
    chosen.forEach((ids, t) => {
      ids.forEach((e, k) => {
        if (e < 0) return;
        const weight = buffer.topkWeights.raw()[t * topk + k] as number;
        const both = product(l1.values, e, values.subarray(t * hidden, (t + 1) * hidden));
        const x = Tensor.from(gatedOf(both, clamp, weight), [1, inner], "f32");
        const middle = perTokenCastToFp8(device, { x, granK: 32, useUe8m0: true });
        const back = castBackFromFp8(device, { x: middle, granM: 1, granK: 32 }).toFloat64();
        add(want, t, product(l2.values, e, back));
        // Alone, by the dense product.
        const d = poisoned([1, 2 * inner], "f32");
        const a = { data: cast.data.slice(0, t, t + 1), scales: cast.scales.slice(0, t, t + 1) };
        fp8GemmNt(device, { a, b: expertOf(l1.weights, e), d, recipe });
        expect(calcDiff(d.toFloat64(), both), `seed ${seed}`).toBeLessThan(1e-10);
        const alone = poisoned([1, hidden], "f32");
        fp8GemmNt(device, { a: middle, b: expertOf(l2.weights, e), d: alone, recipe });
        add(exact, t, alone.toFloat64());
      });
    });
    const got = y.toFloat64();
    expect(got.subarray(2 * hidden, 3 * hidden).every((v) => v === 0)).toBe(true);
    expect(calcDiff(got, want), `seed ${seed}`).toBeLessThan(1e-4);
    expect(calcDiff(got, exact), `seed ${seed}`).toBeLessThan(1e-4);
  });

  it("bf16 by bf16, odd sizes", () => {
    const random = seededRandom(seed + 1);
    const [h, n] = [70, 33];
    const options = { ...sizes, hidden: h, intermediateHidden: n, mmaType: "bf16xbf16" as const };
    const buffer = getSymmBufferForMegaMoe(options);
    const chosen = choose(buffer, random);
    buffer.x.copyFrom(randomTensor(random, [9, h], "bf16"));
    const l1Weights = randomTensor(random, [experts, 2 * n, h], "bf16");
    const l2Weights = randomTensor(random, [experts, h, n], "bf16");
    const y = poisoned([tokens, h], "bf16");
    bf16MegaMoe(device, { y, l1Weights, l2Weights, symBuffer: buffer });
    const want = new Float64Array(tokens * h);
    chosen.forEach((ids, t) => {
      ids.forEach((e, k) => {
        if (e < 0) return;
        const d = Tensor.empty([1, 2 * n], "f32");
        bf16GemmNt(device, { a: buffer.x.slice(0, t, t + 1), b: l1Weights.select(0, e), d });
        const both = d.toFloat64();
        const weight = buffer.topkWeights.raw()[t * topk + k] as number;
        const down = Tensor.empty([1, h], "f32");
        const gated = gatedOf(both, Number.POSITIVE_INFINITY, weight);
        const a = Tensor.from(gated, [1, n], "bf16");
        bf16GemmNt(device, { a, b: l2Weights.select(0, e), d: down });
        add(want, t, down.toFloat64());
      });
    });
    expect(calcDiff(y.toFloat64(), want), `seed ${seed}`).toBeLessThan(1e-5);
    // No tokens at all.
    bf16MegaMoe(device, {
      y: Tensor.empty([0, h], "bf16"),
      l1Weights,
      l2Weights,
      symBuffer: buffer,
    });
  });
});

describe("refuses", () => {
  const { device } = devices[0] as (typeof devices)[0];
  const buffer = getSymmBufferForMegaMoe(fp8Sizes);
  const weights = (n: number, k: number): ScaledTensor => ({
    data: Tensor.empty([experts, n, k], "e2m1"),
    scales: Tensor.empty([experts, n, k / 32], "f32"),
  });
  const args = {
    y: Tensor.empty([2, hidden], "bf16").fill(7),
    l1Weights: weights(2 * inner, hidden),
    l2Weights: weights(hidden, inner),
    symBuffer: buffer,
  };

  it.each([
    ["an expert that is not there", /topkIdx\[1, 2\] is 5; expected -1 to 4/],
    ["an expert below -1", /topkIdx\[1, 2\] is -2/],
  ])("%s, before anything is written", (label, message) => {
    buffer.topkIdx.raw().fill(0n);
    buffer.topkIdx.raw()[5] = label.includes("below") ? -2n : 5n;
    expect(() => fp8Fp4MegaMoe(device, args)).toThrow(message);
    expect(args.y.toFloat32().every((v) => v === 7)).toBe(true);
    buffer.topkIdx.raw().fill(0n);
  });

  it("other shapes, too many tokens, another buffer", () => {
    const l1Weights = weights(inner, hidden);
    expect(() => fp8Fp4MegaMoe(device, { ...args, l1Weights })).toThrow(
      /l1Weights is \[5,128,256\]/,
    );
    const y = Tensor.empty([10, hidden], "bf16");
    expect(() => fp8Fp4MegaMoe(device, { ...args, y })).toThrow(/10 tokens.*at most 9/);
    const symBuffer = getSymmBufferForMegaMoe({ ...fp8Sizes, mmaType: "bf16xbf16" });
    expect(() => fp8Fp4MegaMoe(device, { ...args, symBuffer })).toThrow(/symBuffer is bf16xbf16/);
    expect(() => getSymmBufferForMegaMoe({ ...fp8Sizes, hidden: 100 })).toThrow(/hidden is 100/);
    expect(supports(fp8Fp4MegaMoe, args, "cpu")).toBe(true);
  });
});
