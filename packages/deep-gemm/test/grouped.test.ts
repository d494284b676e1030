// Groups of rows and groups along K on every backend: random ragged sizes against one product per
// group, to the bit; what lies outside groups neither read nor, unless asked for, written.

import { Tensor } from "@open-infra/tensor";
import { calcDiff, type Random, seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, describe, expect, it } from "vitest";
import {
  bf16GemmNt,
  bf16GemmTn,
  fp8GemmNt,
  fp8GemmTn,
  gemmNtGrouped,
  kGroupedBf16GemmTnContiguous,
  kGroupedFp8GemmNtContiguous,
  kGroupedFp8GemmTnContiguous,
  mGroupedBf16GemmNnContiguous,
  mGroupedBf16GemmNtContiguous,
  mGroupedBf16GemmNtMasked,
  mGroupedFp8GemmNnContiguous,
  mGroupedFp8GemmNtContiguous,
  mGroupedFp8GemmNtMasked,
  type ScaledTensor,
} from "../src/index.ts";
import {
  familyDevices,
  poison,
  poisoned,
  product,
  randomScaled,
  randomTensor,
  rowBytes,
  turnedOperand,
  valuesOf,
} from "./helpers.ts";

const seed = testSeed();
const devices = familyDevices();
const compiled = devices.filter(({ name }) => name !== "reference");
afterAll(() => {
  for (const { device } of devices) device[Symbol.dispose]();
});

const i32 = (values: readonly number[]): Tensor => Tensor.from(values, [values.length], "i32");
const align = (x: number, to: number): number => Math.ceil(x / to) * to;
const isPoison = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0xff);
const isZero = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0);

interface Ragged {
  readonly starts: number[];
  readonly ends: number[];
  readonly m: number;
}

/** Groups of random size, a third of them empty, that start at multiples of `alignment`. */
function ragged(random: Random, groups: number, most: number, alignment: number): Ragged {
  const [starts, ends]: [number[], number[]] = [[], []];
  let at = 0;
  for (let g = 0; g < groups; g++) {
    starts.push(at);
    ends.push(at + (random.int(0, 3) === 0 ? 0 : random.int(1, most)));
    at = align(ends[g] as number, alignment);
  }
  return { starts, ends, m: align(at + random.int(0, 3), alignment) };
}

/** NaN in all rows of a that belong to no group. */
function poisonPadding(a: ScaledTensor, { starts, ends, m }: Ragged): void {
  for (let i = 0; i < m; i++) {
    if (starts.some((start, g) => start <= i && i < (ends[g] as number))) continue;
    a.data.select(0, i).bytes().fill(0xff);
    a.scales.select(0, i).bytes().fill(0xff);
  }
}

const groupOf = (b: ScaledTensor, g: number): ScaledTensor => ({
  data: b.data.select(0, g),
  scales: b.scales.select(0, g),
});
const rowsOf = (a: ScaledTensor, from: number, to: number): ScaledTensor => ({
  data: a.data.slice(0, from, to),
  scales: a.scales.slice(0, from, to),
});

