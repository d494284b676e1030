// Epilogues on every backend: against the same steps done one after the other.

import { type DType, Tensor } from "@open-infra/tensor";
import { calcDiff, type Random, seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, describe, expect, it } from "vitest";
import {
  bf16GemmNt,
  type Epilogue,
  fp8GemmNt,
  gemmNtGrouped,
  mGroupedBf16GemmNtContiguous,
  perTokenCastToFp8,
  type ScaledTensor,
} from "../src/index.ts";
import {
  familyDevices,
  poisoned,
  product,
  randomScaled,
  randomTensor,
  rowBytes,
  tolerance,
  valuesOf,
} from "./helpers.ts";

const seed = testSeed();
const devices = familyDevices();
afterAll(() => {
  for (const { device } of devices) device[Symbol.dispose]();
});

function gated(x: Float64Array, n: number, clamp = Number.POSITIVE_INFINITY): Float64Array {
  const half = n / 2;
  return Float64Array.from({ length: x.length / 2 }, (_, i) => {
    const at = Math.floor(i / half) * n + (i % half);
    const gate = Math.min(x[at] as number, clamp);
    const value = Math.max(-clamp, Math.min(x[at + half] as number, clamp));
    return (gate / (1 + Math.exp(-gate))) * value;
  });
}

const codes = (m: number, n: number): ScaledTensor => ({
  data: poisoned([m, n], "e4m3fn"),
  scales: poisoned([m, Math.ceil(n / 128)], "f32"),
});

