// Sparse decode on every backend against an oracle of its own (G6, G7, G9, G11): both FP8 layouts
// and plain caches, any pages, lists, heads, scopes and sinks, among NaN.

import type { Device } from "@open-infra/jit";
import { Tensor } from "@open-infra/tensor";
import { seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, describe, expect, it } from "vitest";
import { dequantizeKCache, emptyKCache, flashMlaWithKvcache, writeKCache } from "../src/index.ts";
import { backends, bits, drawn, notClose, poisoned } from "./problems.ts";
import { type ScopeShape, type SparseProblem, sparseProblem } from "./sparse-problems.ts";

const seed = testSeed();
const { POSITIVE_INFINITY: inf, NEGATIVE_INFINITY: minusInf } = Number;
const tolerance = {
  bf16: [1e-3, 2.01 / 128, 5e-6],
  f32: [1e-6, 1e-5, 1e-12],
} as const;

interface Results {
  readonly out: Tensor;
  readonly lse: Tensor;
  readonly maxLogits: Tensor;
}

function run(device: Device, problem: SparseProblem, attnSink?: readonly number[]): Results {
  const { q, b, sq, hq, d, dv, dtype } = problem;
  const [main, extra] = problem.scopes;
  const out = poisoned([b, sq, hq, dv], dtype);
  const lse = poisoned([b, hq, sq], "f32");
  const maxLogits = poisoned([b, hq, sq], "f32");
  const sink = attnSink ?? problem.sink;
  flashMlaWithKvcache(device, {
    q,
    kCache: main?.cache as Tensor,
    indices: main?.indices as Tensor,
    ...(main?.lengths !== undefined && { topkLength: main.lengths }),
    ...(extra !== undefined && {
      extraKCache: extra.cache,
      extraIndicesInKvcache: extra.indices,
    }),
    ...(extra?.lengths !== undefined && { extraTopkLength: extra.lengths }),
    ...(sink !== undefined && { attnSink: Tensor.from(sink, [hq], "f32") }),
    headDimV: dv,
    softmaxScale: problem.scale ?? d ** -0.55,
    out,
    lse,
    maxLogits,
  });
  return { out, lse, maxLogits };
}

/** Compares up to `most` rows, chosen evenly; all must have been written. */
function check(problem: SparseProblem, got: Results, most: number): void {
  const { b, sq, hq, dv, dtype } = problem;
  const all = b * sq * hq;
  const out = got.out.toFloat64();
  const lse = got.lse.toFloat64();
  const max = got.maxLogits.toFloat64();
  const seen = { out: [] as number[], lse: [] as number[], max: [] as number[] };
  const want = { out: [] as number[], lse: [] as number[], max: [] as number[] };
  for (let at = 0; at < all; at += Math.max(1, Math.floor(all / most))) {
    const [r, i, h] = [Math.floor(at / (sq * hq)), Math.floor(at / hq) % sq, at % hq];
    const row = problem.row(r, i, h);
    want.out.push(...row.out);
    seen.out.push(...out.subarray(at * dv, (at + 1) * dv));
    const stat = (r * hq + h) * sq + i;
    want.lse.push(row.lse);
    seen.lse.push(lse[stat] as number);
    want.max.push(row.max);
    seen.max.push(max[stat] as number);
    if (row.lse === inf) {
      expect(out.subarray(at * dv, (at + 1) * dv).every((x) => x === 0)).toBe(true);
    }
  }
  const { q: _, scopes: __, row: ___, ...shape } = problem;
  const label = `seed ${seed} ${JSON.stringify(shape).slice(0, 300)}`;
  const [abs, rel, cos] = tolerance[dtype as keyof typeof tolerance];
  expect(notClose(seen.out, want.out, abs, rel, cos), `out, ${label}`).toBe("");
  expect(notClose(seen.lse, want.lse, 2e-6, 1e-6, 1e-12), `lse, ${label}`).toBe("");
  expect(notClose(seen.max, want.max, 2e-6, 1e-6, 1e-12), `maxLogits, ${label}`).toBe("");
  expect(out.every(Number.isFinite), `NaN, ${label}`).toBe(true);
}

const v32 = { d: 576, dv: 512, dtype: "bf16" } as const;
const model1 = { d: 512, dv: 512, dtype: "bf16" } as const;

