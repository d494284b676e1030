// Sizes, models and selections: pure functions against the original's figures.

import {
  ElasticBuffer,
  expectedGroups,
  theoreticalNumQps,
  theoreticalNumSms,
  unbalancedSelection,
} from "@open-infra/deep-ep";
import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";

const shape = { numMaxTokensPerRank: 4096, hidden: 7168, numTopk: 8 };

describe("buffer sizes", () => {
  it("are the original's for 1 × 8 and 2 × 8 ranks", () => {
    const hint = ElasticBuffer.getBufferSizeHint;
    expect(hint({ size: 8, ranksPerNode: 8 }, shape)).toBe(473_956_352);
    expect(hint({ size: 16, ranksPerNode: 8 }, shape)).toBe(1_218_445_312);
  });

  it("take 32 selections where their number is not known", () => {
    const topology = { size: 64, ranksPerNode: 64 };
    const known = ElasticBuffer.getBufferSizeHint(topology, { ...shape, numTopk: 32 });
    expect(ElasticBuffer.getBufferSizeHint(topology, { ...shape, numTopk: 0 })).toBe(known);
  });

  it("grow by what has to be sent from where ranks of other nodes are reached directly", () => {
    const direct = { ...shape, allowHybridMode: false };
    const rows = (16 + 1) * 4096 * (14_336 + 128);
    const combine = (8 + 16) * 4096 * (14_336 + 64);
    const align = 2 * 1024 * 1024;
    const want = Math.ceil(Math.max(rows, combine) / align) * align;
    expect(ElasticBuffer.getBufferSizeHint({ size: 16, ranksPerNode: 8 }, direct)).toBe(want);
  });

  it("hold every selection without multiple reduction", () => {
    const topology = { size: 2, ranksPerNode: 2 };
    const one = ElasticBuffer.getBufferSizeHint(topology, shape);
    const single = { ...shape, allowMultipleReduction: false };
    expect(ElasticBuffer.getBufferSizeHint(topology, single)).toBeGreaterThan(3.9 * one);
  });

  it("of the services are rounded as the original's", () => {
    expect(ElasticBuffer.getPpBufferSizeHint(1_000_001, 4)).toBe(16_777_216);
    const session = ElasticBuffer.getAgrsNumMaxSessionBytes({ size: 3 }, [[5, 7], [1]], "bf16");
    expect(session).toBe(224 + 32);
    expect(ElasticBuffer.getAgrsNumMaxSessionBytes({ size: 3 }, [5, 7], "bf16")).toBe(224);
    expect(ElasticBuffer.getAgrsBufferSizeHint(1)).toBe(2_097_152);
    const engram = { numEntries: 524_288, hidden: 128, numMaxTokensPerRank: 512 * 24 };
    const want = { numBytes: 4_194_304, numCpuBytes: 134_217_728 };
    expect(ElasticBuffer.getEngramStorageSizeHint(engram)).toEqual(want);
  });

  it("refuse what is no number of tokens", () => {
    const none = { ...shape, numMaxTokensPerRank: 0 };
    const topology = { size: 8, ranksPerNode: 8 };
    expect(() => ElasticBuffer.getBufferSizeHint(topology, none)).toThrow(/numMaxTokensPerRank/);
  });
});

describe("models", () => {
  it("expect as many ranks of a token as the original", () => {
    const want = [5.2947, 6.5233, 7.2668, 7.6758];
    const got = [8, 16, 32, 64].map((groups) => expectedGroups(256, 8, groups));
    got.forEach((value, i) => {
      expect(value).toBeCloseTo(want[i] as number, 4);
    });
    expect(() => expectedGroups(10, 2, 3)).toThrow(/numExperts/);
  });

  it("ask for 6, 8, 6 and 4 SMs on 1, 2, 4 and 8 nodes of 8", () => {
    const sms = [1, 2, 4, 8].map((nodes) =>
      theoreticalNumSms({
        numExperts: 256,
        numTopk: 8,
        numScaleoutRanks: nodes,
        numScaleupRanks: 8,
        nvlinkGbs: 180,
        rdmaGbs: 50,
      }),
    );
    expect(sms).toEqual([6, 8, 6, 4]);
  });

  it("ask for at least 64 without overlap, and for no more than there are", () => {
    const model = { numExperts: 256, numTopk: 8, numScaleoutRanks: 1, numScaleupRanks: 8 };
    expect(theoreticalNumSms({ ...model, preferOverlapWithCompute: false })).toBe(64);
    expect(theoreticalNumSms({ ...model, numDeviceSms: 4 })).toBe(4);
    expect(theoreticalNumSms({ ...model, numScaleupRanks: 1 })).toBe(132);
  });

  it("ask for queue pairs by mode, as many as there are", () => {
    expect(theoreticalNumQps(20, { allowHybridMode: false, numAllocatedQps: 17 })).toBe(9);
    expect(theoreticalNumQps(4, { allowHybridMode: true, numAllocatedQps: 129 })).toBe(65);
    expect(theoreticalNumQps(24, { allowHybridMode: true, numAllocatedQps: 129 })).toBe(129);
  });
});

