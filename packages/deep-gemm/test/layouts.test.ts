// The four layouts, recipes and FP4 on every backend: against float64 over the dequantised
// operands, and to the bit against the `nt` product of the same values.

import { createDevice, type Device } from "@open-infra/jit";
import { Tensor } from "@open-infra/tensor";
import { calcDiff, seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, describe, expect, it } from "vitest";
import {
  bf16GemmNn,
  bf16GemmNt,
  bf16GemmTn,
  bf16GemmTt,
  castBackFromFp8,
  type Fp8GemmArgs,
  fp8Fp4GemmNt,
  fp8GemmNn,
  fp8GemmNt,
  fp8GemmTn,
  fp8GemmTt,
  gemmNt,
  perTokenCastToFp8,
  type ScaledTensor,
} from "../src/index.ts";
import {
  cpuDevices,
  familyDevices,
  hasPairs,
  poisoned,
  product,
  randomScaled,
  randomTensor,
  rowBytes,
  tolerance,
  turnedOperand,
  valuesOf,
  withRowGaps,
} from "./helpers.ts";

const seed = testSeed();
const devices = familyDevices();
const compiled = devices.filter(({ name }) => name !== "reference");
/** Those whose products of bf16 take pairs, which have packing of their own. */
const pairs = cpuDevices().filter(hasPairs);
afterAll(() => {
  for (const { device } of [...devices, ...pairs]) device[Symbol.dispose]();
});

/** M, N, K: whole tiles, tails of each, and several K blocks. */
const shapes = [
  [1, 16, 64],
  [5, 40, 520],
  [33, 56, 1100],
  [200, 136, 600],
] as const;

type Recipe = readonly [number, number, number];

/** The layouts whose operands are `nt` operands turned or as they are. */
const layouts = [
  { name: "nn", fp8: fp8GemmNn, bf16: bf16GemmNn, turnA: false, turnB: true },
  { name: "tn", fp8: fp8GemmTn, bf16: bf16GemmTn, turnA: true, turnB: true },
  { name: "tt", fp8: fp8GemmTt, bf16: bf16GemmTt, turnA: true, turnB: false },
] as const;

function maybeTurned<T extends Tensor | ScaledTensor>(operand: T, turn: boolean): T {
  return turn ? turnedOperand(operand, 3) : operand;
}

/** What `run` writes into a poisoned [m,n]. */
function bytesOf(m: number, n: number, run: (d: Tensor) => void): Uint8Array {
  const d = poisoned([m, n], "f32");
  run(d);
  return d.bytes();
}

it.each(pairs)("$name: pairs of bf16 in every layout", ({ device }) => {
  const random = seededRandom(seed);
  for (const [m, n, k] of shapes) {
    const a = randomTensor(random, [m, k], "bf16");
    const b = randomTensor(random, [n, k], "bf16");
    const want = bytesOf(m, n, (d) => bf16GemmNt(device, { a, b, d }));
    for (const { name, bf16, turnA, turnB } of layouts) {
      const turned = { a: maybeTurned(a, turnA), b: maybeTurned(b, turnB) };
      const got = bytesOf(m, n, (d) => bf16(device, { ...turned, d }));
      expect(got, `${name} [${m},${n},${k}] seed ${seed}`).toEqual(want);
    }
  }
});