describe.each(devices)("$name", ({ name, device }) => {
  const quick = name === "reference" || name.endsWith("scalar");
  const rounds = quick ? 2 : 6;

  it("D7: psum layout, ragged groups: each as its own product, padding zero or untouched", () => {
    const random = seededRandom(seed);
    for (let round = 0; round < rounds; round++) {
      const alignment = random.pick([1, 8, 128]);
      const layout = ragged(random, random.int(1, 6), quick ? 9 : 70, alignment);
      const { starts, ends, m } = layout;
      const [n, k, groups] = [random.int(1, 60), random.int(1, 500), ends.length];
      const a = randomScaled(random, [m, k], 1);
      poisonPadding(a, layout);
      const b = randomScaled(random, [groups, n, k], 128);
      const groupedLayout = i32(ends);
      const label = `ends ${ends} aligned ${alignment} [${m},${n},${k}] round ${round} seed ${seed}`;
      const shared = { a, b, groupedLayout, usePsumLayout: true, alignment };
      const zeroed = poisoned([m, n], "bf16");
      mGroupedFp8GemmNtContiguous(device, { ...shared, d: zeroed });
      const left = poisoned([m, n], "bf16");
      mGroupedFp8GemmNtContiguous(device, { ...shared, d: left, ensureZeroPadding: false });
      let covered = 0;
      for (let g = 0; g < groups; g++) {
        const [from, to] = [starts[g] as number, ends[g] as number];
        expect(isZero(rowBytes(zeroed, covered, from)), label).toBe(true);
        expect(isPoison(rowBytes(left, covered, from)), label).toBe(true);
        const want = poisoned([to - from, n], "bf16");
        fp8GemmNt(device, { a: rowsOf(a, from, to), b: groupOf(b, g), d: want });
        expect(rowBytes(zeroed, from, to), label).toEqual(rowBytes(want, 0, to - from));
        expect(rowBytes(left, from, to), label).toEqual(rowBytes(want, 0, to - from));
        covered = to;
      }
      expect(isZero(rowBytes(zeroed, covered, m)), label).toBe(true);
      expect(isPoison(rowBytes(left, covered, m)), label).toBe(true);
    }
  });

  it("D7: ids change at any row; −1 rows zero or untouched; psum and offsets agree", () => {
    const random = seededRandom(seed);
    const [m, n, k, groups] = [quick ? 30 : 150, 40, 160, 4];
    const a = randomTensor(random, [m, k], "bf16");
    const b = randomTensor(random, [groups, n, k], "bf16");
    const ids = Array.from({ length: m }, () => random.int(-1, groups));
    ids.forEach((id, i) => {
      if (id < 0) a.select(0, i).bytes().fill(0xff);
    });
    const d = poisoned([m, n], "f32");
    mGroupedBf16GemmNtContiguous(device, { a, b, d, groupedLayout: i32(ids) });
    const left = poisoned([m, n], "f32");
    const layout = { groupedLayout: i32(ids), ensureZeroPadding: false };
    mGroupedBf16GemmNtContiguous(device, { a, b, d: left, ...layout });
    for (let i = 0; i < m; i++) {
      const id = ids[i] as number;
      if (id < 0) {
        expect(isZero(rowBytes(d, i, i + 1))).toBe(true);
        expect(isPoison(rowBytes(left, i, i + 1))).toBe(true);
        continue;
      }
      const want = poisoned([1, n], "f32");
      bf16GemmNt(device, { a: a.slice(0, i, i + 1), b: b.select(0, id), d: want });
      expect(rowBytes(d, i, i + 1), `row ${i}, seed ${seed}`).toEqual(want.bytes());
      expect(rowBytes(left, i, i + 1), `row ${i}, seed ${seed}`).toEqual(want.bytes());
    }
    const sorted = ids.map((id) => Math.max(id, 0)).sort((x, y) => x - y);
    const dense = randomTensor(random, [m, k], "bf16");
    const ends = Array.from({ length: groups }, (_, g) => sorted.filter((id) => id <= g).length);
    const byIds = poisoned([m, n], "f32");
    mGroupedBf16GemmNtContiguous(device, { a: dense, b, d: byIds, groupedLayout: i32(sorted) });
    const byEnds = poisoned([m, n], "f32");
    const psum = { groupedLayout: i32(ends), usePsumLayout: true, alignment: 1 };
    mGroupedBf16GemmNtContiguous(device, { a: dense, b, d: byEnds, ...psum });
    const byOffsets = poisoned([m, n], "f32");
    gemmNtGrouped(device, { a: dense, b, d: byOffsets, offsets: i32([0, ...ends]) });
    expect(byEnds.bytes(), `seed ${seed}`).toEqual(byIds.bytes());
    expect(byOffsets.bytes(), `seed ${seed}`).toEqual(byIds.bytes());
  });

  it("nn: b [G,K,N] gives what nt gives", () => {
    const random = seededRandom(seed);
    const [n, k, groups] = [72, 300, 3];
    const ids = [0, 0, 2, 2, 2, -1, 1, ...new Array<number>(quick ? 3 : 40).fill(2)];
    const m = ids.length;
    const groupedLayout = i32(ids);
    const a = randomScaled(random, [m, k], 1);
    const b = randomScaled(random, [groups, n, k], 128);
    const [x, y] = [poisoned([m, n], "bf16"), poisoned([m, n], "bf16")];
    mGroupedFp8GemmNtContiguous(device, { a, b, d: x, groupedLayout });
    mGroupedFp8GemmNnContiguous(device, { a, b: turnedOperand(b, 4), d: y, groupedLayout });
    expect(y.bytes(), `seed ${seed}`).toEqual(x.bytes());
    const plain = randomTensor(random, [m, k], "bf16");
    const weights = randomTensor(random, [groups, n, k], "bf16");
    mGroupedBf16GemmNtContiguous(device, { a: plain, b: weights, d: x, groupedLayout });
    const turned = turnedOperand(weights, 4);
    mGroupedBf16GemmNnContiguous(device, { a: plain, b: turned, d: y, groupedLayout });
    expect(y.bytes(), `seed ${seed}`).toEqual(x.bytes());
  });

  it("D8: masked, any counts; expectedM changes nothing, rows beyond are left", () => {
    const random = seededRandom(seed);
    const [groups, most, n, k] = [5, quick ? 6 : 40, 56, 256];
    const counts = [0, 1, most, random.int(0, most), random.int(0, most)];
    const maskedM = i32(counts);
    const a = randomScaled(random, [groups, most, k], 1);
    const plain = randomTensor(random, [groups, most, k], "bf16");
    counts.forEach((count, g) => {
      for (const t of [a.data, a.scales, plain]) {
        t.select(0, g).slice(0, count, most).bytes().fill(0xff);
      }
    });
    const b = randomScaled(random, [groups, n, k], 128);
    const weights = randomTensor(random, [groups, n, k], "bf16");
    const d = poisoned([groups, most, n], "bf16");
    const again = poisoned([groups, most, n], "bf16");
    mGroupedFp8GemmNtMasked(device, { a, b, d, maskedM, expectedM: 1 });
    mGroupedFp8GemmNtMasked(device, { a, b, d: again, maskedM, expectedM: most });
    expect(again.bytes()).toEqual(d.bytes());
    mGroupedBf16GemmNtMasked(device, { a: plain, b: weights, d: again, maskedM });
    counts.forEach((count, g) => {
      const want = poisoned([count, n], "bf16");
      const own = { data: a.data.select(0, g), scales: a.scales.select(0, g) };
      fp8GemmNt(device, { a: rowsOf(own, 0, count), b: groupOf(b, g), d: want });
      const label = `group ${g} of ${counts}, seed ${seed}`;
      expect(rowBytes(d.select(0, g), 0, count), label).toEqual(want.bytes());
      expect(isPoison(rowBytes(d.select(0, g), count, most)), label).toBe(true);
      const rows = plain.select(0, g).slice(0, 0, count);
      bf16GemmNt(device, { a: rows, b: weights.select(0, g), d: want });
      expect(rowBytes(again.select(0, g), 0, count), label).toEqual(want.bytes());
      expect(isPoison(rowBytes(again.select(0, g), count, most)), label).toBe(true);
    });
  });

  it("D9: k-grouped FP8, tn and nt, ragged and empty groups, C", () => {
    const random = seededRandom(seed);
    const sizes = [[128, 0, 384, 256], [0, 0], [1, 200, 0, 130, 77], [600]];
    for (const ks of quick ? sizes.slice(0, 3) : sizes) {
      const [m, n] = quick ? [5, 9] : [64, 72];
      const { tn, nt } = kOperands(random, ks, m, n);
      const c = randomTensor(random, [ks.length, m, n], "f32", () => random.normal() * 32);
      const before = c.bytes().slice();
      const d = poisoned([ks.length, m, n], "f32");
      kGroupedFp8GemmTnContiguous(device, { ...tn, d, c, ks });
      expect(c.bytes()).toEqual(before);
      ks.forEach((k, g) => {
        const label = `group ${g} of ${ks}, seed ${seed}`;
        const own = c.select(0, g);
        if (k === 0) {
          expect(rowBytes(d.select(0, g), 0, m), label).toEqual(own.bytes());
          return;
        }
        const [x, y] = [nt.groups[g]?.a as ScaledTensor, nt.groups[g]?.b as ScaledTensor];
        const want = product(valuesOf(x, 1), valuesOf(y, 1), [m, n, k]).map(
          (v, i) => v + (own.toFloat64()[i] as number),
        );
        expect(calcDiff(d.select(0, g).toFloat64(), want), label).toBeLessThan(1e-9);
        const alone = poisoned([m, n], "f32");
        fp8GemmTn(device, {
          a: turnedOperand(x),
          b: turnedOperand(y),
          d: alone,
          c: own,
          recipe: [1, 1, 128],
        });
        expect(rowBytes(d.select(0, g), 0, m), label).toEqual(alone.bytes());
      });
      const flat = poisoned([ks.length, m, n], "f32");
      const groupedLayout = i32(ks);
      kGroupedFp8GemmNtContiguous(device, { ...nt.flat, d: flat, c, ks, groupedLayout });
      expect(flat.bytes(), `${ks} seed ${seed}`).toEqual(d.bytes());
      kGroupedFp8GemmNtContiguous(device, { ...nt.flat, d: c, c, groupedLayout });
      expect(c.bytes(), `${ks} seed ${seed}`).toEqual(d.bytes());
    }
  });

  it("D9: k-grouped BF16 without C: empty groups zero; psum gaps of NaN are not read", () => {
    const random = seededRandom(seed);
    const alignment = 32;
    const ks = [40, 0, 96, 33];
    const [m, n] = [quick ? 5 : 40, 24];
    const ends: number[] = [];
    let at = 0;
    for (const k of ks) {
      ends.push(at + k);
      at = align(at + k, alignment);
    }
    const [a, b] = [Tensor.empty([at, m], "bf16"), Tensor.empty([at, n], "bf16")];
    poison(a);
    poison(b);
    const d = poisoned([ks.length, m, n], "f32");
    const dense: [Tensor, Tensor][] = ks.map((k, g) => {
      const from = (ends[g] as number) - k;
      const x = randomTensor(random, [k, m], "bf16");
      const y = randomTensor(random, [k, n], "bf16");
      a.slice(0, from, from + k).copyFrom(x);
      b.slice(0, from, from + k).copyFrom(y);
      return [x, y];
    });
    const layout = { groupedLayout: i32(ends), usePsumLayout: true, alignment };
    kGroupedBf16GemmTnContiguous(device, { a, b, d, ...layout });
    ks.forEach((k, g) => {
      const [x, y] = dense[g] as [Tensor, Tensor];
      const want = poisoned([m, n], "f32");
      bf16GemmTn(device, { a: x, b: y, d: want });
      const label = `group ${g}, k ${k}, seed ${seed}`;
      expect(rowBytes(d.select(0, g), 0, m), label).toEqual(want.bytes());
      if (k === 0) expect(isZero(want.bytes())).toBe(true);
    });
    const packed = (side: 0 | 1, width: number): Tensor => {
      const all = Tensor.empty([ks.reduce((x, y) => x + y, 0), width], "bf16");
      let row = 0;
      for (const pair of dense) {
        all.slice(0, row, row + pair[side].dim(0)).copyFrom(pair[side]);
        row += pair[side].dim(0);
      }
      return all;
    };
    const compact = poisoned([ks.length, m, n], "f32");
    kGroupedBf16GemmTnContiguous(device, { a: packed(0, m), b: packed(1, n), d: compact, ks });
    expect(compact.bytes(), `seed ${seed}`).toEqual(d.bytes());
  });

  it("nothing to do: no rows, no groups, no columns", () => {
    const d = poisoned([2, 0, 8], "f32");
    const none = Tensor.empty([4, 0], "bf16");
    kGroupedBf16GemmTnContiguous(device, {
      a: none,
      b: Tensor.empty([4, 8], "bf16"),
      d,
      ks: [1, 3],
    });
    const padding = poisoned([3, 4], "f32");
    mGroupedBf16GemmNtContiguous(device, {
      a: Tensor.empty([3, 8], "bf16"),
      b: Tensor.empty([0, 4, 8], "bf16"),
      d: padding,
      groupedLayout: i32([-1, -1, -1]),
    });
    expect(isZero(padding.bytes())).toBe(true);
  });
});

