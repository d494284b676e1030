// Scale layouts: values, shapes and strides against plain definitions, and what is refused.

import { ShapeError, Tensor } from "@open-infra/tensor";
import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import {
  ArgumentError,
  align,
  ceilDiv,
  ceilToUe8m0,
  getKGroupedMnMajorTmaAlignedPackedUe8m0Tensor,
  getMnMajorTmaAlignedPackedUe8m0Tensor,
  getMnMajorTmaAlignedTensor,
  getTmaAlignedSize,
  packUe8m0ToInt,
  transformSfIntoRequiredLayout,
  unpackUe8m0FromInt,
} from "../src/index.ts";

const seed = testSeed();
const numbers = (t: Tensor): number[] => [...t.toFloat32()];

function randomScales(shape: readonly number[], offset = 0): Tensor {
  const random = seededRandom(seed + offset);
  const count = shape.reduce((a, b) => a * b, 1);
  const values = Float32Array.from({ length: count }, () => 2 ** random.int(-126, 128));
  return Tensor.from(values, shape, "f32");
}

/** Four exponents in each int32, written out. */
function packedRows(sf: Tensor): number[] {
  const columns = sf.dim(-1);
  const words = Math.ceil(columns / 4);
  const values = numbers(sf);
  const out: number[] = [];
  for (let row = 0; row < values.length / columns; row++) {
    for (let w = 0; w < words; w++) {
      const bytes = [0, 1, 2, 3].map((i) => {
        const at = 4 * w + i;
        return at < columns ? Math.log2(values[row * columns + at] as number) + 127 : 0;
      });
      out.push(new Int32Array(Uint8Array.from(bytes).buffer)[0] as number);
    }
  }
  return out;
}

describe("D2", () => {
  const grid: number[][] = [];
  for (const mn of [1, 3, 4, 5, 130, 257]) {
    for (const k of [1, 3, 4, 7, 57]) grid.push([mn, k], [2, mn, k], [4, mn, k]);
  }
  it.each(grid.map((shape) => [shape]))("%s: values, shape, strides", (shape) => {
    const sf = randomScales(shape);
    const [mn, k] = shape.slice(-2) as [number, number];
    const aligned = Math.ceil(mn / 4) * 4;
    const out = getMnMajorTmaAlignedTensor(sf);
    expect(out.shape).toEqual(shape);
    expect(numbers(out)).toEqual(numbers(sf));
    const batch = (columns: number): number[] => (shape.length === 3 ? [aligned * columns] : []);
    expect(out.strides).toEqual([...batch(k), 1, aligned]);
    expect(getMnMajorTmaAlignedTensor(out)).toBe(out);

    const packed = getMnMajorTmaAlignedPackedUe8m0Tensor(out);
    const words = Math.ceil(k / 4);
    expect(packed.shape).toEqual([...shape.slice(0, -1), words]);
    expect(packed.strides).toEqual([...batch(words), 1, aligned]);
    expect(numbers(packed).map((x) => x | 0)).toEqual(
      numbers(Tensor.from(packedRows(sf), packed.shape, "i32")).map((x) => x | 0),
    );
    expect([...(packed.contiguous().raw() as Int32Array)]).toEqual(packedRows(sf));
    expect(numbers(unpackUe8m0FromInt(packed, k))).toEqual(numbers(sf));
    expect([...(packUe8m0ToInt(sf).raw() as Int32Array)]).toEqual(packedRows(sf));
  });

  it("groups along K are packed alone, empty ones too", () => {
    for (const mn of [1, 5, 130]) {
      const ks = [128, 0, 640, 1, 512, 0];
      const counts = ks.map((k) => Math.ceil(k / 128));
      const total = counts.reduce((a, b) => a + b, 0);
      const sf = randomScales([total, mn]);
      const out = getKGroupedMnMajorTmaAlignedPackedUe8m0Tensor({ sf, ks });
      const aligned = Math.ceil(mn / 4) * 4;
      expect(out.strides).toEqual([aligned, 1]);
      let [from, to] = [0, 0];
      for (const count of counts) {
        const group = sf.slice(0, from, from + count).transpose(0, 1);
        const alone = getMnMajorTmaAlignedPackedUe8m0Tensor(group.clone());
        const words = Math.ceil(count / 4);
        const got = out
          .slice(0, to, to + words)
          .transpose(0, 1)
          .contiguous();
        expect(got.raw()).toEqual(alone.contiguous().raw());
        from += count;
        to += words;
      }
      expect(out.dim(0)).toBe(to);
    }
  });

  it("every exponent there is, zero exponent and NaN included", () => {
    const exponents = Float32Array.from({ length: 255 }, (_, code) => 2 ** (code - 127));
    const sf = Tensor.from([...exponents, Number.NaN], [1, 256], "f32");
    const packed = packUe8m0ToInt(sf);
    expect([...packed.bytes()]).toEqual(Array.from({ length: 256 }, (_, code) => code));
    expect(numbers(unpackUe8m0FromInt(packed))).toEqual(numbers(sf));
  });

  it("what is no power of two is refused by name, or rounded up when asked", () => {
    const sf = Tensor.from([1, 0.75, 1.0000001, 0, 3e38], [1, 5], "f32");
    expect(() => packUe8m0ToInt(sf)).toThrow(/scales\[1\] is 0\.75.*power of two/);
    const up = packUe8m0ToInt(sf, { notPowerOfTwo: "ceil" });
    expect(numbers(unpackUe8m0FromInt(up, 5))).toEqual(numbers(sf).map(ceilToUe8m0));
    const bad = Tensor.from([-1], [1, 1], "f32");
    for (const notPowerOfTwo of ["reject", "ceil"] as const) {
      expect(() => packUe8m0ToInt(bad, { notPowerOfTwo })).toThrow(ArgumentError);
    }
  });
});

