// The indexer's logits on every backend and instruction set: against float64, against themselves to
// the bit in other forms, and with NaN wherever nothing may be read.

import { Tensor } from "@open-infra/tensor";
import { calcDiff, seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, describe, expect, it } from "vitest";
import {
  type Fp8MqaLogitsArgs,
  fp8MqaLogits,
  fp8PagedMqaLogits,
  getPagedMqaLogitsMetadata,
  perCustomDimsCastToFp8,
  perTokenCastToFp4,
  type ScaledTensor,
} from "../src/index.ts";
import { allDevices, poisoned, randomTensor, withRowGaps } from "./helpers.ts";
import { allLogits, codeValues, pagesOf, randomCodes, randomKeys } from "./mqa-helpers.ts";

const seed = testSeed();
const devices = allDevices();
afterAll(() => {
  for (const { device } of devices) device[Symbol.dispose]();
});

const i32 = (values: readonly number[]): Tensor => Tensor.from(values, [values.length], "i32");
const bits = (tensor: Tensor): Uint8Array => tensor.contiguous().bytes().slice();

/** Windows of every kind: whole, empty, reversed, beyond either end, random. */
function windows(
  random: ReturnType<typeof seededRandom>,
  tokens: number,
  n: number,
): [number, number][] {
  const fixed: [number, number][] = [
    [0, n],
    [5, 5],
    [9, 3],
    [n - 1, n + 100],
    [-7, 4],
    [n + 3, n + 9],
    [0, 1],
  ];
  return Array.from({ length: tokens }, (_, i) => {
    const start = random.int(0, n);
    return fixed[i] ?? [start, random.int(start, n + 1)];
  });
}

/** First place where two arrays differ, NaN being NaN and −0 not 0; "" if nowhere. */
function difference(got: Float32Array, want: (i: number) => number): string {
  const at = got.findIndex((x, i) => !Object.is(x, want(i)));
  return at < 0 ? "" : `element ${at} is ${got[at]}, expected ${want(at)}`;
}

interface Case {
  readonly label: string;
  readonly args: Omit<Fp8MqaLogitsArgs, "weights">;
  readonly seen: readonly (readonly [number, number])[];
  readonly weights: Readonly<Record<"f32" | "bf16", Tensor>>;
  /** Every logit, windows left aside. */
  readonly want: Readonly<Record<"f32" | "bf16", Float64Array>>;
}

/** Cases with their float64 logits, which all devices share. */
function makeCases(type: "e4m3fn" | "e2m1", shapes: readonly (readonly number[])[]): Case[] {
  const random = seededRandom(seed);
  return shapes.map((shape) => {
    const [tokens, n, heads, dim] = shape as [number, number, number, number];
    const q = randomCodes(random, [tokens, heads, dim], type);
    const kv = randomKeys(random, [n, dim], type);
    const seen = windows(random, tokens, n);
    const weights = {
      f32: randomTensor(random, [tokens, heads], "f32"),
      bf16: randomTensor(random, [tokens, heads], "bf16"),
    };
    const logits = (w: Tensor): Float64Array =>
      allLogits(codeValues(q), codeValues(kv), w.toFloat64(), [tokens, heads, dim]);
    return {
      label: `seed ${seed} [${shape}]`,
      args: {
        q,
        kv,
        cuSeqLenKStart: i32(seen.map(([s]) => s)),
        cuSeqLenKEnd: i32(seen.map(([, e]) => e)),
      },
      seen,
      weights,
      want: { f32: logits(weights.f32), bf16: logits(weights.bf16) },
    };
  });
}

const small = [
  [8, 100, 3, 32],
  [9, 70, 8, 128],
  [3, 40, 17, 64],
];
const large = [
  [8, 300, 32, 64],
  [20, 530, 64, 128],
  [33, 300, 5, 32],
  [7, 130, 1, 40],
  [4, 60, 9, 160],
];
const casesOf = {
  e4m3fn: { small: makeCases("e4m3fn", small), large: makeCases("e4m3fn", large) },
  e2m1: { small: makeCases("e2m1", small), large: makeCases("e2m1", large.slice(0, 4)) },
};

