// Products on every backend and instruction set: against float64 over the dequantised operands, and
// to the bit against themselves under other row counts, threads, groupings and instruction sets.

import { createDevice } from "@open-infra/jit";
import { type DType, Tensor } from "@open-infra/tensor";
import { calcDiff, seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, describe, expect, it } from "vitest";
import {
  bf16GemmNt,
  einsum,
  fp8GemmNt,
  gemmNt,
  gemmNtBatched,
  gemmNtGrouped,
  isScaled,
  mGroupedBf16GemmNtContiguous,
  mGroupedFp8GemmNtContiguous,
  mGroupedFp8GemmNtMasked,
  type Operand,
  perBlockCastToFp8,
  perTokenCastToFp8,
  type ScaledTensor,
} from "../src/index.ts";
import {
  allDevices,
  hasPairs,
  hasTiles,
  type NamedDevice,
  type OperandKind,
  poison,
  poisoned,
  product,
  randomOperand,
  randomScaled,
  randomTensor,
  rowBytes,
  tolerance,
  valuesOf,
  withRowGaps,
} from "./helpers.ts";

const seed = testSeed();
const devices = allDevices();
const compiled = devices.filter(({ name }) => name !== "reference");
afterAll(() => {
  for (const { device } of devices) device[Symbol.dispose]();
});

/** Rows of an operand, scales included. */
function rowsOf(operand: Operand, from: number, to: number): Operand {
  const cut = (t: Tensor): Tensor => t.slice(0, from, to);
  return isScaled(operand)
    ? { data: cut(operand.data), scales: cut(operand.scales) }
    : cut(operand);
}

