import { describe, expect, it } from "vitest";
import type { SamplingParams } from "../src/api.ts";
import { RequestError } from "../src/errors.ts";
import { resolveRequest } from "../src/sampling-params.ts";

const limits = { vocabSize: 100, maxModelLen: 32, eosTokenIds: [1] };
const resolve = (sampling: SamplingParams, promptTokenIds: number[] = [5, 6]) =>
  resolveRequest({ id: "r", promptTokenIds, sampling }, limits);

describe("resolveRequest", () => {
  it("fills in defaults", () => {
    const s = resolve({});
    expect(s).toMatchObject({ greedy: false, temperature: 1, topK: 0, topP: 1, minP: 0 });
    expect(s.maxTokens).toBe(30);
    expect([...s.stopTokenIds]).toEqual([1]);
    expect(resolve({ temperature: 0 }).greedy).toBe(true);
    expect(resolve({ topK: -1 }).topK).toBe(0);
    expect([...resolve({ ignoreEos: true, stopTokenIds: [9] }).stopTokenIds]).toEqual([9]);
  });

  it.each<[string, SamplingParams]>([
    ["sampling.temperature", { temperature: -1 }],
    ["sampling.temperature", { temperature: Number.NaN }],
    ["sampling.temperature", { temperature: "hot" as unknown as number }],
    ["sampling.topP", { topP: 0 }],
    ["sampling.topP", { topP: 1.01 }],
    ["sampling.topK", { topK: -2 }],
    ["sampling.topK", { topK: 1.5 }],
    ["sampling.minP", { minP: 2 }],
    ["sampling.presencePenalty", { presencePenalty: 3 }],
    ["sampling.frequencyPenalty", { frequencyPenalty: -3 }],
    ["sampling.repetitionPenalty", { repetitionPenalty: 0 }],
    ["sampling.maxTokens", { maxTokens: 0 }],
    ["sampling.maxTokens", { maxTokens: -5 }],
    ["sampling.maxTokens", { maxTokens: 31 }],
    ["sampling.minTokens", { minTokens: 4, maxTokens: 3 }],
    ["sampling.logprobs", { logprobs: 21 }],
    ["sampling.seed", { seed: 0.5 }],
    ["sampling.stop", { stop: Array.from({ length: 65 }, () => "x") }],
    ["sampling.stop[1]", { stop: ["x", ""] }],
    ["sampling.stopTokenIds[0]", { stopTokenIds: [100] }],
    ["sampling.logitBias", { logitBias: { 100: 1 } }],
    ["sampling.logitBias[3]", { logitBias: { 3: 101 } }],
  ])("refuses %s of %j", (parameter, sampling) => {
    expect(() => resolve(sampling)).toThrow(RequestError);
    expect(() => resolve(sampling)).toThrow(expect.objectContaining({ parameter }));
  });

  it("refuses prompts that are empty, too long, or of unknown tokens, with the numbers", () => {
    expect(() => resolve({}, [])).toThrow(/promptTokenIds is empty/);
    expect(() => resolve({}, Array(32).fill(5))).toThrow(/32 tokens; expected at most 31/);
    expect(() => resolve({}, [5, 100])).toThrow(/promptTokenIds\[1\] is 100/);
    expect(() => resolve({}, [5, -1])).toThrow(RequestError);
    expect(() => resolve({ maxTokens: 31 })).toThrow(/prompt of 2 tokens; expected at most 30/);
  });
});