describe.each(compiled)("$name: layouts agree with nt to the bit", ({ name, device }) => {
  // Types meet every instruction set; all combinations of layouts the best one.
  const all = device === compiled[0]?.device;
  const some = layouts.filter(({ name: layout }) => all || layout === "tn");

  it.each(some)("bf16 $name", ({ bf16, turnA, turnB }) => {
    const random = seededRandom(seed);
    for (const [m, n, k] of shapes) {
      const a = randomTensor(random, [m, k], "bf16");
      const b = randomTensor(random, [n, k], "bf16");
      const want = bytesOf(m, n, (d) => bf16GemmNt(device, { a, b, d }));
      const turned = { a: maybeTurned(a, turnA), b: maybeTurned(b, turnB) };
      const got = bytesOf(m, n, (d) => bf16(device, { ...turned, d }));
      expect(got, `${name} [${m},${n},${k}] seed ${seed}`).toEqual(want);
    }
  });

  const recipes: readonly Recipe[] = all
    ? [
        [1, 128, 128],
        [1, 1, 128],
        [128, 1, 32],
      ]
    : [
        [1, 128, 128],
        [1, 1, 128],
      ];
  it.each(recipes.flatMap((recipe) => some.map((layout) => ({ ...layout, recipe }))))(
    "fp8 $name, recipe $recipe",
    ({ fp8, turnA, turnB, recipe }) => {
      const random = seededRandom(seed);
      for (const [m, n, k] of shapes) {
        const a = randomScaled(random, [m, k], recipe[0], recipe[2]);
        const b = randomScaled(random, [n, k], recipe[1], recipe[2]);
        const want = bytesOf(m, n, (d) => fp8GemmNt(device, { a, b, d, recipe }));
        const turned = { a: maybeTurned(a, turnA), b: maybeTurned(b, turnB) };
        const got = bytesOf(m, n, (d) => fp8(device, { ...turned, d, recipe }));
        expect(got, `${name} [${m},${n},${k}] seed ${seed}`).toEqual(want);
      }
    },
  );

  it.runIf(all).each(["f32", "f16"] as const)("%s views", (dtype) => {
    const random = seededRandom(seed);
    for (const [m, n, k] of shapes) {
      const a = randomTensor(random, [m, k], dtype);
      const b = randomTensor(random, [n, k], dtype);
      const want = bytesOf(m, n, (d) => gemmNt(device, { a, b, d }));
      const views = {
        a: turnedOperand(a, 1).transpose(0, 1),
        b: turnedOperand(b, 2).transpose(0, 1),
      };
      const got = bytesOf(m, n, (d) => gemmNt(device, { ...views, d }));
      expect(got, `[${m},${n},${k}] seed ${seed}`).toEqual(want);
    }
  });

  it("D19: a row of a turned product does not know its batch", () => {
    const random = seededRandom(seed);
    const [n, k] = [72, 1100];
    const a = randomScaled(random, [300, k], 1);
    const b = turnedOperand(randomScaled(random, [n, k], 1));
    const recipe = [1, 1, 128] as const;
    const whole = poisoned([300, n], "f32");
    fp8GemmTn(device, { a: turnedOperand(a), b, d: whole, recipe });
    for (const m of [1, 2, 6, 7, 30, 193]) {
      const from = random.int(0, 300 - m);
      const rows = (t: Tensor): Tensor => t.slice(0, from, from + m);
      const part = turnedOperand({ data: rows(a.data), scales: rows(a.scales) });
      const d = poisoned([m, n], "f32");
      fp8GemmTn(device, { a: part, b, d, recipe });
      const label = `${m} rows from ${from}, seed ${seed}`;
      expect(d.bytes(), label).toEqual(rowBytes(whole, from, from + m));
    }
  });
});