describe.each(devices)("$name", ({ name, device }) => {
  const slow = name === "reference" || name.endsWith("scalar") || name.endsWith("emulated");

  it.each(["e4m3fn", "e2m1"] as const)("D13: %s against float64, windows, types", (type) => {
    for (const { label, args, seen, weights, want } of casesOf[type][slow ? "small" : "large"]) {
      for (const kind of type === "e4m3fn" ? (["f32", "bf16"] as const) : (["f32"] as const)) {
        const [tokens, n] = [seen.length, args.kv.data.dim(0)];
        const out = poisoned([tokens, n], kind);
        expect(fp8MqaLogits(device, { ...args, weights: weights[kind], out })).toBe(out);
        const got = out.toFloat64();
        const [inside, expected]: [number[], number[]] = [[], []];
        let dirty = 0;
        for (let i = 0; i < tokens * n; i++) {
          const [s, e] = seen[Math.floor(i / n)] as [number, number];
          if (i % n >= s && i % n < e) {
            inside.push(got[i] as number);
            expected.push(want[kind][i] as number);
          } else if (got[i] !== Number.NEGATIVE_INFINITY) dirty++;
        }
        expect(dirty, `${label} columns outside a window`).toBe(0);
        const tight = kind === "f32" ? 1e-10 : 5e-6;
        expect(calcDiff(inside, expected), `${label} ${kind}`).toBeLessThan(tight);
      }
    }
  });

  it("D13: beside the unquantised product, and really quantised", () => {
    const random = seededRandom(seed + 9);
    const [tokens, n, heads, dim] = [8, 90, 16, 128];
    const x = randomTensor(random, [tokens * heads, dim], "bf16");
    const y = randomTensor(random, [n, dim], "bf16");
    const weights = randomTensor(random, [tokens, heads], "f32");
    const windows = {
      cuSeqLenKStart: i32(new Array(tokens).fill(0)),
      cuSeqLenKEnd: i32(new Array(tokens).fill(n)),
    };
    const shape = [tokens, heads, dim] as const;
    const want = allLogits(x.toFloat64(), y.toFloat64(), weights.toFloat64(), shape);
    const kv = perCustomDimsCastToFp8(device, { x: y, dims: [0] });
    // Without a scale of its own, q is cast as it is.
    const fp8 = fp8MqaLogits(device, { q: x.to("e4m3fn").reshape(shape), kv, weights, ...windows });
    const diff = calcDiff(fp8.toFloat64(), want);
    expect(diff, `seed ${seed}`).toBeLessThan(1e-3);
    expect(diff, `seed ${seed}`).toBeGreaterThan(4e-4);
    const cast = { granK: 32, useUe8m0: true, usePackedUe8m0: true };
    const q4 = perTokenCastToFp4(device, { x, ...cast });
    const k4 = perTokenCastToFp4(device, { x: y, ...cast });
    const fp4 = fp8MqaLogits(device, {
      q: { data: q4.data.reshape(shape), scales: q4.scales.reshape([tokens, heads]) },
      kv: { data: k4.data, scales: k4.scales.reshape([n]) },
      weights,
      ...windows,
    });
    const coarse = calcDiff(fp4.toFloat64(), want);
    expect(coarse, `seed ${seed}`).toBeLessThan(2e-2);
    expect(coarse, `seed ${seed}`).toBeGreaterThan(4e-3);
  });

  it.each(["e4m3fn", "e2m1"] as const)(
    "%s: compressed columns, uncleaned rows, threads: the same bits",
    (type) => {
      const random = seededRandom(seed + 1);
      const [tokens, n, heads, dim] = slow ? [9, 90, 4, 64] : [40, 600, 16, 64];
      const q = randomCodes(random, [tokens, heads, dim], type);
      const kv = randomKeys(random, [n, dim], type);
      const weights = randomTensor(random, [tokens, heads], "f32");
      const seen = windows(random, tokens, n);
      const args = {
        q,
        kv,
        weights,
        cuSeqLenKStart: i32(seen.map(([s]) => s)),
        cuSeqLenKEnd: i32(seen.map(([, e]) => e)),
      };
      const full = fp8MqaLogits(device, args);
      expect(bits(fp8MqaLogits(device, { ...args, threads: 1 }))).toEqual(bits(full));
      const width = n + 7;
      for (const cleanLogits of [true, false]) {
        const sentinel = (shape: number[]): Tensor =>
          withRowGaps(Tensor.empty(shape, "f32").fill(7), 5);
        const out = sentinel([tokens, n]);
        fp8MqaLogits(device, { ...args, cleanLogits, out });
        const compressed = sentinel([tokens, width]);
        fp8MqaLogits(device, { ...args, cleanLogits, maxSeqlenK: width, out: compressed });
        const [a, b, whole] = [out.toFloat32(), compressed.toFloat32(), full.toFloat32()];
        const outside = cleanLogits ? Number.NEGATIVE_INFINITY : 7;
        const inside = (t: number, j: number): boolean => {
          const [s, e] = seen[t] as [number, number];
          return j >= Math.max(0, s) && j < Math.min(n, e);
        };
        const of = (t: number, j: number): number =>
          inside(t, j) ? (whole[t * n + j] as number) : outside;
        const at = (i: number): number => of(Math.floor(i / n), i % n);
        expect(difference(a, at), `seed ${seed}`).toBe("");
        const shifted = (i: number): number => {
          const t = Math.floor(i / width);
          return of(t, (seen[t] as [number, number])[0] + (i % width));
        };
        expect(difference(b, shifted), `seed ${seed} compressed`).toBe("");
      }
    },
  );

  it.each(["e4m3fn", "e2m1"] as const)(
    "D14: %s in pages is bit for bit the gathered keys",
    (type) => {
      const random = seededRandom(seed + 2);
      for (const [perPage, tokens, heads, dim] of [
        [64, 1, 64, 128],
        [64, 2, 32, 64],
        [32, 6, 8, type === "e2m1" ? 96 : 32],
        [5, 3, 3, 20],
      ] as [number, number, number, number][]) {
        const lengths = slow ? [[0], [1], [70]] : [[0], [1], [513], [64], [300]];
        const contexts = lengths.map(([n = 0]) =>
          Array.from({ length: tokens }, (_, t) => Math.max(0, n - (tokens - 1 - t))),
        );
        (contexts.at(-1) as number[]).reverse(); // The longest need not be the last.
        const keys = lengths.map(([n = 0]) => randomKeys(random, [n, dim], type));
        const { cache, table } = pagesOf(random, keys, perPage);
        const q = randomCodes(random, [lengths.length, tokens, heads, dim], type);
        const weights = randomTensor(random, [lengths.length * tokens, heads], "f32");
        const contextLens = Tensor.from(contexts.flat(), [lengths.length, tokens], "i32");
        const scheduleMeta = getPagedMqaLogitsMetadata({
          contextLens,
          blockKv: perPage,
          numSms: 5,
        });
        const width = slow ? 90 : 530;
        const args = {
          q,
          kvCache: cache,
          weights,
          contextLens,
          blockTable: table,
          maxContextLen: width,
          cleanLogits: true,
        };
        const out = poisoned([lengths.length * tokens, width], "f32");
        fp8PagedMqaLogits(device, { ...args, scheduleMeta, out });
        const label = `seed ${seed} ${perPage} ${tokens} ${heads} ${dim}`;
        expect(bits(fp8PagedMqaLogits(device, args)), label).toEqual(bits(out));
        for (const [b, kv] of keys.entries()) {
          const view = (x: Tensor): Tensor => x.select(0, b);
          const part =
            q instanceof Tensor ? view(q) : { data: view(q.data), scales: view(q.scales) };
          const n = kv.data.dim(0);
          const rows = fp8MqaLogits(device, {
            q: part,
            kv,
            weights: weights.slice(0, b * tokens, (b + 1) * tokens),
            cuSeqLenKStart: i32(new Array(tokens).fill(0)),
            cuSeqLenKEnd: i32(contexts[b] as number[]),
          });
          const got = out.slice(0, b * tokens, (b + 1) * tokens);
          expect(bits(got.slice(1, 0, n)), `${label} sequence ${b}`).toEqual(bits(rows));
          const rest = got.slice(1, n, width).toFloat32();
          expect(rest.every((x) => x === Number.NEGATIVE_INFINITY)).toBe(true);
        }
      }
    },
  );

  it.each(["e4m3fn", "e2m1"] as const)(
    "D14: %s of sequences with different numbers of tokens, by indices",
    (type) => {
      const random = seededRandom(seed + 5);
      const [perPage, heads, dim, most] = [16, 4, 64, slow ? 60 : 600];
      const counts = [1, 3, 0, 6, 2, 1, 4];
      const keys = counts.map(() => randomKeys(random, [random.int(1, most), dim], type));
      const { cache, table } = pagesOf(random, keys, perPage);
      // Ids need not be in order; only neighbours make a sequence, even if the id comes again.
      const ids = counts.flatMap((n, b) => new Array<number>(n).fill(b === 5 ? 0 : 90 - b));
      const owners = counts.flatMap((n, b) => new Array<number>(n).fill(b));
      const rows = ids.length;
      const lengths = owners.map((b) => random.int(0, (keys[b] as ScaledTensor).data.dim(0) + 1));
      const width = table.dim(1);
      const pages = owners.flatMap((b, t) =>
        // What lies beyond a token's own keys may be anything, though a neighbour sees more.
        [...(table.select(0, b).raw() as Int32Array)].map((page, i) =>
          i < Math.ceil((lengths[t] as number) / perPage) ? page : -7,
        ),
      );
      const contextLens = Tensor.from(lengths, [rows, 1], "i32");
      const args = {
        q: randomCodes(random, [rows, 1, heads, dim], type),
        kvCache: cache,
        weights: randomTensor(random, [rows, heads], "f32"),
        contextLens,
        blockTable: Tensor.from(pages, [rows, width], "i32"),
        maxContextLen: most,
        cleanLogits: true,
      };
      const apart = bits(fp8PagedMqaLogits(device, args));
      const indices = i32(ids);
      const scheduleMeta = getPagedMqaLogitsMetadata({
        contextLens,
        blockKv: perPage,
        numSms: 3,
        indices,
      });
      for (const schedule of [{}, { scheduleMeta }]) {
        const out = poisoned([rows, most], "f32");
        fp8PagedMqaLogits(device, { ...args, ...schedule, indices, out });
        expect(bits(out), `seed ${seed}`).toEqual(apart);
      }
      const none = fp8PagedMqaLogits(device, {
        ...args,
        q: randomCodes(random, [0, 1, heads, dim], type),
        weights: Tensor.empty([0, heads], "f32"),
        contextLens: Tensor.empty([0, 1], "i32"),
        blockTable: Tensor.empty([0, width], "i32"),
        indices: i32([]),
      });
      expect(none.shape).toEqual([0, most]);
    },
  );

  it("NaN stays where it is: in its key's column, in its token's row, not beyond a window", () => {
    const random = seededRandom(seed + 3);
    const [tokens, n, heads, dim] = [6, 100, 8, 64];
    const q = randomCodes(random, [tokens, heads, dim], "e4m3fn") as Tensor;
    const kv = randomKeys(random, [n, dim], "e4m3fn") as ScaledTensor;
    const weights = randomTensor(random, [tokens, heads], "f32");
    const ends = i32([40, 40, 41, 100, 100, 40]);
    const args = { q, kv, weights, cuSeqLenKStart: i32([0, 3, 0, 41, 0, 0]), cuSeqLenKEnd: ends };
    const clean = fp8MqaLogits(device, args).toFloat32();
    kv.data.select(0, 40).bytes()[17] = 0xff;
    (kv.scales.raw() as Float32Array)[99] = Number.NaN;
    q.select(0, 5).select(0, 2).bytes()[0] = 0x7f;
    const got = fp8MqaLogits(device, args).toFloat32();
    const want = (i: number): number => {
      const [t, j] = [Math.floor(i / n), i % n];
      const inWindow = clean[i] !== Number.NEGATIVE_INFINITY;
      const spoiled = inWindow && (j === 40 || j === 99 || t === 5);
      return spoiled ? Number.NaN : (clean[i] as number);
    };
    expect(difference(got, want)).toBe("");
  });

  it("exact cases: relu of zero, negative weights, scales, ties of heads", () => {
    const q = Tensor.from([1, 0, -1, 0, 2, 1], [1, 3, 2], "e4m3fn");
    const kv = {
      data: Tensor.from([4, 0, -4, 0, 0, 8], [3, 2], "e4m3fn"),
      scales: Tensor.from([1, 0.5, 2], [3], "f32"),
    };
    const weights = Tensor.from([3, -5, 0.25], [1, 3], "f32");
    const args = { q, kv, weights, cuSeqLenKStart: i32([0]), cuSeqLenKEnd: i32([3]) };
    // q · kv: [4, -4, 8], [-4, 4, -8], [0, 0, 8].
    expect([...fp8MqaLogits(device, args).toFloat32()]).toEqual([14, -10, 4]);
  });

  it("empty: no tokens, no keys, no columns", () => {
    const args = (tokens: number, n: number) => ({
      q: Tensor.empty([tokens, 2, 32], "e4m3fn"),
      kv: { data: Tensor.empty([n, 32], "e4m3fn"), scales: Tensor.empty([n], "f32") },
      weights: Tensor.empty([tokens, 2], "f32"),
      cuSeqLenKStart: i32(new Array(tokens).fill(0)),
      cuSeqLenKEnd: i32(new Array(tokens).fill(n)),
    });
    expect(fp8MqaLogits(device, args(0, 5)).shape).toEqual([0, 5]);
    expect(fp8MqaLogits(device, args(3, 0)).shape).toEqual([3, 0]);
    const out = fp8MqaLogits(device, { ...args(2, 0), maxSeqlenK: 3 });
    expect([...out.toFloat32()]).toEqual(new Array(6).fill(Number.NEGATIVE_INFINITY));
  });
});
