// Sparse prefill on every backend against an oracle of its own (G8): the original's grid scaled
// down, every kind of index that is no key, strided tensors, and a batch dimension.

import type { Device } from "@open-infra/jit";
import { type DType, Tensor } from "@open-infra/tensor";
import { type Random, seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, describe, expect, it } from "vitest";
import { flashMlaSparseFwd } from "../src/index.ts";
import { backends, bits, notClose } from "./problems.ts";
import { jointRow, noKeys } from "./sparse-problems.ts";

const seed = testSeed();
const { POSITIVE_INFINITY: inf, NEGATIVE_INFINITY: minusInf } = Number;

interface Shape {
  readonly b: number;
  readonly sq: number;
  readonly skv: number;
  readonly topk: number;
  readonly hq: number;
  readonly d: number;
  readonly dv: number;
  readonly lengths?: readonly number[];
  readonly sink?: readonly number[];
  readonly allInvalid?: boolean;
}

/** A view with room after the last dimension and in every other one. */
function strided(shape: readonly number[], dtype: DType): Tensor {
  const last = shape.length - 1;
  const wide = shape.map((n, i) => (i === last ? n + 128 : n + 1));
  let view: Tensor = Tensor.empty(wide, dtype).fill(dtype === "i32" ? 12345678 : Number.NaN);
  shape.forEach((n, i) => {
    view = view.slice(i, 0, n);
  });
  return view;
}

function filled(shape: readonly number[], dtype: DType, values: ArrayLike<number>): Tensor {
  return strided(shape, dtype).copyFrom(Tensor.from(values, shape, dtype));
}

function problem(random: Random, shape: Shape) {
  const { b, sq, skv, topk, hq, d } = shape;
  const draw = (n: number): Float64Array =>
    Float64Array.from({ length: n }, () => random.normal() / 10 + (random.next() - 0.5) / 10);
  const list = Int32Array.from({ length: b * sq * topk }, () =>
    shape.allInvalid === true || random.next() < 0.15
      ? random.pick(noKeys(skv))
      : random.int(0, skv),
  );
  // Keys that no list names within its length hold NaN.
  const kv = draw(b * skv * d);
  for (let r = 0; r < b; r++) {
    const used = new Set<number>();
    for (let at = r * sq * topk; at < (r + 1) * sq * topk; at++) {
      const length = shape.lengths?.[Math.floor(at / topk)] ?? topk;
      if (at % topk < length) used.add(list[at] as number);
    }
    for (let j = 0; j < skv; j++) {
      if (!used.has(j)) kv.fill(Number.NaN, (r * skv + j) * d, (r * skv + j + 1) * d);
    }
  }
  return {
    q: filled([b, sq, hq, d], "bf16", draw(b * sq * hq * d)),
    kv: filled([b, skv, 1, d], "bf16", kv),
    indices: filled([b, sq, 1, topk], "i32", list),
    list,
  };
}

/** One query of one head. */
function problemInputs(random: Random) {
  const p = problem(random, { b: 1, sq: 1, skv: 4, topk: 3, hq: 1, d: 96, dv: 64 });
  const view = (t: Tensor): Tensor => t.select(0, 0);
  return { q: view(p.q), kv: view(p.kv), indices: view(p.indices), smScale: 1, dV: 64 };
}

function run(device: Device, shape: Shape, p: ReturnType<typeof problem>) {
  const { b, sq, hq, dv, lengths, sink } = shape;
  const one = b === 1;
  const view = (t: Tensor): Tensor => (one ? t.select(0, 0) : t);
  const out = strided([b, sq, hq, dv], "bf16");
  const lse = strided([b, sq, hq], "f32");
  const maxLogits = strided([b, sq, hq], "f32");
  flashMlaSparseFwd(device, {
    q: view(p.q),
    kv: view(p.kv),
    indices: view(p.indices),
    smScale: 0.5,
    dV: dv,
    ...(lengths !== undefined && {
      topkLength: view(Tensor.from(lengths, [b, sq], "i32")),
    }),
    ...(sink !== undefined && { attnSink: Tensor.from(sink, [hq], "f32") }),
    out: view(out),
    lse: view(lse),
    maxLogits: view(maxLogits),
  });
  return { out, lse, maxLogits };
}