describe.each(devices)("$name", ({ name, device }) => {
  const best = device === compiled[0]?.device || name === "reference";

  it("D3: 1D1D and other recipes against float64", () => {
    const random = seededRandom(seed);
    const recipes: readonly Recipe[] = best
      ? [
          [1, 1, 128],
          [128, 1, 32],
          [128, 128, 128],
        ]
      : [[1, 1, 128]];
    for (const recipe of recipes) {
      for (const [m, n, k] of [
        [3, 24, 200],
        [70, 33, 640],
      ] as const) {
        const a = randomScaled(random, [m, k], recipe[0], recipe[2]);
        const b = randomScaled(random, [n, k], recipe[1], recipe[2]);
        const x = valuesOf(a, recipe[0], recipe[2]);
        const want = product(x, valuesOf(b, recipe[1], recipe[2]), [m, n, k]);
        const d = poisoned([m, n], "f32");
        fp8GemmNt(device, { a, b, d, recipe });
        const label = `recipe ${recipe} [${m},${n},${k}] seed ${seed}`;
        expect(calcDiff(d.toFloat64(), want), label).toBeLessThan(1e-10);
      }
    }
  });

  it("D4, D6: a 1D1D weight gradient accumulates same-sign sums in f32", () => {
    const random = seededRandom(seed);
    const [m, n, k] = name === "reference" ? [4, 8, 7168] : [24, 40, 7168];
    const positive = (rows: number): ScaledTensor => ({
      data: randomTensor(random, [k, rows], "e4m3fn", () => Math.abs(random.normal()) * 64),
      scales: randomTensor(random, [k / 128, rows], "f32", random.next),
    });
    const [a, b] = [positive(m), positive(n)];
    const c = randomTensor(random, [m, n], "f32", () => random.normal() * 32);
    const before = c.bytes().slice();
    const turned = ({ data, scales }: ScaledTensor): ScaledTensor => ({
      data: data.transpose(0, 1),
      scales: scales.transpose(0, 1),
    });
    const want = product(valuesOf(turned(a), 1), valuesOf(turned(b), 1), [m, n, k]).map(
      (x, i) => x + (c.toFloat64()[i] as number),
    );
    const d = poisoned([m, n], "f32");
    fp8GemmTn(device, { a, b, d, c, recipe: [1, 1, 128] });
    expect(c.bytes()).toEqual(before);
    expect(calcDiff(d.toFloat64(), want), `seed ${seed}`).toBeLessThan(1e-9);
    fp8GemmTn(device, { a, b, d: c, c, recipe: [1, 1, 128] });
    expect(c.bytes()).toEqual(d.bytes());
  });

  it("D5: every scale of a row of B is applied to its own row and block, exactly", () => {
    const [m, n, k] = [9, 264, 640];
    const power = (rows: number, f: (i: number, kb: number) => number): Tensor =>
      Tensor.from(
        Array.from({ length: rows * 5 }, (_, i) => 2 ** f(Math.floor(i / 5), i % 5)),
        [rows, 5],
        "f32",
      );
    const ones = (rows: number): Tensor =>
      Tensor.from(new Float64Array(rows * k).fill(1), [rows, k], "e4m3fn");
    const a = { data: ones(m), scales: power(m, (i, kb) => (i + kb) % 5) };
    const b = { data: ones(n), scales: power(n, (j, kb) => (j + 2 * kb) % 5) };
    for (const turn of [false, true]) {
      const d = poisoned([m, n], "f32");
      if (turn) fp8GemmTn(device, args(turnedOperand(a), turnedOperand(b), d));
      else fp8GemmNt(device, args(a, b, d));
      const got = d.raw() as Float32Array;
      for (let i = 0; i < m; i++) {
        for (let j = 0; j < n; j++) {
          let want = 0;
          for (let kb = 0; kb < 5; kb++)
            want += 128 * 2 ** ((i + kb) % 5) * 2 ** ((j + 2 * kb) % 5);
          expect(got[i * n + j]).toBe(want);
        }
      }
    }
    function args(x: ScaledTensor, y: ScaledTensor, d: Tensor): Fp8GemmArgs {
      return { a: x, b: y, d, recipe: [1, 1, 128] };
    }
  });

  it("D10: bf16 in all layouts against float64, C of bf16 and f32", () => {
    const random = seededRandom(seed);
    const sizes: readonly (readonly [number, number, number])[] = best
      ? [
          [1, 8, 16],
          [33, 104, 104],
          [20, 40, 1600],
        ]
      : [[33, 104, 104]];
    for (const [m, n, k] of sizes) {
      const a = randomTensor(random, [m, k], "bf16");
      const b = randomTensor(random, [n, k], "bf16");
      const plain = product(a.toFloat64(), b.toFloat64(), [m, n, k]);
      for (const dtype of ["f32", "bf16"] as const) {
        const c = randomTensor(random, [m, n], dtype);
        const sum = plain.map((x, i) => x + (c.toFloat64()[i] as number));
        for (const { bf16, turnA, turnB } of best ? layouts : layouts.slice(1, 2)) {
          const d = poisoned([m, n], dtype);
          bf16(device, { a: maybeTurned(a, turnA), b: maybeTurned(b, turnB), d, c });
          const label = `${dtype} [${m},${n},${k}] seed ${seed}`;
          expect(calcDiff(d.toFloat64(), sum), label).toBeLessThan(tolerance(dtype));
        }
      }
    }
  });

  it("FP8 × FP4 and FP4 × FP4 against float64", () => {
    const random = seededRandom(seed);
    const recipes = { recipeA: [1, 128], recipeB: [1, 32] } as const;
    for (const [m, n, k] of [
      [3, 24, 96],
      [60, 33, 608],
    ] as const) {
      const b = randomScaled(random, [n, k], 1, 32, "e2m1");
      const a8 = randomScaled(random, [m, k], 1);
      const d = poisoned([m, n], "f32");
      fp8Fp4GemmNt(device, { a: a8, b, d, ...recipes });
      const y = valuesOf(b, 1, 32);
      const label = `[${m},${n},${k}] seed ${seed}`;
      const want = product(valuesOf(a8, 1), y, [m, n, k]);
      expect(calcDiff(d.toFloat64(), want), label).toBeLessThan(1e-10);
      if (!best) continue;
      const a4 = randomScaled(random, [m, k], 1, 32, "e2m1");
      fp8Fp4GemmNt(device, { a: a4, b, d, recipe: [1, 1, 32] });
      const both = product(valuesOf(a4, 1, 32), y, [m, n, k]);
      expect(calcDiff(d.toFloat64(), both), label).toBeLessThan(1e-10);
    }
  });

  it("a NaN in a turned operand spoils its row or column and no other", () => {
    const random = seededRandom(seed);
    const [m, n, k] = [20, 40, 200];
    const a = randomScaled(random, [m, k], 1);
    const b = randomScaled(random, [n, k], 128);
    (a.data.raw() as Uint8Array)[7 * k + 199] = 0xff;
    (b.data.raw() as Uint8Array)[17 * k + 130] = 0x7f;
    const d = poisoned([m, n], "f32");
    fp8GemmTn(device, { a: turnedOperand(a, 5), b: turnedOperand(b, 5), d });
    d.toFloat64().forEach((x, i) => {
      const spoiled = Math.floor(i / n) === 7 || i % n === 17;
      expect(Number.isNaN(x), `element ${i}, seed ${seed}`).toBe(spoiled);
    });
  });
});

