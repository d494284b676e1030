import { describe, expect, it } from "vitest";
import type { SamplingParams } from "../src/api.ts";
import { applyProcessors } from "../src/processors.ts";
import { resolveRequest } from "../src/sampling-params.ts";

function apply(row: number[], sampling: SamplingParams, prompt: number[], output: number[]) {
  const limits = { vocabSize: row.length, maxModelLen: 100, eosTokenIds: [0] };
  const s = resolveRequest({ id: "t", promptTokenIds: prompt, sampling }, limits);
  const outputCounts = new Map<number, number>();
  for (const id of output) outputCounts.set(id, (outputCounts.get(id) ?? 0) + 1);
  const values = Float32Array.from(row);
  const history = { outputTokens: output.length, outputCounts, promptSet: new Set(prompt) };
  applyProcessors(values, s, history);
  return Array.from(values);
}

describe("applyProcessors", () => {
  it("repetition looks at prompt and output, and moves either sign away from being chosen", () => {
    expect(apply([4, -4, 4, -4, 4], { repetitionPenalty: 2 }, [0, 1], [2])).toEqual([
      2, -8, 2, -4, 4,
    ]);
  });

  it("presence and frequency look at the output only", () => {
    const sampling = { presencePenalty: 0.5, frequencyPenalty: 0.25 };
    expect(apply([1, 1, 1, 1], sampling, [0], [2, 2, 3])).toEqual([1, 1, 0, 0.25]);
  });

  it("applies bias before repetition, and repetition before the others", () => {
    const sampling = {
      logitBias: { 1: 3 },
      repetitionPenalty: 2,
      frequencyPenalty: 1,
      presencePenalty: 1,
    };
    // (1 + 3) / 2 − 1 − 1
    expect(apply([0, 1, 0], sampling, [2], [1])[1]).toBe(0);
  });

  it("bans every token that would stop the text before minTokens", () => {
    const sampling = { minTokens: 2, stopTokenIds: [2] };
    const never = Number.NEGATIVE_INFINITY;
    expect(apply([1, 1, 1], sampling, [1], [1])).toEqual([never, 1, never]);
    expect(apply([1, 1, 1], sampling, [1], [1, 1])).toEqual([1, 1, 1]);
    expect(apply([1, 1, 1], { ...sampling, ignoreEos: true }, [1], [])).toEqual([1, 1, never]);
  });
});