for (const backend of backends("sparse decode")) {
  const { slow } = backend;
  // The narrower instruction sets run what differs by them; each kernel costs a compilation.
  const narrow = backend.name.includes("/");
  describe(`sparse decode, ${backend.name}`, () => {
    const device = backend.open();
    afterAll(() => device[Symbol.dispose]());

    it.each([
      ["v32", 2, 1],
      ["v32", 69, 16],
      ["v32", 64, 40],
      ["v32", 53, 128],
      ["model1", 2, 8],
      ["model1", 53, 64],
      ["model1", 64, 1],
      ["model1", 61, 40],
    ] as const)("%s, pages of %i, %i heads, duplicates and holes", (format, page, hq) => {
      const random = seededRandom(seed + page + hq);
      const [b, sq] = slow ? [1, 1] : [2, 3];
      const dims = format === "v32" ? v32 : model1;
      const main = { format, page, numBlocks: Math.ceil(500 / page), topk: slow ? 64 : 300 };
      const problem = sparseProblem(random, { b, sq, hq, ...dims, main });
      check(problem, run(device, problem), slow ? 8 : 40);
    });

    it("both scopes with formats, pages and lengths of their own; sinks", () => {
      const random = seededRandom(seed + 1);
      const sink = [0.5, inf, minusInf, -2, 3, 1e30, -1e30, 0];
      const scope = (format: ScopeShape["format"], page: number, lengths: number[] | null) => ({
        format,
        page,
        numBlocks: Math.ceil(400 / page),
        topk: 330,
        lengths,
      });
      const b = 6;
      const cases = [
        [scope("model1", 64, [0, 1, 63, 64, 300, 330]), scope("model1", 2, null)],
        [scope("model1", 7, null), scope("model1", 53, [330, 64, 63, 0, 1, 257])],
        [scope("model1", 64, [0, 0, 5, 0, 256, 0]), scope("bf16", 3, [0, 0, 0, 9, 0, 257])],
      ] as const;
      for (const [main, extra] of cases.slice(0, slow || narrow ? 1 : 3)) {
        const shape = { b, sq: slow ? 1 : 2, hq: 8, ...model1, main, extra, sink };
        const problem = sparseProblem(random, shape);
        const got = run(device, problem);
        check(problem, got, 60);
        // A sink never changes lse, and one of −inf changes nothing at all.
        const plain = run(device, problem, new Array<number>(8).fill(minusInf));
        expect(bits(got.lse)).toBe(bits(plain.lse));
        const zeros = run(device, problem, new Array<number>(8).fill(inf));
        expect(zeros.out.toFloat64().every((x) => x === 0)).toBe(true);
        expect(bits(zeros.lse)).toBe(bits(plain.lse));
      }
    });

    it.each(["bf16", "f16", "f32"] as const)("a cache of %s, any dimensions", (format) => {
      if (narrow && format !== "f32") return;
      const random = seededRandom(seed + 2);
      const extra = { format: "f32", page: 3, numBlocks: 9, topk: 20 } as const;
      for (const [d, dv, hq] of [
        [80, 64, 3],
        [33, 20, 7],
      ] as const) {
        if (narrow && d !== 80) continue;
        const main = { format, page: 5, numBlocks: 30, topk: 290, lengths: [0, 290, 17] };
        const shape = { b: 3, sq: 2, hq, d, dv, dtype: "f32" as const, main };
        const problem = sparseProblem(random, shape);
        check(problem, run(device, problem), 60);
        if (d !== 80 || narrow) continue;
        const two = sparseProblem(random, { ...shape, extra });
        check(two, run(device, two), 60);
      }
    });

    it("queries with nothing to see", () => {
      const random = seededRandom(seed + 3);
      const main = { format: "v32", page: 4, numBlocks: 3, topk: 70, holes: 1 } as const;
      const problem = sparseProblem(random, { b: 2, sq: 2, hq: 5, ...v32, main });
      const got = run(device, problem, [1, inf, minusInf, 0, -5]);
      expect(got.out.toFloat64().every((x) => x === 0)).toBe(true);
      expect(got.lse.toFloat64().every((x) => x === inf)).toBe(true);
      expect(got.maxLogits.toFloat64().every((x) => x === minusInf)).toBe(true);
      const none = { ...main, topk: 0, holes: 0 };
      const empty = sparseProblem(random, { b: 2, sq: 2, hq: 5, ...v32, main: none });
      expect(
        run(device, empty)
          .lse.toFloat64()
          .every((x) => x === inf),
      ).toBe(true);
    });

    it.skipIf(slow)("long lists split and join; every run gives the same bits", () => {
      const random = seededRandom(seed + 4);
      const main = { format: "v32", page: 64, numBlocks: 40, topk: 2048 } as const;
      const problem = sparseProblem(random, { b: 1, sq: 2, hq: 16, ...v32, main, scale: 0.3 });
      const got = run(device, problem);
      check(problem, got, 6);
      for (let n = 0; n < 5; n++) expect(bits(run(device, problem).out)).toBe(bits(got.out));
    });

    it.skipIf(slow)("a query alone, in a batch, on one thread: the same bits", () => {
      const random = seededRandom(seed + 7);
      const main = { format: "v32", page: 16, numBlocks: 40, topk: 700 } as const;
      const problem = sparseProblem(random, { b: 3, sq: 2, hq: 20, ...v32, main });
      const got = run(device, problem);
      using single = backend.open(1);
      const alone = run(single, problem);
      for (const key of ["out", "lse", "maxLogits"] as const) {
        expect(bits(alone[key]), `seed ${seed}`).toBe(bits(got[key]));
      }
      const { cache, indices } = problem.scopes[0] as { cache: Tensor; indices: Tensor };
      for (const [r, i] of [
        [2, 1],
        [0, 0],
      ] as const) {
        const one = flashMlaWithKvcache(device, {
          q: problem.q.slice(0, r, r + 1).slice(1, i, i + 1),
          kCache: cache,
          indices: indices.slice(0, r, r + 1).slice(1, i, i + 1),
          headDimV: 512,
          softmaxScale: 576 ** -0.55,
        });
        const row = got.out.slice(0, r, r + 1).slice(1, i, i + 1);
        expect(bits(one.out), `seed ${seed}`).toBe(bits(row));
      }
    });

    it("a list of all keys is dense decode over the decoded cache", () => {
      const random = seededRandom(seed + 5);
      for (const format of ["v32", "model1"] as const) {
        if (narrow && format === "model1") continue;
        const dims = format === "v32" ? v32 : model1;
        const n = slow ? 40 : 330;
        const main = { format, page: 16, numBlocks: Math.ceil(n / 16), topk: n, holes: 0 };
        const problem = sparseProblem(random, { b: 1, sq: 1, hq: 6, ...dims, main });
        const slots = Int32Array.from({ length: n }, (_, t) => t);
        const cache = emptyKCache(format, main.numBlocks, 16);
        writeKCache(
          cache,
          Tensor.from(slots, [n], "i32"),
          Tensor.from(drawn(random, n * dims.d), [n, dims.d], "f32"),
        );
        const args = { q: problem.q, headDimV: 512 };
        const sparse = flashMlaWithKvcache(device, {
          ...args,
          kCache: cache,
          indices: Tensor.from(slots, [1, 1, n], "i32"),
        });
        const blockTable = Tensor.from(
          Array.from({ length: Math.ceil(n / 16) }, (_, t) => t),
          [1, Math.ceil(n / 16)],
          "i32",
        );
        const paged = { ...args, blockTable, cacheSeqlens: Tensor.from([n], [1], "i32") };
        const decoded = flashMlaWithKvcache(device, { ...paged, kCache: dequantizeKCache(cache) });
        const fp8 = flashMlaWithKvcache(device, { ...paged, kCache: cache, isFp8Kvcache: true });
        for (const result of [sparse, decoded, fp8]) {
          expect(result.out.toFloat64().every(Number.isFinite)).toBe(true);
          expect(bits(result.out), format).toBe(bits(decoded.out));
          expect(bits(result.softmaxLse)).toBe(bits(decoded.softmaxLse));
        }
      }
    });

    it("halves of a list join by their lse to the whole", () => {
      const random = seededRandom(seed + 6);
      const main = { format: "f32", page: 8, numBlocks: 20, topk: 150 } as const;
      const shape = { b: 1, sq: 1, hq: 4, d: 80, dv: 64, dtype: "f32" as const, main };
      const problem = sparseProblem(random, shape);
      const { cache, indices } = problem.scopes[0] as { cache: Tensor; indices: Tensor };
      const call = (from: number, to: number) => {
        const part = indices.slice(2, from, to);
        const args = { q: problem.q, kCache: cache, indices: part, headDimV: 64 };
        const { out, softmaxLse } = flashMlaWithKvcache(device, args);
        return { out: out.toFloat64(), lse: softmaxLse.toFloat64() };
      };
      const [a, b, whole] = [call(0, 61), call(61, 150), call(0, 150)];
      for (let h = 0; h < 4; h++) {
        const [x, y] = [a.lse[h] as number, b.lse[h] as number];
        const lse = Math.max(x, y) + Math.log1p(Math.exp(-Math.abs(x - y)));
        expect(Math.abs(lse - (whole.lse[h] as number))).toBeLessThan(2e-6);
        const joined = Array.from({ length: 64 }, (_, c) => {
          const at = h * 64 + c;
          const [p, q] = [Math.exp(x - lse), Math.exp(y - lse)];
          return p * (a.out[at] as number) + q * (b.out[at] as number);
        });
        const got = whole.out.subarray(h * 64, (h + 1) * 64);
        expect(notClose(got, joined, 1e-6, 1e-5, 1e-12), `seed ${seed}`).toBe("");
      }
    });
  });
}
