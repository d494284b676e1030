import { ReferenceDevice } from "@open-infra/jit";
import { Tensor } from "@open-infra/tensor";
import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import type { SamplingParams } from "../src/api.ts";
import { type SampleInput, Sampler } from "../src/sampler.ts";
import { resolveRequest } from "../src/sampling-params.ts";
import { chiSquare, oracleDistribution, oracleLogprobs } from "./sampling-oracle.ts";

const device = new ReferenceDevice();

function resolved(sampling: SamplingParams, vocabSize: number) {
  const limits = { vocabSize, maxModelLen: 4096, eosTokenIds: [0] };
  return resolveRequest({ id: "t", promptTokenIds: [1], sampling }, limits);
}

function input(sampling: SamplingParams, vocab: number, more: Partial<SampleInput> = {}) {
  return {
    row: 0,
    sampling: resolved(sampling, vocab),
    seed: 1,
    outputTokens: 0,
    outputCounts: undefined,
    promptSet: undefined,
    ...more,
  };
}

function tokenOf(sampler: Sampler, logits: Tensor<"f32">, one: SampleInput): number {
  const [outcome] = sampler.sample(logits, [one]);
  if (outcome === undefined || "problem" in outcome) throw new Error("no token");
  return outcome.tokenId;
}

function randomLogits(vocab: number, spread: number, seed: number): Tensor<"f32"> {
  const random = seededRandom(seed);
  const values = Array.from({ length: vocab }, () => random.normal() * spread);
  return Tensor.from(values, [1, vocab], "f32");
}