describe("a weight gradient of real quantisation", () => {
  it("stays within the original's tolerance, and is really quantised", () => {
    const device = compiled[0]?.device as Device;
    const random = seededRandom(seed);
    const [m, n, k] = [40, 72, 1024];
    const x = randomTensor(random, [m, k], "bf16");
    const y = randomTensor(random, [n, k], "bf16");
    const [a, b] = [perTokenCastToFp8(device, { x }), perTokenCastToFp8(device, { x: y })];
    const d = poisoned([m, n], "f32");
    fp8GemmNt(device, { a, b, d, recipe: [1, 1, 128] });
    const loose = calcDiff(d.toFloat64(), product(x.toFloat64(), y.toFloat64(), [m, n, k]));
    expect(loose, `seed ${seed}`).toBeLessThan(1e-3);
    expect(loose, `seed ${seed}`).toBeGreaterThan(4e-4);
    const back = (s: ScaledTensor): Float64Array =>
      castBackFromFp8(device, { x: s, granM: 1 }).toFloat64();
    expect(calcDiff(d.toFloat64(), product(back(a), back(b), [m, n, k]))).toBeLessThan(1e-10);
  });

  it("rows of d may be apart in every layout", () => {
    const device = createDevice({ backend: "reference" });
    const random = seededRandom(seed);
    const a = randomTensor(random, [3, 8], "bf16");
    const b = randomTensor(random, [5, 8], "bf16");
    const d = withRowGaps(poisoned([3, 5], "f32"), 2);
    bf16GemmTn(device, { a: turnedOperand(a), b: turnedOperand(b), d });
    const want = product(a.toFloat64(), b.toFloat64(), [3, 5, 8]);
    expect(calcDiff(d.toFloat64(), want), `seed ${seed}`).toBeLessThan(1e-10);
  });
});