function check(shape: Shape, p: ReturnType<typeof problem>, got: ReturnType<typeof run>): void {
  const { b, sq, skv, topk, hq, d, dv } = shape;
  const q = p.q.toFloat64();
  const kv = p.kv.toFloat64();
  const [out, lse, max] = [got.out, got.lse, got.maxLogits].map((t) => t.toFloat64());
  const seen = { out: [] as number[], lse: [] as number[], max: [] as number[] };
  const want = { out: [] as number[], lse: [] as number[], max: [] as number[] };
  const rows = b * sq * hq;
  for (let at = 0; at < rows; at += Math.max(1, Math.floor(rows / 40))) {
    const query = Math.floor(at / hq);
    const r = Math.floor(query / sq);
    const from = query * topk;
    const keys = Array.from(p.list.subarray(from, from + (shape.lengths?.[query] ?? topk)))
      .filter((j) => j >= 0 && j < skv)
      .map((j) => kv.subarray((r * skv + j) * d, (r * skv + j + 1) * d));
    const row = jointRow(q.subarray(at * d, (at + 1) * d), keys, 0.5, dv, shape.sink?.[at % hq]);
    seen.out.push(...(out as Float64Array).subarray(at * dv, (at + 1) * dv));
    want.out.push(...row.out);
    seen.lse.push(lse?.[at] as number);
    want.lse.push(row.lse);
    seen.max.push(max?.[at] as number);
    want.max.push(row.max);
  }
  const label = `seed ${seed} ${JSON.stringify(shape).slice(0, 200)}`;
  expect(notClose(seen.out, want.out, 8e-4, 3.01 / 128, 5e-6), `out, ${label}`).toBe("");
  expect(notClose(seen.lse, want.lse, 2e-6, 1e-6, 1e-12), `lse, ${label}`).toBe("");
  expect(notClose(seen.max, want.max, 2e-6, 1e-6, 1e-12), `maxLogits, ${label}`).toBe("");
  expect(out?.every(Number.isFinite), `NaN, ${label}`).toBe(true);
}