describe.each(devices)("$name", ({ name, device }) => {
  const quick = name === "reference" || name.endsWith("scalar");
  // Emulated instructions are only there for what uses them.
  const emulated = name.endsWith("emulated");
  const mixes: readonly (readonly [OperandKind, OperandKind, DType])[] = [
    ["bf16", "bf16", "bf16"],
    ["bf16", "bf16", "f32"],
    ["fp8", "fp8", "bf16"],
    ["fp8", "fp8", "f32"],
    ["bf16", "fp8", "bf16"],
    ["f32", "f32", "f32"],
    ["f16", "f16", "f16"],
  ];

  const emulates = ([a, b]: (typeof mixes)[number]): boolean =>
    a + b === "bf16bf16" || (hasTiles({ name }) && a !== "f32" && a !== "f16");

  it.each(mixes.filter((mix) => !emulated || emulates(mix)))(
    "%s × %s → %s against float64, tails included",
    (kindA, kindB, out) => {
      const random = seededRandom(seed);
      const shapes: [number, number, number][] = [
        [1, 8, 128],
        [7, 112, 512],
        [64, 100, 200],
        [1, 1, 1],
        [3, 33, 1100],
        [13, 17, 72],
      ];
      if (!quick) shapes.push([129, 264, 1536], [1, 576, 7168], [200, 40, 640]);
      for (const [m, n, k] of shapes) {
        const a = randomOperand(random, kindA, [m, k], 1);
        const b = randomOperand(random, kindB, [n, k], 128);
        const d = poisoned([m, n], out);
        gemmNt(device, { a, b, d });
        const want = product(valuesOf(a, 1), valuesOf(b, 128), [m, n, k]);
        const got = d.toFloat64();
        const label = `seed ${seed} [${m},${n},${k}]`;
        expect(calcDiff(got, want), label).toBeLessThan(tolerance(out));
        const rms = Math.sqrt(want.reduce((s, x) => s + x * x, 0) / want.length);
        // Half an ulp of the output plus the float32 sum's own error, element by element.
        const half = out === "bf16" ? 2 ** -8 : out === "f16" ? 2 ** -11 : 2 ** -24;
        const worst = Math.max(
          ...want.map((x, i) => Math.abs((got[i] as number) - x) - half * Math.abs(x)),
        );
        expect(worst, label).toBeLessThan(1e-5 * rms + 1e-7);
      }
    },
  );

  it("D3: quantised inputs stay within the original's tolerance, and are really quantised", () => {
    const random = seededRandom(seed);
    const [m, n, k] = [64, 112, 512];
    const x = randomTensor(random, [m, k], "bf16");
    const y = randomTensor(random, [n, k], "bf16");
    const a = perTokenCastToFp8(device, { x });
    const b = perBlockCastToFp8(device, { x: y });
    const d = poisoned([m, n], "bf16");
    fp8GemmNt(device, { a, b, d });
    const diff = calcDiff(d.toFloat64(), product(x.toFloat64(), y.toFloat64(), [m, n, k]));
    expect(diff, `seed ${seed}`).toBeLessThan(1e-3);
    expect(diff, `seed ${seed}`).toBeGreaterThan(4e-4);
  });

  it("D4: same-sign sums over a long K keep float32's accuracy", () => {
    const random = seededRandom(seed);
    const [m, n, k] = [quick ? 2 : 9, 24, 7168];
    const positive = (granM: number, rows: number): ScaledTensor => ({
      data: randomTensor(random, [rows, k], "e4m3fn", () => Math.abs(random.normal()) * 64),
      scales: randomTensor(random, [Math.ceil(rows / granM), k / 128], "f32", random.next),
    });
    const [a, b] = [positive(1, m), positive(128, n)];
    const want = product(valuesOf(a, 1), valuesOf(b, 128), [m, n, k]);
    for (const out of ["f32", "bf16"] as const) {
      const d = poisoned([m, n], out);
      gemmNt(device, { a, b, d });
      expect(calcDiff(d.toFloat64(), want), `seed ${seed}`).toBeLessThan(tolerance(out));
    }
  });

  it("D5: every scale is applied to its own block, exactly", () => {
    const [m, k] = [9, 640];
    for (const n of [264, 400]) {
      const ones = (rows: number): Tensor =>
        Tensor.from(new Float64Array(rows * k).fill(1), [rows, k], "e4m3fn");
      const power = (rows: number, f: (i: number, kb: number) => number): Tensor =>
        Tensor.from(
          Array.from({ length: rows * 5 }, (_, i) => 2 ** f(Math.floor(i / 5), i % 5)),
          [rows, 5],
          "f32",
        );
      // Scales may lie column by column, as the original's kernels want them.
      const values = Array.from(
        { length: 5 * m },
        (_, i) => 2 ** (((i % m) + Math.floor(i / m)) % 5),
      );
      const sa = Tensor.from(values, [5, m], "f32").transpose(0, 1);
      const sb = power(Math.ceil(n / 128), (j, kb) => (j + 2 * kb) % 5);
      const d = poisoned([m, n], "f32");
      gemmNt(device, { a: { data: ones(m), scales: sa }, b: { data: ones(n), scales: sb }, d });
      const got = d.raw() as Float32Array;
      for (let i = 0; i < m; i++) {
        for (let j = 0; j < n; j++) {
          let want = 0;
          for (let kb = 0; kb < 5; kb++) {
            want += 128 * 2 ** ((i + kb) % 5) * 2 ** ((Math.floor(j / 128) + 2 * kb) % 5);
          }
          expect(got[i * n + j]).toBe(want);
        }
      }
    }
  });

  it("D6: accumulates C, aliasing D or apart; K = 0 copies it", () => {
    const random = seededRandom(seed);
    const [m, n, k] = [33, 40, 256];
    const a = randomScaled(random, [m, k], 1);
    const b = randomScaled(random, [n, k], 128);
    const c = randomTensor(random, [m, n], "f32", () => random.normal() * 32);
    const before = c.bytes().slice();
    const want = product(valuesOf(a, 1), valuesOf(b, 128), [m, n, k]).map(
      (x, i) => x + (c.toFloat64()[i] as number),
    );
    const apart = poisoned([m, n], "f32");
    fp8GemmNt(device, { a, b, d: apart, c });
    expect(c.bytes()).toEqual(before);
    expect(calcDiff(apart.toFloat64(), want), `seed ${seed}`).toBeLessThan(1e-9);
    const nothing = Tensor.empty([m, 0], "bf16");
    const copied = poisoned([m, n], "f32");
    bf16GemmNt(device, { a: nothing, b: Tensor.empty([n, 0], "bf16"), d: copied, c });
    expect(copied.bytes()).toEqual(before);
    bf16GemmNt(device, { a: nothing, b: Tensor.empty([n, 0], "bf16"), d: copied });
    expect(copied.toFloat64().every((x) => x === 0)).toBe(true);
    fp8GemmNt(device, { a, b, d: c, c });
    expect(c.bytes()).toEqual(apart.bytes());
  });

  it("empty M and N change nothing", () => {
    for (const [m, n] of [
      [0, 5],
      [5, 0],
      [0, 0],
    ] as const) {
      const a = Tensor.empty([m, 64], "bf16");
      const b = Tensor.empty([n, 64], "bf16");
      bf16GemmNt(device, { a, b, d: Tensor.empty([m, n], "bf16") });
    }
    const a = Tensor.empty([0, 64], "bf16");
    const b = Tensor.empty([3, 8, 64], "bf16");
    const offsets = Tensor.from([0, 0, 0, 0], [4], "i32");
    gemmNtGrouped(device, { a, b, d: Tensor.empty([0, 8], "bf16"), offsets });
  });

  it("rows apart in a, b, c and d; what lies between is neither read nor written", () => {
    const random = seededRandom(seed);
    for (const m of [2, 20]) {
      const [n, k] = [37, 300];
      const dense = {
        a: randomTensor(random, [m, k], "bf16"),
        b: randomTensor(random, [n, k], "bf16"),
        c: randomTensor(random, [m, n], "f32"),
      };
      const want = poisoned([m, n], "f32");
      gemmNt(device, { ...dense, d: want });
      const wide = Tensor.empty([m, n + 5], "f32");
      poison(wide);
      const d = wide.slice(1, 0, n);
      gemmNt(device, {
        a: withRowGaps(dense.a, 7),
        b: withRowGaps(dense.b, 3),
        c: withRowGaps(dense.c, 2),
        d,
      });
      expect(rowBytes(d, 0, m), `seed ${seed}`).toEqual(rowBytes(want, 0, m));
      const gaps = wide
        .slice(1, n, n + 5)
        .contiguous()
        .bytes();
      expect(gaps.every((byte) => byte === 0xff)).toBe(true);
    }
  });

  it("a NaN spoils its own row or column and no other", () => {
    const random = seededRandom(seed);
    const [n, k] = [40, 640];
    for (const m of [1, 4, 30]) {
      const a = randomScaled(random, [m, k], 1);
      const b = randomScaled(random, [n, k], 128);
      (b.data.raw() as Uint8Array)[17 * k + 300] = 0x7f;
      (b.data.raw() as Uint8Array)[38 * k + 5] = 0xff;
      if (m > 1) (a.data.raw() as Uint8Array)[(m - 1) * k + 639] = 0xff;
      const d = poisoned([m, n], "f32");
      gemmNt(device, { a, b, d });
      const got = d.toFloat64();
      for (let i = 0; i < m * n; i++) {
        const spoiled = i % n === 17 || i % n === 38 || (m > 1 && Math.floor(i / n) === m - 1);
        expect(Number.isNaN(got[i]), `m ${m} element ${i}, seed ${seed}`).toBe(spoiled);
      }
    }
  });

  it("D7: contiguous groups, unaligned; −1 rows of NaN become zero and leak nowhere", () => {
    const random = seededRandom(seed);
    const [n, k, groups] = [72, 384, 4];
    const sizes = quick ? [0, 1, 3, 20] : [0, 1, 127, 200];
    const ids = sizes.flatMap((size, g) => [...new Array<number>(size).fill(g), -1, -1]);
    const m = ids.length;
    const a = randomScaled(random, [m, k], 1);
    const b = randomScaled(random, [groups, n, k], 128);
    for (let i = 0; i < m; i++) {
      if (ids[i] !== -1) continue;
      a.data.select(0, i).bytes().fill(0xff);
      a.scales.select(0, i).bytes().fill(0xff);
    }
    const groupedLayout = Tensor.from(ids, [m], "i32");
    const d = poisoned([m, n], "bf16");
    mGroupedFp8GemmNtContiguous(device, { a, b, d, groupedLayout });
    let row = 0;
    for (const [g, size] of sizes.entries()) {
      const own = { data: b.data.select(0, g), scales: b.scales.select(0, g) };
      const want = poisoned([size, n], "bf16");
      fp8GemmNt(device, { a: rowsOf(a, row, row + size) as ScaledTensor, b: own, d: want });
      expect(rowBytes(d, row, row + size), `group ${g}`).toEqual(rowBytes(want, 0, size));
      expect(rowBytes(d, row + size, row + size + 2).every((byte) => byte === 0)).toBe(true);
      row += size + 2;
    }
  });

  it("grouped by offsets, with bf16 and rows outside", () => {
    const random = seededRandom(seed);
    const [n, k, m] = [40, 160, 50];
    const a = randomTensor(random, [m, k], "bf16");
    const b = randomTensor(random, [4, n, k], "bf16");
    const offsets = Tensor.from([2, 5, 5, 30, 48], [5], "i32");
    const d = poisoned([m, n], "f32");
    gemmNtGrouped(device, { a, b, d, offsets });
    const ids = Array.from({ length: m }, (_, i) =>
      i < 2 ? -1 : i < 5 ? 0 : i < 30 ? 2 : i < 48 ? 3 : -1,
    );
    const same = poisoned([m, n], "f32");
    const groupedLayout = Tensor.from(ids, [m], "i32");
    mGroupedBf16GemmNtContiguous(device, { a, b, d: same, groupedLayout });
    expect(rowBytes(d, 2, 48), `seed ${seed}`).toEqual(rowBytes(same, 2, 48));
    expect([...rowBytes(d, 0, 2), ...rowBytes(d, 48, 50)].every((byte) => byte === 0xff)).toBe(
      true,
    );
    const want = product(a.slice(0, 5, 30).toFloat64(), b.select(0, 2).toFloat64(), [25, n, k]);
    expect(calcDiff(d.slice(0, 5, 30).toFloat64(), want), `seed ${seed}`).toBeLessThan(1e-10);
  });

  it("D8: masked groups; rows beyond stay as they were", () => {
    const random = seededRandom(seed);
    const [groups, most, n, k] = [4, 24, 56, 256];
    const a = randomScaled(random, [groups, most, k], 1);
    const b = randomScaled(random, [groups, n, k], 128);
    const counts = [0, 1, most, 13];
    const maskedM = Tensor.from(counts, [groups], "i32");
    const d = poisoned([groups, most, n], "bf16");
    mGroupedFp8GemmNtMasked(device, { a, b, d, maskedM });
    for (const [g, count] of counts.entries()) {
      const rows = (t: Tensor): Tensor => t.select(0, g).slice(0, 0, count);
      const own = { data: b.data.select(0, g), scales: b.scales.select(0, g) };
      const want = poisoned([count, n], "bf16");
      fp8GemmNt(device, { a: { data: rows(a.data), scales: rows(a.scales) }, b: own, d: want });
      expect(rowBytes(d.select(0, g), 0, count), `group ${g}`).toEqual(rowBytes(want, 0, count));
      expect(rowBytes(d.select(0, g), count, most).every((byte) => byte === 0xff)).toBe(true);
    }
  });

  it("D11: bhr,hdr->bhd on strided heads", () => {
    const random = seededRandom(seed);
    const [tokens, heads, r, dv] = [5, 3, 136, 40];
    const whole = randomTensor(random, [tokens, heads, r + 64], "bf16");
    const a = whole.slice(2, 0, r);
    const b = randomTensor(random, [heads, dv, r], "bf16");
    const wide = poisoned([tokens, heads, dv + 8], "f32");
    const d = wide.slice(2, 0, dv);
    einsum(device, "bhr,hdr->bhd", { a, b, d });
    for (let h = 0; h < heads; h++) {
      const want = product(a.select(1, h).toFloat64(), b.select(0, h).toFloat64(), [tokens, dv, r]);
      const got = d.select(1, h).toFloat64();
      expect(calcDiff(got, want), `head ${h}, seed ${seed}`).toBeLessThan(1e-10);
    }
  });
});