describe("transformSfIntoRequiredLayout", () => {
  it("Hopper's: rows aligned, blocks as they are", () => {
    const rows = randomScales([70, 3]);
    const a = transformSfIntoRequiredLayout({
      sf: rows,
      mn: 70,
      k: 300,
      recipe: [1, 128, 128],
      isSfa: true,
    });
    expect(a.strides).toEqual([1, 72]);
    expect(numbers(a)).toEqual(numbers(rows));
    const blocks = randomScales([2, 3]);
    const recipe = [1, 128, 128] as const;
    const b = transformSfIntoRequiredLayout({ sf: blocks, mn: 200, k: 300, recipe, isSfa: false });
    expect(b).toBe(blocks);
  });

  it("Blackwell's: a packed scale for every row", () => {
    const blocks = randomScales([2, 2, 3]);
    const options = { mn: 200, k: 300, recipe: [128, 128], numGroups: 2, target: "ue8m0" } as const;
    const out = transformSfIntoRequiredLayout({ sf: blocks, ...options });
    expect(out.shape).toEqual([2, 200, 1]);
    expect(out.strides).toEqual([200, 1, 200]);
    const values = unpackUe8m0FromInt(out, 3);
    for (let g = 0; g < 2; g++) {
      for (const row of [0, 127, 128, 199]) {
        const want = blocks.select(0, g).select(0, Math.floor(row / 128));
        expect(numbers(values.select(0, g).select(0, row))).toEqual(numbers(want));
      }
    }
    const again = { mn: 200, k: 300, recipe: [1, 128], numGroups: 2, target: "ue8m0" } as const;
    expect(transformSfIntoRequiredLayout({ sf: out, ...again })).toBe(out);
    const loose = { ...again, sf: out.clone() };
    expect(() => transformSfIntoRequiredLayout(loose)).toThrow(ShapeError);
    const fine = randomScales([5, 7]);
    const fp4 = { sf: fine, mn: 5, k: 224, recipe: [1, 32], target: "ue8m0" } as const;
    expect(transformSfIntoRequiredLayout(fp4).shape).toEqual([5, 2]);
  });

  it("unknown combinations and wrong shapes are refused", () => {
    const sf = randomScales([4, 3]);
    const base = { sf, mn: 4, k: 300 };
    const refused: [Parameters<typeof transformSfIntoRequiredLayout>[0], RegExp][] = [
      [{ ...base, recipe: [1, 100] }, /recipe is f32 by \(1, 100\) for f32/],
      [{ ...base, recipe: [1, 128], target: "ue8m0", disableUe8m0Cast: true }, /cast disabled/],
      [{ ...base, recipe: [1, 1, 128] }, /isSfa is missing/],
      [{ ...base, recipe: [0, 128] }, /recipe is \(0,128\)/],
      [{ ...base, mn: 5, recipe: [1, 128] }, /sf is \[4,3\].*\[5, 3\]/],
      [{ ...base, recipe: [1, 128], numGroups: 2 }, /sf is \[4,3\]/],
    ];
    for (const [options, message] of refused) {
      expect(() => transformSfIntoRequiredLayout(options)).toThrow(message);
    }
  });

  it("sizes", () => {
    expect([align(5, 4), align(8, 4), align(0, 4), ceilDiv(5, 4)]).toEqual([8, 8, 0, 2]);
    expect([getTmaAlignedSize(5, 4), getTmaAlignedSize(5, 1)]).toEqual([8, 16]);
    expect(() => getTmaAlignedSize(5, 3)).toThrow(ArgumentError);
  });
});
