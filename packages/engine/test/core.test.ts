// The engine over the real demo model, stepped in this thread.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { demoModelDir } from "@open-infra/demo-model";
import { seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { GenerateRequest } from "../src/api.ts";
import { type OpenedEngine, openEngine } from "../src/open.ts";
import { checkOptions, type EngineOptions } from "../src/options.ts";
import { request, runAll } from "./fake-model.ts";

interface GoldenCase {
  readonly text: string;
  readonly prompt: readonly number[];
  readonly token_logprobs: readonly number[];
  readonly greedy: readonly number[];
  readonly greedy_text: string;
}

const golden = JSON.parse(readFileSync(join(demoModelDir, "golden.json"), "utf8")) as {
  readonly cases: readonly GoldenCase[];
};

const open = (more: Partial<EngineOptions> = {}): Promise<OpenedEngine> =>
  openEngine(checkOptions({ modelDir: demoModelDir, dtype: "f32", ...more }));

let engine: OpenedEngine;
beforeAll(async () => {
  engine = await open();
});
afterAll(() => engine?.[Symbol.dispose]());

/** Prompts of all lengths, some with a beginning in common; half greedy, half seeded. */
function mixedRequests(count: number, maxTokens: number): GenerateRequest[] {
  const random = seededRandom(testSeed());
  const long = golden.cases.flatMap((c) => [...c.prompt, ...c.greedy]);
  return Array.from({ length: count }, (_, i) => {
    const start = random.pick([0, 0, random.int(0, 100)]);
    const prompt = long.slice(start, start + random.int(1, 100));
    const sampling = i % 2 === 0 ? { temperature: 0 } : { temperature: 0.8, topP: 0.95, seed: i };
    return request(`r${i}`, prompt, { ...sampling, maxTokens, ignoreEos: true });
  });
}

describe("the demo model in the engine", () => {
  it("continues the golden prompts greedily as the reference does", () => {
    const results = runAll(
      engine.core,
      golden.cases.map((c, i) =>
        request(`g${i}`, c.prompt, { temperature: 0, maxTokens: c.greedy.length }),
      ),
    );
    expect(results.map((r) => r.tokenIds)).toEqual(golden.cases.map((c) => c.greedy));
    expect(results.map((r) => r.text)).toEqual(golden.cases.map((c) => c.greedy_text));
  });

  it("reports the golden log-probabilities of the prompts", () => {
    const results = runAll(
      engine.core,
      golden.cases.map((c, i) =>
        request(`l${i}`, c.prompt, { maxTokens: 1, promptLogprobs: true }),
      ),
    );
    for (const [i, { events }] of results.entries()) {
      const [first] = events;
      if (first?.type !== "prompt") throw new Error("the prompt's event must come first");
      const got = first.logprobs.slice(1).map((entry) => entry?.logprob ?? Number.NaN);
      const want = golden.cases[i]?.token_logprobs ?? [];
      expect(got.length).toBe(want.length);
      for (const [t, logprob] of got.entries()) expect(logprob).toBeCloseTo(want[t] as number, 3);
    }
  });

  it("gives 64 concurrent requests the text they get alone", () => {
    const requests = mixedRequests(64, 12);
    const together = runAll(engine.core, requests).map((r) => r.text);
    engine.core.blocks.clearCache();
    const alone = requests.map((one) => {
      const [result] = runAll(engine.core, [one]);
      engine.core.blocks.clearCache();
      return result?.text;
    });
    expect(together, `seed ${testSeed()}`).toEqual(alone);
    expect(engine.core.blocks.used).toBe(0);
  });

  it("finds the prefix of an earlier request, and says the same with it", () => {
    engine.core.blocks.clearCache();
    const prompt = mixedRequests(1, 1).flatMap(() =>
      golden.cases.flatMap((c) => [...c.prompt, ...c.greedy]).slice(0, 200),
    );
    const one = request("p", prompt, { temperature: 0, maxTokens: 24, logprobs: 2 });
    const [cold] = runAll(engine.core, [one]);
    const [warm] = runAll(engine.core, [one]);
    expect(cold?.finish?.usage.cachedTokens).toBe(0);
    expect(warm?.finish?.usage.cachedTokens).toBe(192);
    // To the bit: also the log-probabilities, not only the text.
    const deltas = (r: typeof warm) => r?.events.filter((e) => e.type === "delta");
    expect(deltas(warm)).toEqual(deltas(cold));
  });

  it("says the same when sequences are preempted", async () => {
    using tight = await open({ numBlocks: 8, maxBatchedTokens: 64 });
    const requests = mixedRequests(6, 130);
    const squeezed = runAll(tight.core, requests).map((r) => r.text);
    expect(tight.core.board.snapshot().preemptions).toBeGreaterThan(0);
    expect(tight.core.blocks.used).toBe(0);
    expect(squeezed).toEqual(runAll(engine.core, requests).map((r) => r.text));
  });

  it("stops at a string split over tokens, wherever it is cut", () => {
    const c = golden.cases[0] as GoldenCase;
    const { greedy_text: text } = c;
    // From the middle of one word to the middle of the next.
    const stop = text.slice(30, 37);
    const [result] = runAll(engine.core, [
      request("s", c.prompt, { temperature: 0, maxTokens: 48, stop: [stop] }),
    ]);
    expect(result?.text).toBe(text.slice(0, text.indexOf(stop)));
    expect(result?.finish).toMatchObject({ reason: "stop", stopReason: stop });
  });

  it("never cuts a character in two", () => {
    const bytes = engine.tokenizer.encode("🦀é漢", { addSpecialTokens: false });
    const results = runAll(
      engine.core,
      Array.from({ length: 8 }, (_, i) =>
        request(`u${i}`, [0, ...bytes], { temperature: 3, seed: i, maxTokens: 40 }),
      ),
    );
    for (const { text, tokenIds, events } of results) {
      for (const event of events) {
        if (event.type === "delta") expect(event.text.isWellFormed()).toBe(true);
      }
      expect(text).toBe(engine.tokenizer.decode(tokenIds));
    }
  });
});