const seed = testSeed();

/** Tokens that reach each rank. */
function reached(topkIdx: { raw(): BigInt64Array }, topk: number, local: number): number[] {
  const counts: number[] = [];
  const raw = topkIdx.raw();
  for (let from = 0; from < raw.length; from += topk) {
    const lanes = [...raw.subarray(from, from + topk)].map(Number).filter((e) => e >= 0);
    for (const rank of new Set(lanes.map((e) => Math.floor(e / local)))) {
      counts[rank] = (counts[rank] ?? 0) + 1;
    }
  }
  return counts;
}

describe(`selections (seed ${seed})`, () => {
  it("hit a precise ratio within a tenth, with all other ranks alike", () => {
    for (const [numRanks, ratio, numTopk] of [
      [8, 2, 4],
      [16, 4, 2],
      [4, 1, 4],
      [8, 4, 2],
    ] as const) {
      const random = seededRandom(seed + numRanks);
      const local = 8;
      const numExperts = numRanks * local;
      const options = { numTokens: 4096, numExperts, numRanks, numTopk, ratio, precise: true };
      const { topkIdx } = unbalancedSelection(options, random.next);
      const [special = 0, ...others] = reached(topkIdx, numTopk, local);
      const least = Math.min(...others);
      expect(Math.abs(special / least - ratio) / ratio, `seed ${seed}`).toBeLessThan(0.1);
      expect(Math.max(...others) / least, `seed ${seed}`).toBeLessThan(1.02);
    }
  });

  it("come near a ratio by scores, of different experts", () => {
    const random = seededRandom(seed);
    const options = { numTokens: 2048, numExperts: 32, numRanks: 8, numTopk: 2, ratio: 2 };
    const { topkIdx, topkWeights } = unbalancedSelection(options, random.next);
    const [special = 0, ...others] = reached(topkIdx, 2, 4);
    const mean = others.reduce((a, b) => a + b, 0) / others.length;
    expect(special / mean, `seed ${seed}`).toBeGreaterThan(1.6);
    expect(special / mean, `seed ${seed}`).toBeLessThan(2.4);
    const raw = topkIdx.raw();
    for (let i = 0; i < raw.length; i += 2) expect(raw[i]).not.toBe(raw[i + 1]);
    expect(topkWeights.raw().every((weight) => weight > 0 && weight < 1)).toBe(true);
  });

  it("lose the share that is masked, with its weights", () => {
    const random = seededRandom(seed);
    const options = { numTokens: 2000, numExperts: 8, numRanks: 2, numTopk: 2, maskedRatio: 0.25 };
    const { topkIdx, topkWeights } = unbalancedSelection(options, random.next);
    const masked = [...topkIdx.raw()].filter((e) => e === -1n).length;
    expect(masked / 4000, `seed ${seed}`).toBeCloseTo(0.25, 1);
    topkIdx.raw().forEach((e, i) => {
      expect(topkWeights.raw()[i] === 0).toBe(e < 0n);
    });
  });

  it("refuse a ratio that leaves a token too few ranks", () => {
    const options = {
      numTokens: 8,
      numExperts: 8,
      numRanks: 8,
      numTopk: 4,
      ratio: 7,
      precise: true,
    };
    expect(() => unbalancedSelection(options, Math.random)).toThrow(/ratio/);
  });
});