describe.each(devices)("$name", ({ name, device }) => {
  const quick = name === "reference" || name.endsWith("scalar");
  const small = (random: Random): number => random.normal() / 8;

  it("alpha, bias and C", () => {
    const random = seededRandom(seed);
    const [m, n, k] = [quick ? 5 : 40, 75, 96];
    const a = randomTensor(random, [m, k], "bf16");
    const b = randomTensor(random, [n, k], "bf16");
    const c = randomTensor(random, [m, n], "f32");
    const plain = product(a.toFloat64(), b.toFloat64(), [m, n, k]);
    for (const dtype of ["f32", "bf16"] as const) {
      const bias = randomTensor(random, [n], dtype);
      const [x, y] = [bias.toFloat64(), c.toFloat64()];
      const want = plain.map((p, i) => 0.375 * p + (x[i % n] as number) + (y[i] as number));
      const d = poisoned([m, n], "f32");
      bf16GemmNt(device, { a, b, d, c, epilogue: { alpha: 0.375, bias } });
      expect(calcDiff(d.toFloat64(), want), `seed ${seed}`).toBeLessThan(1e-10);
    }
    const d = poisoned([m, n], "f32");
    const bias = randomTensor(random, [n], "f32");
    const [none, nothing] = [Tensor.empty([m, 0], "bf16"), Tensor.empty([n, 0], "bf16")];
    bf16GemmNt(device, { a: none, b: nothing, d, epilogue: { bias } });
    expect(rowBytes(d, m - 1, m), "K = 0 leaves the bias").toEqual(bias.bytes());
  });

  it("SwiGLU, with widths that are no multiple of a block, clamp and bias", () => {
    const random = seededRandom(seed);
    for (const n of quick ? [34, 300] : [34, 256, 300, 656]) {
      const [m, k] = [quick ? 3 : 33, 200];
      const a = randomScaled(random, [m, k], 1);
      const b = randomScaled(random, [n, k], 128);
      const bias = randomTensor(random, [n], "f32");
      const [x, alpha] = [bias.toFloat64(), 2 ** -9];
      const plain = product(valuesOf(a, 1), valuesOf(b, 128), [m, n, k]).map(
        (p, i) => alpha * p + (x[i % n] as number),
      );
      for (const activationClamp of [undefined, 1.5]) {
        const d = poisoned([m, n / 2], "f32");
        const epilogue: Epilogue = { alpha, bias, activation: "swiglu", activationClamp };
        fp8GemmNt(device, { a, b, d, epilogue });
        const label = `N ${n}, clamp ${activationClamp}, seed ${seed}`;
        const want = gated(plain, n, activationClamp);
        expect(calcDiff(d.toFloat64(), want), label).toBeLessThan(1e-10);
      }
    }
  });

  it("requantised results are the bytes of a cast of the f32 result", () => {
    const random = seededRandom(seed);
    for (const [m, n, k] of quick
      ? ([[3, 150, 64]] as const)
      : ([
          [1, 128, 64],
          [30, 300, 200],
          [130, 513, 136],
        ] as const)) {
      const a = randomTensor(random, [m, k], "bf16", () => small(random));
      const b = randomTensor(random, [n, k], "bf16");
      const plain = poisoned([m, n], "f32");
      bf16GemmNt(device, { a, b, d: plain });
      for (const useUe8m0 of [false, true]) {
        const d = codes(m, n);
        bf16GemmNt(device, { a, b, d, epilogue: { useUe8m0 } });
        const want = perTokenCastToFp8(device, { x: plain, useUe8m0 });
        const label = `[${m},${n},${k}] ue8m0 ${useUe8m0} seed ${seed}`;
        if (name === "reference") {
          // The reference rounds its float64 sum to codes at once: a tie may fall the other way.
          expect(calcDiff(valuesOf(d, 1), plain.toFloat64()), label).toBeLessThan(1e-3);
          continue;
        }
        expect(d.scales.bytes(), label).toEqual(want.scales.bytes());
        expect(d.data.bytes(), label).toEqual(want.data.bytes());
      }
    }
  });

  it("the expert's way: grouped, gated and requantised at once", () => {
    const random = seededRandom(seed);
    const [groups, n, k] = [3, quick ? 40 : 400, 160];
    const ids = [0, 0, -1, 2, 2, 2, 2, ...new Array<number>(quick ? 1 : 30).fill(1)];
    const m = ids.length;
    const a = randomTensor(random, [m, k], "bf16", () => small(random));
    const b = randomTensor(random, [groups, n, k], "bf16");
    const bias = randomTensor(random, [groups, n], "f32");
    const groupedLayout = Tensor.from(ids, [m], "i32");
    const d = codes(m, n / 2);
    const epilogue: Epilogue = { activation: "swiglu", bias };
    mGroupedBf16GemmNtContiguous(device, { a, b, d, groupedLayout, epilogue });
    const got = valuesOf(d, 1);
    ids.forEach((id, i) => {
      const row = got.subarray((i * n) / 2, ((i + 1) * n) / 2);
      if (id < 0) {
        expect(row.every((x) => x === 0)).toBe(true);
        return;
      }
      const own = bias.select(0, id).toFloat64();
      const [x, y] = [a.slice(0, i, i + 1).toFloat64(), b.select(0, id).toFloat64()];
      const sums = product(x, y, [1, n, k]).map((p, j) => p + (own[j] as number));
      expect(calcDiff(row, gated(sums, n)), `row ${i}, seed ${seed}`).toBeLessThan(1e-3);
      const exact = poisoned([1, n / 2], "f32");
      const one = { activation: "swiglu", bias: bias.select(0, id) } as const;
      const operands = { a: a.slice(0, i, i + 1), b: b.select(0, id) };
      bf16GemmNt(device, { ...operands, d: exact, epilogue: one });
      if (name === "reference") return;
      const want = perTokenCastToFp8(device, { x: exact });
      expect(rowBytes(d.data, i, i + 1), `row ${i}, seed ${seed}`).toEqual(want.data.bytes());
    });
  });

  it("any output type; codes without scales saturate, NaN stays", () => {
    const random = seededRandom(seed);
    const [m, n, k] = [7, 40, 64];
    const a = randomTensor(random, [m, k], "bf16");
    const b = randomTensor(random, [n, k], "bf16");
    const want = product(a.toFloat64(), b.toFloat64(), [m, n, k]);
    for (const dtype of ["f32", "bf16", "f16"] as DType[]) {
      const d = poisoned([m, n], dtype);
      bf16GemmNt(device, { a, b, d });
      const limit = tolerance(dtype);
      expect(calcDiff(d.toFloat64(), want), `${dtype} seed ${seed}`).toBeLessThan(limit);
    }
    a.raw()[0] = 0x7fc0;
    const d = poisoned([m, n], "e4m3fn");
    bf16GemmNt(device, { a, b, d, epilogue: { alpha: 64 } });
    d.toFloat64().forEach((x, i) => {
      if (i < n) {
        expect(x).toBeNaN();
        return;
      }
      const exact = 64 * (want[i] as number);
      const clamped = Math.max(-448, Math.min(448, exact));
      const label = `element ${i}, ${exact}, seed ${seed}`;
      expect(Math.abs(x - clamped), label).toBeLessThanOrEqual(Math.abs(clamped) / 15);
    });
  });

  it("a group's rows are gated alike whatever their number, on one thread or two", () => {
    const random = seededRandom(seed);
    const [m, n, k] = [quick ? 8 : 60, 96, 640];
    const a = randomTensor(random, [m, k], "bf16", () => small(random));
    const b = randomTensor(random, [1, n, k], "bf16");
    const epilogue: Epilogue = { activation: "swiglu" };
    const whole = poisoned([m, n / 2], "f32");
    bf16GemmNt(device, { a, b: b.select(0, 0), d: whole, epilogue });
    for (const rows of [1, 3, m - 1]) {
      const d = poisoned([rows, n / 2], "f32");
      bf16GemmNt(device, { a: a.slice(0, 0, rows), b: b.select(0, 0), d, epilogue, threads: 1 });
      expect(d.bytes(), `${rows} rows, seed ${seed}`).toEqual(rowBytes(whole, 0, rows));
    }
    const plain = poisoned([m, n], "f32");
    const same = poisoned([m, n], "f32");
    bf16GemmNt(device, { a, b: b.select(0, 0), d: plain });
    gemmNtGrouped(device, { a, b, d: same, offsets: Tensor.from([0, m], [2], "i32") });
    expect(same.bytes(), `seed ${seed}`).toEqual(plain.bytes());
  });
});
