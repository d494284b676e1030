// Projection and statistic of hyper-connections on every backend: against float64, splits against
// the whole, rows alone against rows together.

import { Tensor } from "@open-infra/tensor";
import { calcDiff, seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, describe, expect, it } from "vitest";
import { tf32HcPrenormGemm } from "../src/index.ts";
import { allDevices, poisoned, product, randomTensor, rowBytes, withRowGaps } from "./helpers.ts";

const seed = testSeed();
const devices = allDevices();
afterAll(() => {
  for (const { device } of devices) device[Symbol.dispose]();
});

describe.each(devices)("$name", ({ name, device }) => {
  const slow = name === "reference" || name.endsWith("scalar");
  const shapes: [number, number, number][] = [
    [1, 24, 7168],
    [13, 24, 640],
    [5, 8, 64],
    [27, 32, 512],
    [7, 3, 100],
    [2, 1, 1],
  ];
  if (!slow) shapes.push([137, 24, 1536], [29, 13, 1111]);

  it("D15: product and squares against float64, tails and gaps", () => {
    const random = seededRandom(seed);
    for (const [m, n, k] of shapes) {
      const a = withRowGaps(randomTensor(random, [m, k], "bf16"), 3);
      const b = withRowGaps(randomTensor(random, [n, k], "f32"), 5);
      const d = withRowGaps(poisoned([m, n], "f32"), 2);
      const sqrSum = poisoned([m], "f32");
      tf32HcPrenormGemm(device, { a, b, d, sqrSum });
      const label = `seed ${seed} [${m},${n},${k}]`;
      const x = a.toFloat64();
      const want = product(x, b.toFloat64(), [m, n, k]);
      expect(calcDiff(d.toFloat64(), want), label).toBeLessThan(1e-12);
      for (const [i, got] of sqrSum.toFloat64().entries()) {
        const squares = x.subarray(i * k, (i + 1) * k).reduce((s, v) => s + v * v, 0);
        expect(Math.abs(got / squares - 1), label).toBeLessThan(1e-6);
      }
      // Not the original's TF32, which would differ by 2.3e-8 or more.
      const rounded = b.toFloat64().map((v) => Math.fround(v * 8193) - Math.fround(v * 8192));
      if (k > 500) {
        const tf32 = product(x, rounded, [m, n, k]);
        expect(calcDiff(d.toFloat64(), tf32), label).toBeGreaterThan(1e-9);
      }
    }
  });

  it("splits add up to the whole, empty ones are zero", () => {
    const random = seededRandom(seed + 1);
    for (const [m, n, k, numSplits] of [
      [13, 24, 1280, 16],
      [3, 8, 100, 4],
      [4, 24, 700, 1],
    ] as const) {
      const a = randomTensor(random, [m, k], "bf16");
      const b = randomTensor(random, [n, k], "f32");
      const [d, sqrSum] = [poisoned([m, n], "f32"), poisoned([m], "f32")];
      tf32HcPrenormGemm(device, { a, b, d, sqrSum });
      const parts = poisoned([numSplits, m, n], "f32");
      const squares = poisoned([numSplits, m], "f32");
      tf32HcPrenormGemm(device, { a, b, d: parts, sqrSum: squares, numSplits });
      const sum = (tensor: Tensor, size: number): Float64Array => {
        const all = tensor.toFloat64();
        return Float64Array.from({ length: size }, (_, i) => {
          let s = 0;
          for (let at = i; at < all.length; at += size) s += all[at] as number;
          return s;
        });
      };
      const label = `seed ${seed} [${m},${n},${k}] ${numSplits}`;
      expect(calcDiff(sum(parts, m * n), d.toFloat64()), label).toBeLessThan(1e-10);
      expect(calcDiff(sum(squares, m), sqrSum.toFloat64()), label).toBeLessThan(1e-10);
      if (numSplits === 4) expect(parts.select(0, 3).toFloat32()).toEqual(new Float32Array(m * n));
      if (numSplits === 1) expect(parts.bytes()).toEqual(d.bytes());
    }
  });

  it("a row is the same alone, with others, on one thread; a NaN stays in its row", () => {
    const random = seededRandom(seed + 2);
    const [m, n, k] = [61, 24, 576];
    const a = randomTensor(random, [m, k], "bf16");
    const b = randomTensor(random, [n, k], "f32");
    (a.raw() as Uint16Array)[7 * k + 3] = 0x7fc0;
    const run = (rows: Tensor, threads?: number): [Tensor, Tensor] => {
      const out: [Tensor, Tensor] = [
        poisoned([rows.dim(0), n], "f32"),
        poisoned([rows.dim(0)], "f32"),
      ];
      tf32HcPrenormGemm(device, { a: rows, b, d: out[0], sqrSum: out[1], threads });
      return out;
    };
    const whole = run(a);
    expect(run(a, 1)[0].bytes()).toEqual(whole[0].bytes());
    for (const i of [0, 5, 6, 7, 24, 60]) {
      const alone = run(a.slice(0, i, i + 1));
      expect(rowBytes(alone[0], 0, 1), `row ${i}`).toEqual(rowBytes(whole[0], i, i + 1));
      expect(rowBytes(alone[1], 0, 1), `row ${i}`).toEqual(rowBytes(whole[1], i, i + 1));
    }
    const spoiled = whole[0]
      .toFloat32()
      .map((x, i) => Number(Number.isNaN(x) !== (Math.floor(i / n) === 7)));
    expect(spoiled.every((x) => x === 0)).toBe(true);
  });

  it("empty M, N and K", () => {
    const run = (m: number, n: number, k: number): [Tensor, Tensor] => {
      const out: [Tensor, Tensor] = [poisoned([m, n], "f32"), poisoned([m], "f32")];
      const [a, b] = [Tensor.empty([m, k], "bf16"), Tensor.empty([n, k], "f32")];
      tf32HcPrenormGemm(device, { a, b, d: out[0], sqrSum: out[1] });
      return out;
    };
    expect(run(0, 8, 64)[0].size).toBe(0);
    expect([...run(2, 0, 64)[1].toFloat32()]).toEqual([0, 0]);
    const [d, squares] = run(2, 3, 0);
    expect([...d.toFloat32(), ...squares.toFloat32()]).toEqual(new Array(8).fill(0));
  });
});