for (const backend of backends("sparse prefill")) {
  const { slow } = backend;
  const narrow = backend.name.includes("/");
  describe(`sparse prefill, ${backend.name}`, () => {
    const device = backend.open();
    afterAll(() => device[Symbol.dispose]());
    const random = seededRandom(seed);

    it.each([
      [1, 128, 128, 64, 576],
      [62, 592, 128, 2, 576],
      [5, 1840, 256, 16, 512],
      [3, 95, 128, 128, 512],
      [2, 114, 384, 5, 576],
    ])("s_q %i, s_kv %i, topk %i, %i heads, d %i", (sq, skv, topk, hq, d) => {
      if (narrow && d !== 576) return;
      const queries = slow ? Math.min(2, sq) : sq;
      const shape = { b: 1, sq: queries, skv, topk, hq: slow ? Math.min(hq, 4) : hq, d, dv: 512 };
      const p = problem(random, shape);
      check(shape, p, run(device, shape, p));
    });

    it("a batch, lengths of each query, sinks", () => {
      const lengths = [0, 1, 63, 300, 64, 17];
      const sink = [0, inf, minusInf, 2];
      const shape = { b: 2, sq: 3, skv: 200, topk: 300, hq: 4, d: 576, dv: 512, lengths, sink };
      const p = problem(random, shape);
      const got = run(device, shape, p);
      check(shape, p, got);
      // Each entry of a batch alone gives the same bits.
      for (const r of [0, 1]) {
        const alone = flashMlaSparseFwd(device, {
          q: p.q.select(0, r),
          kv: p.kv.select(0, r),
          indices: p.indices.select(0, r),
          smScale: 0.5,
          topkLength: Tensor.from(lengths.slice(r * 3, r * 3 + 3), [3], "i32"),
          attnSink: Tensor.from(sink, [4], "f32"),
        });
        expect(bits(alone.out)).toBe(bits(got.out.select(0, r)));
        expect(bits(alone.lse)).toBe(bits(got.lse.select(0, r)));
        expect(bits(alone.maxLogits)).toBe(bits(got.maxLogits.select(0, r)));
      }
    });

    it("the logarithm over the first places, for an indexer", () => {
      // On two threads the second query's list is cut up and joined.
      for (const hq of slow ? [2] : [2, 20]) {
        const lengths = [700, 0, 5, 256];
        const shape = { b: 1, sq: 4, skv: 300, topk: 700, hq, d: 96, dv: 64, lengths };
        const p = problem(random, shape);
        const view = (t: Tensor): Tensor => t.select(0, 0);
        const [q, kv, indices] = [p.q, p.kv, p.indices].map(view) as [Tensor, Tensor, Tensor];
        const common = { q, kv, indices, smScale: 0.5, dV: 64 };
        const topkLength = Tensor.from(lengths, [4], "i32");
        for (const indexerTopk of [256, 512, 1024]) {
          const whole = flashMlaSparseFwd(device, { ...common, topkLength, indexerTopk });
          const first = Tensor.from(
            lengths.map((n) => Math.min(n, indexerTopk)),
            [4],
            "i32",
          );
          const want = flashMlaSparseFwd(device, { ...common, topkLength: first });
          const label = `seed ${seed}, ${hq} heads, ${indexerTopk} places`;
          expect(bits(whole.lseIndexer as Tensor), label).toBe(bits(want.lse));
          const plain = flashMlaSparseFwd(device, { ...common, topkLength });
          expect(plain.lseIndexer).toBeUndefined();
          expect(bits(whole.out), label).toBe(bits(plain.out));
        }
      }
      const lone = { ...problemInputs(random), lseIndexer: Tensor.empty([1, 1], "f32") };
      expect(() => flashMlaSparseFwd(device, lone)).toThrow(/lseIndexer.*indexerTopk/);
      const odd = { ...problemInputs(random), indexerTopk: 100 };
      expect(() => flashMlaSparseFwd(device, odd)).toThrow(/multiple of 256/);
    });

    it("queries without keys; lse in base 2", () => {
      const none = { b: 1, sq: 3, skv: 20, topk: 130, hq: 3, d: 576, dv: 512, allInvalid: true };
      const got = run(device, none, problem(random, none));
      expect(got.out.toFloat64().every((x) => x === 0)).toBe(true);
      expect(got.lse.toFloat64().every((x) => x === inf)).toBe(true);
      expect(got.maxLogits.toFloat64().every((x) => x === minusInf)).toBe(true);
      const shape = { ...none, allInvalid: false };
      const { q, kv, indices } = problem(random, shape);
      const [x, y, z] = [q, kv, indices].map((t) => t.select(0, 0)) as [Tensor, Tensor, Tensor];
      const args = { q: x, kv: y, indices: z, smScale: 1 };
      const natural = flashMlaSparseFwd(device, args).lse.toFloat64();
      const binary = flashMlaSparseFwd(device, { ...args, lseBase: "2" }).lse.toFloat64();
      binary.forEach((l, i) => {
        expect(Math.abs(l * Math.LN2 - (natural[i] as number))).toBeLessThan(2e-6);
      });
    });

    it.skipIf(slow || narrow)("70000 queries in one launch", () => {
      const shape = { b: 1, sq: 70000, skv: 128, topk: 8, hq: 1, d: 96, dv: 64 };
      const p = problem(random, shape);
      check(shape, p, run(device, shape, p));
    });
  });
}
