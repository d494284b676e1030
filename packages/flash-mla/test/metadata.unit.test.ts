// The tile scheduler of the original (G4): its invariants for random lengths, and vectors worked
// out by hand from its description. And our own plan: every row and key exactly once.

import { Tensor } from "@open-infra/tensor";
import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { getMlaMetadataLegacy, SchedMeta } from "../src/metadata.ts";
import { ITEM_WORDS, matrixRows, Plan, type PlanProblem, vectorRows } from "../src/plan.ts";

const seed = testSeed();

function legacy(lens: readonly number[], numSmParts: number): { rows: number[][]; sums: number[] } {
  const { tileSchedulerMetadata, numSplits } = getMlaMetadataLegacy(
    Tensor.from(lens, [lens.length], "i32"),
    128,
    1,
    { numSmParts },
  );
  const raw = Array.from(tileSchedulerMetadata.raw());
  return {
    rows: Array.from({ length: numSmParts }, (_, i) => raw.slice(i * 8, i * 8 + 8)),
    sums: Array.from(numSplits.raw()),
  };
}

describe("getMlaMetadataLegacy", () => {
  it("covers every block once, in order, within the payload", () => {
    const random = seededRandom(seed);
    for (let n = 0; n < 300; n++) {
      const b = random.pick([1, 2, 7, 64, 321]);
      const parts = random.int(1, 161);
      const most = random.pick([1, 200, 5000, 100000]);
      const lens = Array.from({ length: b }, () => (random.next() < 0.2 ? 0 : random.int(0, most)));
      const label = `seed ${seed}, case ${n}, b ${b}, parts ${parts}`;
      const { rows, sums } = legacy(lens, parts);
      const blocks = lens.map((s) => Math.max(1, Math.ceil(s / 64)));
      const payload = Math.ceil(blocks.reduce((s, x) => s + x + 5, 0) / parts) + 5;
      const next = new Array<number>(b).fill(0);
      const splits = new Array<number>(b).fill(0);
      for (const [begin, end, beginBlock, endBlock, beginSplit, firstSplit, lastSplit] of rows as [
        number,
        number,
        number,
        number,
        number,
        number,
        number,
      ][]) {
        if (begin >= b) {
          expect([begin, end], label).toEqual([b, b - 1]);
          continue;
        }
        let load = 0;
        for (let r = begin; r <= end; r++) {
          const from = r === begin ? beginBlock : 0;
          const to = r === end ? endBlock : (blocks[r] as number);
          expect(from, label).toBe(next[r]);
          expect(to, label).toBeGreaterThan(from);
          if (r === begin) expect(beginSplit, label).toBe(splits[r]);
          next[r] = to;
          splits[r] = (splits[r] as number) + 1;
          load += to - from + 5;
          const whole = from === 0 && to === blocks[r];
          if (r === begin) expect(firstSplit, label).toBe(whole ? 0 : 1);
          if (r === end) expect(lastSplit, label).toBe(whole ? 0 : 1);
        }
        expect(load, label).toBeLessThanOrEqual(payload);
      }
      expect(next, label).toEqual(blocks);
      expect(sums[0], label).toBe(0);
      for (let r = 0; r < b; r++) {
        expect((sums[r + 1] as number) - (sums[r] as number), label).toBe(splits[r]);
      }
      expect(sums.at(-1), label).toBeLessThanOrEqual(b + parts);
    }
  });

  it("gives the walk's own numbers", () => {
    for (const lens of [[0], [1], [64]]) {
      // One block, payload ceil(6/2) + 5 = 8: the first part takes it, the second idles.
      expect(legacy(lens, 2)).toEqual({
        rows: [
          [0, 0, 0, 1, 0, 0, 0, 0],
          [1, 0, 0, 0, 0, 0, 0, 0],
        ],
        sums: [0, 1],
      });
    }
    // Two blocks, payload ceil(7/2) + 5 = 9.
    expect(legacy([65], 2).rows[0]).toEqual([0, 0, 0, 2, 0, 0, 0, 0]);
    // 64 blocks each, payload ceil(128·69/132) + 5 = 72: one request a part, then 3 over → none.
    const equal = legacy(new Array(128).fill(4096), 132);
    expect(equal.rows[0]).toEqual([0, 0, 0, 64, 0, 0, 0, 0]);
    expect(equal.rows[127]).toEqual([127, 127, 0, 64, 0, 0, 0, 0]);
    expect(equal.rows[128]).toEqual([128, 127, 0, 0, 0, 0, 0, 0]);
    expect(equal.sums.at(-1)).toBe(128);
    // 1563 blocks and 127 of one; payload ceil((1568 + 762)/7) + 5 = 338, so parts of 333 blocks.
    const skewed = legacy([100000, ...new Array<number>(127).fill(1)], 7);
    expect(skewed.rows.slice(0, 5)).toEqual([
      [0, 0, 0, 333, 0, 1, 1, 0],
      [0, 0, 333, 666, 1, 1, 1, 0],
      [0, 0, 666, 999, 2, 1, 1, 0],
      [0, 0, 999, 1332, 3, 1, 1, 0],
      [0, 17, 1332, 1, 4, 1, 0, 0],
    ]);
    expect(skewed.sums.slice(0, 3)).toEqual([0, 5, 6]);
  });

  it("derives the number of parts as the original does", () => {
    const lens = Tensor.from([1000, 10], [2], "i32");
    const parts = (q: number, k: number, options: object): number =>
      getMlaMetadataLegacy(lens, q, k, { numSms: 132, ...options }).tileSchedulerMetadata.dim(0);
    expect(parts(128, 1, {})).toBe(66);
    expect(parts(16, 1, {})).toBe(132);
    expect(parts(16, 8, {})).toBe(16);
    expect(parts(64 * 1000, 1, {})).toBe(1);
    expect(parts(256, 1, { numHeadsQ: 128, topk: 2048 })).toBe(33);
    expect(() => parts(128, 0, {})).toThrow(/numHeadsK is 0/);
    expect(() => parts(128, 1, { topk: 64 })).toThrow(/numHeadsQ is missing/);
    expect(() => getMlaMetadataLegacy(Tensor.from([-1], [1], "i32"), 1, 1)).toThrow(
      /cacheSeqlens\[0\] is -1/,
    );
  });

  it("counts both scopes of sparse decode in whole blocks", () => {
    const i32 = (values: number[]): Tensor => Tensor.from(values, [values.length], "i32");
    const options = { numHeadsQ: 64, topk: 130, topkLength: i32([0, 130]), numSmParts: 1 };
    const one = getMlaMetadataLegacy(i32([9, 9]), 64, 1, options);
    expect([...one.tileSchedulerMetadata.raw()]).toEqual([0, 1, 0, 3, 0, 0, 0, 0]);
    const extra = { extraTopk: 70, extraTopkLength: i32([1, 70]) };
    const two = getMlaMetadataLegacy(i32([9, 9]), 64, 1, { ...options, ...extra });
    expect([...two.tileSchedulerMetadata.raw()]).toEqual([0, 1, 0, 5, 0, 0, 0, 0]);
    // 17 blocks with their overheads over 2 parts: payload 9 + 5, so 2 + 5 and 2 of the second's 5.
    const cut = getMlaMetadataLegacy(i32([9, 9]), 64, 1, { ...options, ...extra, numSmParts: 2 });
    expect([...cut.tileSchedulerMetadata.raw()]).toEqual([
      ...[0, 1, 0, 2, 0, 0, 1, 0],
      ...[1, 1, 2, 5, 1, 1, 1, 0],
    ]);
    expect([...cut.numSplits.raw()]).toEqual([0, 1, 3]);
    expect(() =>
      getMlaMetadataLegacy(i32([9, 9]), 64, 1, { ...options, topkLength: i32([-1, 0]) }),
    ).toThrow(/topkLength\[0\] is -1/);
  });
});