interface KOperands {
  readonly tn: { readonly a: ScaledTensor; readonly b: ScaledTensor };
  readonly nt: {
    readonly flat: { readonly a: ScaledTensor; readonly b: ScaledTensor };
    readonly groups: readonly { readonly a: ScaledTensor; readonly b: ScaledTensor }[];
  };
}

/** The same groups as K-major matrices, concatenated flat, and as stretches of [ΣK, …]. */
function kOperands(random: Random, ks: readonly number[], m: number, n: number): KOperands {
  const groups = ks.map((k) => ({
    a: randomScaled(random, [m, k], 1),
    b: randomScaled(random, [n, k], 1),
  }));
  const side = (which: "a" | "b", rows: number) => {
    const parts = groups.map((group) => group[which]);
    const total = ks.reduce((x, y) => x + y, 0);
    const blocks = parts.reduce((sum, part) => sum + part.scales.dim(1), 0);
    const flat = Tensor.empty([total * rows], "e4m3fn");
    const across = Tensor.empty([total, rows], "e4m3fn");
    const scales = Tensor.empty([blocks, rows], "f32");
    let [at, block] = [0, 0];
    for (const { data, scales: own } of parts) {
      const [k, count] = [data.dim(1), own.dim(1)];
      flat.slice(0, at * rows, (at + k) * rows).copyFrom(data.reshape([rows * k]));
      across.slice(0, at, at + k).copyFrom(data.transpose(0, 1));
      scales.slice(0, block, block + count).copyFrom(own.transpose(0, 1));
      at += k;
      block += count;
    }
    return {
      tn: { data: across, scales },
      flat: { data: flat, scales: scales.transpose(0, 1) },
    };
  };
  const [a, b] = [side("a", m), side("b", n)];
  return {
    tn: { a: a.tn, b: b.tn },
    nt: { flat: { a: a.flat, b: b.flat }, groups },
  };
}

