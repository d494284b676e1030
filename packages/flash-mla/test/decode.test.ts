// Dense decode on every backend against the float64 oracle: the original's grid (G1, G2, G9),
// scaled down, among NaN and nonsense.

import type { Device } from "@open-infra/jit";
import { Tensor } from "@open-infra/tensor";
import { seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, describe, expect, it } from "vitest";
import { flashMlaVarlen, flashMlaWithKvcache } from "../src/index.ts";
import { backends, notClose, type PagedProblem, pagedProblem, poisoned } from "./problems.ts";

const seed = testSeed();
const tolerance = {
  bf16: [8e-4, 2.01 / 128, 5e-6],
  f16: [8e-4, 2.01 / 128, 1e-7],
  f32: [1e-6, 1e-5, 1e-12],
} as const;

function run(device: Device, problem: PagedProblem, causal: boolean): { out: Tensor; lse: Tensor } {
  const { q, kCache, blockTable, cacheSeqlens, dv, sq, hq, lens, dtype } = problem;
  const out = poisoned([lens.length, sq, hq, dv], dtype);
  const lse = poisoned([lens.length, hq, sq], "f32");
  const options = { q, kCache, blockTable, cacheSeqlens, headDimV: dv, causal, out, lse };
  const result = flashMlaWithKvcache(device, options);
  expect(result.out).toBe(out);
  expect(result.softmaxLse).toBe(lse);
  return { out, lse };
}

/** Compares up to `most` rows, chosen evenly, the first and the last among them. */
function check(
  problem: PagedProblem,
  causal: boolean,
  got: { out: Tensor; lse: Tensor },
  most: number,
): void {
  const { lens, sq, hq, dv, dtype } = problem;
  const out = got.out.toFloat64();
  const lse = got.lse.toFloat64();
  const all = lens.length * sq * hq;
  const step = Math.max(1, Math.floor(all / most));
  const seen = {
    out: [] as number[],
    want: [] as number[],
    lse: [] as number[],
    sum: [] as number[],
  };
  for (let at = 0; at < all; at += step) {
    const r = Math.floor(at / (sq * hq));
    const i = Math.floor(at / hq) % sq;
    const h = at % hq;
    const row = problem.row(r, i, h, causal);
    seen.want.push(...row.out);
    seen.out.push(...out.subarray(at * dv, (at + 1) * dv));
    seen.sum.push(row.lse);
    seen.lse.push(lse[(r * hq + h) * sq + i] as number);
    if (row.lse === Number.POSITIVE_INFINITY) {
      expect(out.subarray(at * dv, (at + 1) * dv).every((x) => x === 0)).toBe(true);
    }
  }
  const [abs, rel, cos] = tolerance[dtype as keyof typeof tolerance];
  const shown = JSON.stringify({ ...problem, q: 0, kCache: 0, blockTable: 0 }).slice(0, 200);
  const label = `seed ${seed} ${shown}`;
  expect(notClose(seen.out, seen.want, abs, rel, cos), `out, ${label}`).toBe("");
  expect(notClose(seen.lse, seen.sum, 2e-6, 1e-6, 1e-12), `lse, ${label}`).toBe("");
  expect(out.every(Number.isFinite), `nothing unwritten, ${label}`).toBe(true);
}

const lens = [0, 1, 20, 63, 64, 65, 140, 300];

type Dims = readonly [d: number, dv: number, dtype: "bf16" | "f16" | "f32"];
const any: readonly Dims[] = [
  [57, 31, "f16"],
  [33, 33, "f32"],
];
const compiled: readonly Dims[] = [
  [96, 64, "bf16"],
  [40, 24, "bf16"],
];