function random(problem: Partial<PlanProblem>): PlanProblem {
  return {
    queryLengths: new Int32Array([1]),
    keyLengths: new Int32Array([1]),
    headsQ: 1,
    headsK: 1,
    headDimV: 512,
    causal: true,
    threads: 1,
    ...problem,
  };
}

describe("Plan", () => {
  it("computes every (row, split) once and merges what it cut", () => {
    const dice = seededRandom(seed);
    const plan = new Plan();
    for (let n = 0; n < 120; n++) {
      const b = dice.int(0, 12);
      const headsK = dice.pick([1, 1, 2]);
      const group = dice.pick([1, 3, 16, 40]);
      const most = dice.pick([10, 600, 3000]);
      const problem = random({
        queryLengths: Int32Array.from({ length: b }, () => dice.pick([0, 1, 1, 2, 40])),
        keyLengths: Int32Array.from({ length: b }, () => dice.int(0, most)),
        headsQ: group * headsK,
        headsK,
        causal: dice.next() < 0.5,
        threads: dice.pick([1, 2, 16, 64]),
      });
      plan.pose(problem).fill(dice.pick([vectorRows, matrixRows]));
      const label = `seed ${seed}, case ${n} ${JSON.stringify(problem)}`;
      const done = new Map<string, number>();
      const slots = new Set<number>();
      let twice = 0;
      let missing = 0;
      const items = plan.items.raw();
      for (let i = 0; i < plan.itemCount; i++) {
        const [r, head, rowBegin, rowEnd, splitBegin, splitEnd, slot] = items.subarray(
          i * ITEM_WORDS,
        ) as unknown as [number, number, number, number, number, number, number];
        expect(rowEnd - rowBegin, label).toBeLessThanOrEqual(plan.rowTile);
        for (let row = rowBegin; row < rowEnd; row++) {
          if (splitBegin === splitEnd) done.set(`${r} ${head} ${row} none`, 1);
          for (let s = splitBegin; s < splitEnd; s++) {
            const key = `${r} ${head} ${row} ${s}`;
            done.set(key, (done.get(key) ?? 0) + 1);
            if (slot < 0) continue;
            const at = slot + (s - splitBegin) * (rowEnd - rowBegin) + row - rowBegin;
            if (slots.has(at)) twice++;
            slots.add(at);
          }
        }
      }
      expect(twice, label).toBe(0);
      expect(slots.size, label).toBe(plan.partialRows);
      expect(
        [...done.values()].every((times) => times === 1),
        label,
      ).toBe(true);
      for (let r = 0; r < b; r++) {
        const tokens = problem.queryLengths[r] as number;
        const keys = problem.keyLengths[r] as number;
        for (let token = 0; token < tokens; token++) {
          const visible = problem.causal ? Math.max(0, keys - tokens + token + 1) : keys;
          for (const row of [token * group, token * group + group - 1]) {
            for (let head = 0; head < headsK; head++) {
              for (let s = 0; s * 256 < visible; s++) {
                if (!done.has(`${r} ${head} ${row} ${s}`)) missing++;
              }
            }
          }
        }
      }
      expect(missing, label).toBe(0);
    }
  });

  it("gives all threads work for one long request, and cuts nothing on one thread", () => {
    const plan = new Plan();
    const one = {
      queryLengths: new Int32Array([1]),
      keyLengths: new Int32Array([8192]),
      headsQ: 16,
    };
    plan.pose(random({ ...one, threads: 16 })).fill();
    expect(plan.itemCount).toBeGreaterThanOrEqual(16);
    expect(plan.threads).toBe(16);
    plan.pose(random({ ...one, threads: 1 })).fill();
    expect(plan.mergeCount).toBe(0);
  });
});

