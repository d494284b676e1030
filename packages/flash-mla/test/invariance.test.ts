// A query row's result is the same to the last bit alone, in a batch, permuted, as part of a chunk
// or as a single step, on one thread or more, with any row grouping (G3, G11 and the house's
// numerics).

import type { Device } from "@open-infra/jit";
import { type DType, Tensor } from "@open-infra/tensor";
import { seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, describe, expect, it } from "vitest";
import { flashMlaVarlen, flashMlaWithKvcache } from "../src/index.ts";
import { backends, bits, type PagedProblem, pagedProblem, poisoned } from "./problems.ts";

const seed = testSeed();

interface Chunk {
  readonly request: number;
  /** Query tokens [from, to) of the request's own sequence. */
  readonly from: number;
  readonly to: number;
}

/** Runs chunks of the problem's sequences as one ragged launch; returns a result per chunk. */
function runChunks(
  device: Device,
  problem: PagedProblem,
  chunks: readonly Chunk[],
  outType: DType = "f32",
): string[] {
  const { q, kCache, blockTable, dv, hq, d } = problem;
  const total = chunks.reduce((n, c) => n + c.to - c.from, 0);
  const columns = blockTable.dim(1);
  const queries = Tensor.empty([total, hq, d], q.dtype);
  const table = Tensor.empty([chunks.length, columns], "i32");
  const cu = [0];
  for (const [n, chunk] of chunks.entries()) {
    const rows = q.select(0, chunk.request).slice(0, chunk.from, chunk.to);
    queries
      .slice(0, cu[n] as number, (cu[n] as number) + rows.dim(0))
      .bytes()
      .set(rows.bytes());
    table.select(0, n).bytes().set(blockTable.select(0, chunk.request).bytes());
    cu.push((cu[n] as number) + chunk.to - chunk.from);
  }
  const out = poisoned([total, hq, dv], outType);
  const lse = poisoned([total, hq], "f32");
  flashMlaVarlen(device, {
    q: queries,
    kCache,
    blockTable: table,
    cuSeqlensQ: Tensor.from(cu, [cu.length], "i32"),
    contextLens: Tensor.from(
      chunks.map((c) => c.to),
      [chunks.length],
      "i32",
    ),
    headDimV: dv,
    out,
    lse,
  });
  return chunks.map((_, n) =>
    [out, lse].map((t) => bits(t.slice(0, cu[n] as number, cu[n + 1] as number))).join("|"),
  );
}

const shapes = [
  { hq: 16, d: 576, dv: 512, dtype: "bf16", n: 300 },
  { hq: 1, d: 80, dv: 64, dtype: "bf16", n: 550 },
  { hq: 4, d: 160, dv: 128, dtype: "f32", n: 300 },
  { hq: 6, hk: 2, d: 96, dv: 96, dtype: "f16", n: 130 },
] as const;

for (const backend of backends("bitwise invariance", { reference: false })) {
  describe(`bitwise invariance, ${backend.name}`, () => {
    const device = backend.open(2);
    const single = backend.open(1);
    afterAll(() => {
      device[Symbol.dispose]();
      single[Symbol.dispose]();
    });

    const own = backend.name.includes("/") ? shapes.slice(0, 2) : shapes;
    it.each(own)("chunks, steps and threads: %o", ({ n, ...shape }) => {
      const random = seededRandom(seed);
      const problem = pagedProblem(random, { ...shape, sq: n, page: 16, lens: [n], sharp: 10 });
      const whole = runChunks(single, problem, [{ request: 0, from: 0, to: n }]);
      expect(runChunks(device, problem, [{ request: 0, from: 0, to: n }]), `seed ${seed}`).toEqual(
        whole,
      );
      const rows = (parts: string[]): string[][] => {
        const buffers = parts.map((p) => p.split("|").map((x) => Buffer.from(x, "base64")));
        return [0, 1].map((t) => [
          Buffer.concat(buffers.map((b) => b[t] as Buffer)).toString("base64"),
        ]);
      };
      for (let round = 0; round < 3; round++) {
        const cuts = [0, ...Array.from({ length: 5 }, () => random.int(0, n + 1)), n].sort(
          (a, b) => a - b,
        );
        const chunks = cuts.slice(1).map((to, i) => ({ request: 0, from: cuts[i] as number, to }));
        const parts = chunks.map(
          (c) => runChunks(round === 1 ? single : device, problem, [c])[0] as string,
        );
        expect(rows(parts), `seed ${seed}, cuts ${cuts}`).toEqual(rows(whole));
      }
      const last = Array.from({ length: 40 }, (_, i) => ({
        request: 0,
        from: n - 40 + i,
        to: n - 39 + i,
      }));
      const steps = last.map((c) => runChunks(device, problem, [c])[0] as string);
      const tail = runChunks(device, problem, [{ request: 0, from: n - 40, to: n }]);
      expect(rows(steps), `seed ${seed}, steps`).toEqual(rows(tail));
    });

    it.each(own.slice(0, 2))("alone, in a batch of 64, permuted: %o", ({ n: _, ...shape }) => {
      const random = seededRandom(seed + 1);
      const lens = Array.from({ length: 64 }, (_, r) => (r === 5 ? 700 : random.int(1, 150)));
      const problem = pagedProblem(random, { ...shape, sq: 1, page: 16, lens });
      const { q, kCache, blockTable, cacheSeqlens, dv } = problem;
      const call = (dev: Device, order: readonly number[]): string[] => {
        const pick = (t: Tensor): Tensor => {
          const parts = order.map((r) => t.slice(0, r, r + 1).contiguous());
          const all = Tensor.empty([order.length, ...t.shape.slice(1)], t.dtype);
          parts.forEach((p, i) => {
            all.bytes().set(p.bytes(), i * p.byteLength);
          });
          return all;
        };
        const { out, softmaxLse } = flashMlaWithKvcache(dev, {
          q: pick(q),
          kCache,
          blockTable: pick(blockTable),
          cacheSeqlens: pick(cacheSeqlens),
          headDimV: dv,
          causal: true,
        });
        return order.map(
          (_, i) => bits(out.slice(0, i, i + 1)) + bits(softmaxLse.slice(0, i, i + 1)),
        );
      };
      const order = Array.from({ length: 64 }, (_, r) => r);
      const batch = call(device, order);
      const shuffled = order.toSorted((a, b) => ((a * 37) % 64) - ((b * 37) % 64));
      call(device, shuffled).forEach((row, i) => {
        expect(row, `seed ${seed}, request ${shuffled[i]}`).toBe(batch[shuffled[i] as number]);
      });
      for (const r of [0, 5, 17, 63]) {
        expect(call(device, [r])[0], `seed ${seed}, request ${r} alone`).toBe(batch[r]);
        expect(call(single, [r])[0], `seed ${seed}, request ${r}, one thread`).toBe(batch[r]);
      }
      for (let i = 0; i < 5; i++) expect(call(device, order)).toEqual(batch);
    });
  });
}