describe("scales of k-grouped psum layouts", () => {
  it.each(compiled)(
    "$name: compact by aligned groups, the last one's padding optional",
    (named) => {
      const random = seededRandom(seed);
      const [ks, m, n, alignment] = [[100, 0, 130], 20, 24, 128] as const;
      const ends = [100, 128, 258];
      const rows = align(258, alignment);
      const recipe = [1, 1, 32] as const;
      const make = (width: number): ScaledTensor => randomScaled(random, [width, rows], 1, 32);
      const [a, b] = [make(m), make(n)];
      const d = poisoned([3, m, n], "f32");
      const layout = { groupedLayout: i32(ends), usePsumLayout: true, alignment, recipe };
      const [x, y] = [turnedOperand(a), turnedOperand(b)];
      kGroupedFp8GemmTnContiguous(named.device, { a: x, b: y, d, ...layout });
      ks.forEach((k, g) => {
        const from = (ends[g] as number) - k;
        const own = (t: ScaledTensor): ScaledTensor => ({
          data: t.data.slice(1, from, from + k),
          scales: t.scales.slice(1, from / 32, from / 32 + Math.ceil(k / 32)),
        });
        const want = poisoned([m, n], "f32");
        fp8GemmNt(named.device, { a: own(a), b: own(b), d: want, recipe });
        const label = `group ${g}, seed ${seed}`;
        expect(rowBytes(d.select(0, g), 0, m), label).toEqual(want.bytes());
      });
      const needed = 4 + Math.ceil(130 / 32);
      const cut = (t: ScaledTensor): ScaledTensor => ({
        data: t.data.slice(0, 0, 258),
        scales: t.scales.slice(0, 0, needed),
      });
      const again = poisoned([3, m, n], "f32");
      kGroupedFp8GemmTnContiguous(named.device, { a: cut(x), b: cut(y), d: again, ...layout });
      expect(again.bytes(), `seed ${seed}`).toEqual(d.bytes());
    },
  );
});