describe("SchedMeta", () => {
  const problem = random({
    keyLengths: new Int32Array([700, 3]),
    queryLengths: new Int32Array([1, 1]),
  });

  it("is filled once and describes its splits", () => {
    const meta = new SchedMeta();
    expect(meta.haveInitialized).toBe(false);
    expect(meta.numSplits).toBeUndefined();
    const plan = meta.planFor("test", { b: 2 }, problem);
    expect(meta.haveInitialized).toBe(true);
    expect(meta.planFor("test", { b: 2 }, problem)).toBe(plan);
    expect(Array.from(meta.numSplits?.raw() ?? [])).toEqual([0, 3, 4]);
    expect(meta.tileSchedulerMetadata?.shape).toEqual([plan.itemCount, 8]);
  });

  it("refuses other lengths and shapes, naming the difference", () => {
    const meta = new SchedMeta();
    const lens = new Int32Array([700, 3]);
    meta.planFor("test", { b: 2, h_q: 16 }, { ...problem, keyLengths: lens });
    lens[1] = 4;
    expect(() => meta.planFor("test", { b: 2, h_q: 16 }, { ...problem, keyLengths: lens })).toThrow(
      /sequence length of request 1 = 3, this call has 4/,
    );
    expect(() => meta.planFor("test", { b: 2, h_q: 8 }, problem)).toThrow(
      /h_q = 16, this call has 8/,
    );
  });
});