describe("Sampler", () => {
  it("greedy takes the first of equal best tokens, whatever the filters say", () => {
    const logits = Tensor.from([1, 5, 2, 5, 0], [1, 5], "f32");
    const sampler = new Sampler(device, 5);
    expect(tokenOf(sampler, logits, input({ temperature: 0, topP: 0.1, topK: 1 }, 5))).toBe(1);
  });

  it("draws from the oracle's distribution", () => {
    const seed = testSeed();
    const cases: SamplingParams[] = [
      {},
      { temperature: 0.6, topP: 0.95 },
      { temperature: 1.7, topK: 13 },
      { temperature: 1, minP: 0.05 },
      { temperature: 0.9, topK: 20, topP: 0.8, minP: 0.02 },
      { temperature: 50 },
      { temperature: 0.05, topK: 5 },
    ];
    const vocab = 40;
    const sampler = new Sampler(device, vocab);
    const draws = 4000;
    for (const [n, sampling] of cases.entries()) {
      const logits = randomLogits(vocab, 2, seed + n);
      const s = resolved(sampling, vocab);
      const p = oracleDistribution(logits.raw(), s);
      const counts = new Int32Array(vocab);
      for (let i = 0; i < draws; i++) {
        const id = tokenOf(sampler, logits, input(sampling, vocab, { seed, outputTokens: i }));
        counts[id] = (counts[id] as number) + 1;
      }
      const message = `seed ${seed}, ${JSON.stringify(sampling)}`;
      for (let id = 0; id < vocab; id++) {
        if (p[id] === 0) expect(counts[id], `${message}: token ${id} is filtered out`).toBe(0);
      }
      const { statistic, limit } = chiSquare(counts, p, draws);
      expect(statistic, message).toBeLessThan(limit);
    }
  });

  it("keeps exactly the tokens that the oracle keeps", () => {
    const random = seededRandom(testSeed());
    for (let round = 0; round < 60; round++) {
      const vocab = random.int(2, 300);
      const spread = random.pick([0, 0.02, 1, 6, 30]);
      const logits = randomLogits(vocab, spread, random.int(0, 1e9));
      const sampling: SamplingParams = {
        temperature: random.pick([0.1, 0.7, 1, 3, 100]),
        topK: random.pick([0, 1, 2, 7, 50, 1000]),
        topP: random.pick([1, 0.999, 0.9, 0.51, 0.01]),
        minP: random.pick([0, 0.001, 0.1, 0.9, 1]),
      };
      const p = oracleDistribution(logits.raw(), resolved(sampling, vocab));
      const sampler = new Sampler(device, vocab);
      const seen = new Set<number>();
      for (let i = 0; i < 120; i++) {
        seen.add(tokenOf(sampler, logits, input(sampling, vocab, { outputTokens: i })));
      }
      const message = `seed ${random.seed}, round ${round}, vocab ${vocab}, spread ${spread}`;
      for (const id of seen) {
        expect(p[id], `${message}, ${JSON.stringify(sampling)}, token ${id}`).toBeGreaterThan(0);
      }
      for (const [id, probability] of p.entries()) {
        // 120 draws miss a token of probability 1/5 once in 4·10^11.
        if (probability > 0.2) expect(seen.has(id), `${message}: token ${id} lost`).toBe(true);
      }
    }
  });

  it("treats a row alike alone and among others", () => {
    const vocab = 64;
    const rows = 9;
    const random = seededRandom(testSeed());
    const logits = Tensor.from(
      Array.from({ length: rows * vocab }, () => random.normal() * 2),
      [rows, vocab],
      "f32",
    );
    const inputs = Array.from({ length: rows }, (_, row) =>
      input({ temperature: row % 3 === 0 ? 0 : 0.8, logprobs: row % 2 }, vocab, { row, seed: row }),
    );
    const sampler = new Sampler(device, vocab);
    const together = sampler.sample(logits, inputs);
    const alone = inputs.map((one) => sampler.sample(logits, [one])[0]);
    expect(together).toEqual(alone);
  });

  it("reports log-probabilities of the unchanged logits", () => {
    const vocab = 50;
    const logits = randomLogits(vocab, 3, 7);
    const expected = oracleLogprobs(logits.raw());
    const sampler = new Sampler(device, vocab);
    const best = Array.from(expected.keys()).sort(
      (a, b) => (expected[b] as number) - (expected[a] as number),
    );
    const banned = best[0] as number;
    const sampling = { temperature: 0.3, logprobs: 5, logitBias: { [banned]: -100 } };
    const [outcome] = sampler.sample(logits, [input(sampling, vocab)]);
    if (outcome === undefined || "problem" in outcome) throw new Error("no token");
    expect(outcome.tokenId).not.toBe(banned);
    expect(outcome.logprobs?.logprob).toBeCloseTo(expected[outcome.tokenId] as number, 5);
    expect(outcome.logprobs?.top.map(([id]) => id)).toEqual(best.slice(0, 5));
    for (const [id, logprob] of outcome.logprobs?.top ?? []) {
      expect(logprob).toBeCloseTo(expected[id] as number, 5);
    }
    const [score] = sampler.score(randomLogits(vocab, 3, 7), [{ row: 0, tokenId: 3, top: 0 }]);
    expect(score).toMatchObject({ logprob: expect.closeTo(expected[3] as number, 5), top: [] });
  });

  it("log-probabilities of all tokens sum to one", () => {
    const vocab = 20;
    const logits = randomLogits(vocab, 4, 11);
    const sampler = new Sampler(device, vocab);
    const scores = sampler.score(
      logits,
      Array.from({ length: vocab }, (_, tokenId) => ({ row: 0, tokenId, top: 0 })),
    );
    const total = scores.reduce(
      (sum, s) => sum + (typeof s === "string" ? Number.NaN : Math.exp(s.logprob)),
      0,
    );
    expect(total).toBeCloseTo(1, 6);
  });

  it("says what is wrong with logits that no token can be chosen from", () => {
    const sampler = new Sampler(device, 3);
    const logits = Tensor.from(
      [1, Number.NaN, 2, 1, Number.POSITIVE_INFINITY, 0, 3, 2, 1],
      [3, 3],
      "f32",
    );
    const inputs = [0, 1, 2].map((row) => input({}, 3, { row, sampling: resolved({}, 3) }));
    const outcomes = sampler.sample(logits, inputs);
    expect(outcomes[0]).toEqual({ problem: "contain NaN" });
    expect(outcomes[1]).toEqual({ problem: "have no finite maximum" });
    expect(outcomes[2]).toHaveProperty("tokenId");
  });
});