for (const backend of backends("dense decode")) {
  const { slow } = backend;
  // The narrower instruction sets run what differs by them; each kernel costs a compilation.
  const narrow = backend.name.includes("/");
  describe(`dense decode, ${backend.name}`, () => {
    const device = backend.open();
    afterAll(() => device[Symbol.dispose]());
    const random = seededRandom(seed);

    it.each([
      [1, 1, true],
      [9, 1, false],
      [9, 3, true],
      [64, 1, true],
      [128, 1, false],
    ])("576/512 bf16, %i heads over %i, causal %s", (hq, hk, causal) => {
      const shape = { sq: 2, hq, hk, d: 576, dv: 512, page: 64, dtype: "bf16" } as const;
      const few = slow && hq > 9 ? [65, 0] : lens;
      const problem = pagedProblem(random, { ...shape, lens: few });
      check(problem, causal, run(device, problem, causal), 120);
    });

    it.skipIf(slow).each([4, 16])("a long context splits and joins, %i heads", (hq) => {
      const shape = { sq: 1, hq, d: 576, dv: 512, page: 64, dtype: "bf16" } as const;
      const problem = pagedProblem(random, { ...shape, lens: [4096, 257], sharp: 20 });
      check(problem, true, run(device, problem, true), 12);
    });

    it.each([1, 16, 48, 64, 128])("page of %i", (page) => {
      const dims = narrow
        ? ({ d: 96, dv: 64, dtype: "bf16" } as const)
        : ({ d: 160, dv: 128, dtype: "f32" } as const);
      const shape = { sq: 3, hq: 6, hk: 2, ...dims };
      const problem = pagedProblem(random, { ...shape, page, lens: [130, 1, 64, 0], sharp: 10 });
      check(problem, true, run(device, problem, true), 200);
    });

    it.each([
      [80, 64, "bf16"],
      [40, 24, "bf16"],
      [1, 1, "f16"],
      [96, 96, "f16"],
      [100, 33, "bf16"],
    ] as const)("head dimensions %i/%i, %s", (d, dv, dtype) => {
      if (narrow && (d !== 100 || backend.name.endsWith("emulated"))) return;
      for (const hq of [1, 2, 7, 11]) {
        const shape = { sq: 2, hq, d, dv, page: 16, dtype };
        const problem = pagedProblem(random, { ...shape, lens: [70, 3], sharp: 5 });
        check(problem, true, run(device, problem, true), 200);
      }
    });

    it.skipIf(backend.name === "reference")(
      "probabilities that stay f32, where they would be rounded",
      () => {
        const shape = { sq: 2, hq: 7, d: 96, dv: 64, page: 16, dtype: "bf16" } as const;
        const problem = pagedProblem(random, { ...shape, lens: [300, 77], sharp: 5 });
        const { q, kCache, blockTable, cacheSeqlens } = problem;
        const args = { q, kCache, blockTable, cacheSeqlens, headDimV: 64 };
        const out = poisoned([2, 2, 7, 64], "f32");
        flashMlaWithKvcache(device, { ...args, probabilities: "f32", out });
        const want = Array.from({ length: 28 }, (_, at) => [
          ...problem.row(Math.floor(at / 14), Math.floor(at / 7) % 2, at % 7, false).out,
        ]).flat();
        expect(notClose(out.toFloat64(), want, 1e-6, 1e-5, 1e-12), `seed ${seed}`).toBe("");
      },
    );

    it("more queries than keys: rows without a key are 0 and +inf", () => {
      const shape = { sq: 5, hq: 3, d: 96, dv: 64, page: 64, dtype: "bf16" } as const;
      const problem = pagedProblem(random, { ...shape, lens: [0, 1, 3, 4, 5, 6] });
      const got = run(device, problem, true);
      check(problem, true, got, 1000);
      expect(got.lse.toFloat64().filter((x) => x === Number.POSITIVE_INFINITY).length).toBe(
        3 * (5 + 4 + 2 + 1),
      );
    });

    it("random shapes", () => {
      for (let n = 0; n < (slow ? 6 : 40); n++) {
        const hk = random.pick([1, 1, 2, 3]);
        // Kernels are specialised on dimensions and dtype: few of these, many of the rest.
        const [d, dv, dtype] = random.pick(slow ? any : narrow ? compiled.slice(0, 1) : compiled);
        const shape = {
          sq: random.int(1, 5),
          hq: hk * random.int(1, 14),
          hk,
          d,
          dv,
          page: random.pick([1, 7, 16, 64, 100]),
          dtype,
          lens: Array.from({ length: random.int(1, 4) }, () => random.int(0, 300)),
          sharp: random.pick([1, 30]),
        };
        const problem = pagedProblem(random, shape);
        const causal = random.next() < 0.5;
        check(problem, causal, run(device, problem, causal), 60);
      }
    });

    it("strided queries and outputs, mixed dtypes", () => {
      const shape = { sq: 2, hq: 5, d: 80, dv: 64, page: 16, dtype: "bf16" } as const;
      const problem = pagedProblem(random, { ...shape, lens: [37, 20] });
      const want = run(device, problem, true);
      const wideQ = poisoned([2, 3, 7, 96], "f32");
      const q = wideQ.slice(1, 0, 2).slice(2, 1, 6).slice(3, 8, 88);
      const source = problem.q.toFloat64();
      const raw = wideQ.raw();
      for (let at = 0; at < source.length; at++) {
        const c = at % 80;
        const h = Math.floor(at / 80) % 5;
        const i = Math.floor(at / 400) % 2;
        const r = Math.floor(at / 800);
        raw[((r * 3 + i) * 7 + h + 1) * 96 + 8 + c] = source[at] as number;
      }
      const wideOut = poisoned([2, 2, 6, 66], "f32");
      const out = wideOut.slice(2, 1, 6).slice(3, 2, 66);
      const lse = poisoned([2, 2, 5], "f32").transpose(1, 2);
      const { kCache, blockTable, cacheSeqlens } = problem;
      const args = { q, kCache, blockTable, cacheSeqlens, headDimV: 64, causal: true, out, lse };
      flashMlaWithKvcache(device, args);
      const rounded = Tensor.from(out.toFloat64(), [2, 2, 5, 64], "bf16").toFloat64();
      expect(Array.from(rounded)).toEqual(Array.from(want.out.toFloat64()));
      expect(Array.from(lse.toFloat64())).toEqual(Array.from(want.lse.toFloat64()));
      const untouched = wideOut.toFloat64().filter(Number.isNaN).length;
      expect(untouched).toBe(2 * 2 * (6 * 66 - 5 * 64));
    });

    it("lse merges: two halves of the keys give the whole", () => {
      const shape = { sq: 1, hq: 4, d: 80, dv: 64, page: 16, dtype: "bf16", sharp: 10 } as const;
      const problem = pagedProblem(random, { ...shape, lens: [96] });
      const whole = run(device, problem, false);
      const first = run(device, { ...problem, cacheSeqlens: Tensor.from([32], [1], "i32") }, false);
      const rest = run(
        device,
        {
          ...problem,
          blockTable: problem.blockTable.slice(1, 2, 7).contiguous(),
          cacheSeqlens: Tensor.from([64], [1], "i32"),
        },
        false,
      );
      const parts = [first, rest].map((x) => ({ o: x.out.toFloat64(), l: x.lse.toFloat64() }));
      const o = whole.out.toFloat64();
      for (let h = 0; h < 4; h++) {
        const weights = parts.map(({ l }) => Math.exp(l[h] as number));
        const sum = (weights[0] as number) + (weights[1] as number);
        expect(whole.lse.toFloat64()[h]).toBeCloseTo(Math.log(sum), 5);
        for (let c = 0; c < 64; c++) {
          const joined = parts.reduce(
            (x, { o }, n) => x + ((weights[n] as number) / sum) * (o[h * 64 + c] as number),
            0,
          );
          expect(Math.abs((o[h * 64 + c] as number) - joined)).toBeLessThan(
            1e-2 * Math.abs(joined) + 1e-4,
          );
        }
      }
    });

    it("empty calls do nothing", () => {
      const kCache = poisoned([1, 16, 1, 80], "bf16");
      const none = flashMlaWithKvcache(device, {
        q: Tensor.empty([0, 1, 4, 80], "bf16"),
        kCache,
        blockTable: Tensor.empty([0, 1], "i32"),
        cacheSeqlens: Tensor.empty([0], "i32"),
        headDimV: 64,
      });
      expect(none.out.shape).toEqual([0, 1, 4, 64]);
      const out = Tensor.empty([0, 4, 64], "f32");
      flashMlaVarlen(device, {
        q: Tensor.empty([0, 4, 80], "f32"),
        kCache,
        blockTable: Tensor.from([0, 0], [2, 1], "i32"),
        cuSeqlensQ: Tensor.from([0, 0, 0], [3], "i32"),
        contextLens: Tensor.from([0, 0], [2], "i32"),
        headDimV: 64,
        out,
      });
    });
  });
}