describe("D19: a row does not know its batch", () => {
  const counts = [1, 2, 3, 4, 5, 6, 7, 13, 64, 193];
  const kinds: readonly (readonly [OperandKind, OperandKind])[] = [
    ["bf16", "bf16"],
    ["fp8", "fp8"],
    ["f32", "f32"],
  ];
  it.each(compiled.flatMap((d) => kinds.map(([a, b]) => ({ ...d, a, b }))))(
    "$name $a × $b",
    ({ device, a: kindA, b: kindB }) => {
      const random = seededRandom(seed);
      for (const [n, k] of [
        [48, 1536],
        [100, 200],
        [33, 7],
      ] as const) {
        const a = randomOperand(random, kindA, [300, k], 1);
        const b = randomOperand(random, kindB, [n, k], 128);
        const all = poisoned([300, n], "f32");
        gemmNt(device, { a, b, d: all });
        for (const m of counts) {
          const from = random.int(0, 300 - m);
          const d = poisoned([m, n], "f32");
          gemmNt(device, { a: rowsOf(a, from, from + m), b, d });
          const label = `seed ${seed} m ${m} from ${from} [${n},${k}]`;
          expect(rowBytes(d, 0, m), label).toEqual(rowBytes(all, from, from + m));
        }
        // As groups of one matrix, and as heads.
        const stacked = stack(b, 3);
        const grouped = poisoned([300, n], "f32");
        const offsets = Tensor.from([0, 2, 2 + random.int(0, 250), 300], [4], "i32");
        gemmNtGrouped(device, { a, b: stacked, d: grouped, offsets });
        expect(rowBytes(grouped, 0, 300), `seed ${seed}`).toEqual(rowBytes(all, 0, 300));
        const heads = poisoned([100, 3, n], "f32");
        gemmNtBatched(device, { a: reshaped(a, [100, 3]), b: stacked, d: heads });
        expect(heads.bytes(), `seed ${seed}`).toEqual(all.bytes());
      }
    },
  );

  it.each(compiled)("$name: one thread or two", ({ name, device }) => {
    const random = seededRandom(seed);
    using one = createDevice({ backend: "cpu", isa: name.slice(4), threads: 1 });
    for (const m of [1, 40]) {
      const a = randomScaled(random, [m, 1024], 1);
      const b = randomScaled(random, [700, 1024], 128);
      const [x, y] = [poisoned([m, 700], "f32"), poisoned([m, 700], "f32")];
      gemmNt(device, { a, b, d: x });
      gemmNt(one, { a, b, d: y });
      expect(x.bytes(), `seed ${seed}`).toEqual(y.bytes());
    }
  });

  it.skipIf(!compiled.some(({ name }) => name === "cpu amx")).each(["bf16", "fp8"] as const)(
    "matrix tiles and their emulation agree to the bit: %s",
    (kind) => {
      const random = seededRandom(seed);
      using emulation = createDevice({ backend: "cpu", isa: "amx-emulated", threads: 2 });
      const { device } = compiled.find(({ name }) => name === "cpu amx") as NamedDevice;
      for (const [m, n, k] of [
        [1, 40, 700],
        [40, 35, 2100],
      ] as const) {
        const a = randomOperand(random, kind, [m, k], 1);
        const b = randomOperand(random, kind, [n, k], 128);
        const [x, y] = [poisoned([m, n], "f32"), poisoned([m, n], "f32")];
        gemmNt(device, { a, b, d: x });
        gemmNt(emulation, { a, b, d: y });
        expect(x.bytes(), `seed ${seed}`).toEqual(y.bytes());
      }
    },
  );

  // Up to four rows take a path of their own beside matrix tiles: every count around where it ends.
  it.each([
    ["bf16", "bf16"],
    ["fp8", "fp8"],
    ["bf16", "fp8"],
    ["fp8", "bf16"],
  ] as const)(
    "a row alone is the same as among 33, subnormals too: %s × %s",
    (x, y) => {
      const random = seededRandom(seed);
      for (const [n, k] of [
        [70, 300],
        [33, 97],
      ] as const) {
        const a = randomOperand(random, x, [33, k], 1);
        const b = randomOperand(random, y, [n, k], 128);
        // Products and sums down to where float32 has subnormals, and bf16 that are some.
        if (x === "bf16" && !isScaled(a)) {
          const words = a.raw() as Uint16Array;
          for (let i = 0; i < words.length; i++) {
            const shift = (Math.floor(i / k) % 3) * 0x2000;
            const bits = words[i] as number;
            words[i] = (bits & 0x8000) | Math.max(i % 5, (bits & 0x7fff) - shift);
          }
        }
        for (const { name, device } of compiled) {
          const all = poisoned([33, n], "f32");
          gemmNt(device, { a, b, d: all });
          for (const rows of [1, 2, 3, 4, 5]) {
            for (const from of [0, 1, 14]) {
              const d = poisoned([rows, n], "f32");
              gemmNt(device, { a: rowsOf(a, from, from + rows), b, d });
              const message = `${name}, rows ${from} + ${rows}, seed ${seed}`;
              expect(d.bytes(), message).toEqual(
                all
                  .slice(0, from, from + rows)
                  .contiguous()
                  .bytes(),
              );
            }
          }
        }
      }
    },
    120_000,
  );

  it.each(kinds)("instruction sets with fused multiply-add agree to the bit: %s × %s", (x, y) => {
    const random = seededRandom(seed);
    const a = randomOperand(random, x, [20, 1300], 1);
    const b = randomOperand(random, y, [50, 1300], 128);
    const results = compiled
      .filter((d) => !d.name.endsWith("scalar") && !(x === "bf16" && hasPairs(d)))
      .filter((d) => x === "f32" || x === "f16" || !hasTiles(d))
      .map(({ name, device }) => {
        const d = poisoned([20, 50], "f32");
        gemmNt(device, { a, b, d });
        return { name, bytes: d.bytes() };
      });
    for (const { name, bytes } of results) {
      expect(bytes, `${name} against ${results[0]?.name}, seed ${seed}`).toEqual(results[0]?.bytes);
    }
  });
});

/** The same matrix `count` times. */
function stack(operand: Operand, count: number): Operand {
  const copies = (t: Tensor): Tensor => {
    const out = Tensor.empty([count, ...t.shape], t.dtype);
    for (let i = 0; i < count; i++) out.select(0, i).bytes().set(t.bytes());
    return out;
  };
  return isScaled(operand)
    ? { data: copies(operand.data), scales: copies(operand.scales) }
    : copies(operand);
}

function reshaped(operand: Operand, rows: readonly number[]): Operand {
  const shape = (t: Tensor): Tensor => t.reshape([...rows, t.dim(-1)]);
  // Row i of the heads is row 3t + h of the matrix, whichever head computes it.
  return isScaled(operand)
    ? { data: shape(operand.data), scales: shape(operand.scales) }
    : shape(operand);
}
