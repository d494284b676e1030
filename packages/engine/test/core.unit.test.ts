import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import type { GenerateRequest, SamplingParams } from "../src/api.ts";
import { EngineOverloadedError, LogitsError } from "../src/errors.ts";
import { Collector, FAKE_VOCAB, FakeModel, fakeCore, request, runAll } from "./fake-model.ts";

function randomRequests(count: number, seed: number, longest = 300): GenerateRequest[] {
  const random = seededRandom(seed);
  const shared = Array.from({ length: 200 }, () => random.int(0, FAKE_VOCAB));
  return Array.from({ length: count }, (_, i) => {
    const own = Array.from({ length: random.int(1, 60) }, () => random.int(0, FAKE_VOCAB));
    const head = shared.slice(0, random.pick([0, 0, 64, 130, 200]));
    const sampling: SamplingParams = random.pick([
      { temperature: 0 },
      { temperature: 1, seed: i },
      { temperature: 0.7, topP: 0.9, seed: i, frequencyPenalty: 0.3, repetitionPenalty: 1.2 },
    ]);
    return request(`r${i}`, [...head, ...own].slice(0, longest - 64), {
      ...sampling,
      maxTokens: random.int(1, 64),
    });
  });
}

const alone = (requests: readonly GenerateRequest[]) =>
  requests.map((one) => runAll(fakeCore({ prefixCaching: false }), [one])[0]?.text);

describe("EngineCore", () => {
  it("gives every request the text it gets alone", () => {
    const seed = testSeed();
    const requests = randomRequests(40, seed);
    const core = fakeCore();
    const together = runAll(core, requests);
    expect(
      together.map((r) => r.text),
      `seed ${seed}`,
    ).toEqual(alone(requests));
    expect(core.board.snapshot().prefixCacheHitTokens).toBeGreaterThan(0);
    expect(core.blocks.used).toBe(0);
  });

  it("gives the same text when sequences are preempted", () => {
    const seed = testSeed() + 1;
    const random = seededRandom(seed);
    const requests = randomRequests(16, seed, 164).map(({ id, promptTokenIds, sampling }) =>
      request(id, promptTokenIds, { ...sampling, maxTokens: random.int(100, 200) }),
    );
    for (const prefixCaching of [true, false]) {
      const core = fakeCore({ numBlocks: 7, maxModelLen: 7 * 64, prefixCaching });
      const together = runAll(core, requests);
      expect(
        together.map((r) => r.text),
        `seed ${seed}`,
      ).toEqual(alone(requests));
      const stats = core.board.snapshot();
      expect(stats.preemptions).toBeGreaterThan(0);
      expect(core.blocks.used).toBe(0);
      expect(stats.generationTokens).toBe(
        together.reduce((n, r) => n + (r.finish?.usage.completionTokens ?? 0), 0),
      );
    }
  });

  it("does not depend on how prompts are cut in chunks", () => {
    const requests = randomRequests(12, testSeed() + 2);
    const texts = [16, 37, 4096].map((maxBatchedTokens) =>
      runAll(fakeCore({ maxBatchedTokens }), requests).map((r) => r.text),
    );
    expect(texts[1]).toEqual(texts[0]);
    expect(texts[2]).toEqual(texts[0]);
  });

  it("counts a prefix cache hit and gives the same text", () => {
    const core = fakeCore();
    const prompt = Array.from({ length: 150 }, (_, i) => i % FAKE_VOCAB);
    const one = request("a", prompt, { temperature: 0, maxTokens: 20 });
    const [first] = runAll(core, [one]);
    const [second] = runAll(core, [one]);
    expect(second?.text).toBe(first?.text);
    expect(first?.finish?.usage).toEqual({
      promptTokens: 150,
      completionTokens: 20,
      cachedTokens: 0,
    });
    expect(second?.finish?.usage.cachedTokens).toBe(128);
    const stats = core.board.snapshot();
    expect([stats.prefixCacheQueriedTokens, stats.prefixCacheHitTokens]).toEqual([300, 128]);
    // What was generated is found again too: prompt and answer together are 169 computed tokens.
    const [third] = runAll(core, [request("b", [...prompt, ...(first?.tokenIds ?? [])], {})]);
    expect(third?.finish?.usage.cachedTokens).toBe(128);
  });

  it("computes a prompt once for many requests that come together", () => {
    const prompt = Array.from({ length: 150 }, (_, i) => (i * 3) % FAKE_VOCAB);
    const model = new FakeModel();
    const requests = Array.from({ length: 8 }, (_, seed) =>
      request(`n${seed}`, prompt, { seed, maxTokens: 5 }),
    );
    const results = runAll(fakeCore({ maxBatchedTokens: 100 }, model), requests);
    // 150 once, then each of the others what lies behind the last full block; 4 decodes for all.
    expect(model.steps.reduce((sum, step) => sum + step.tokens, 0)).toBe(150 + 7 * 22 + 8 * 4);
    expect(results.map((r) => r.finish?.usage.cachedTokens)).toEqual([0, ...Array(7).fill(128)]);
    expect(results.map((r) => r.text)).toEqual(alone(requests));
  });

  it("gives the same text for a seed, and another for another", () => {
    const prompt = [1, 2, 3];
    const seeded = (id: string, seed: number) =>
      request(id, prompt, { temperature: 1, seed, maxTokens: 30 });
    const [a, b, c] = runAll(fakeCore(), [seeded("a", 5), seeded("b", 5), seeded("c", 6)]);
    expect(a?.text).toBe(b?.text);
    expect(a?.text).not.toBe(c?.text);
    const [d, e] = runAll(fakeCore(), [
      request("d", prompt, { maxTokens: 30 }),
      request("e", prompt, { maxTokens: 30 }),
    ]);
    expect(d?.text).not.toBe(e?.text);
  });

  it("stops at strings, tokens and lengths, and says which", () => {
    const prompt = [4, 5, 6];
    const greedy = { temperature: 0, maxTokens: 40 };
    const [plain] = runAll(fakeCore(), [request("p", prompt, greedy)]);
    const text = plain?.text ?? "";
    expect(plain?.finish).toMatchObject({ reason: "length", stopReason: null });
    const stop = text.slice(10, 13);
    const at = text.indexOf(stop);
    const tokens = plain?.tokenIds ?? [];
    const stopToken = tokens[7] as number;
    const before = text.slice(0, tokens.indexOf(stopToken));
    const runs = runAll(fakeCore({ eosTokenIds: [] }), [
      request("a", prompt, { ...greedy, stop: [stop, "nowhere"] }),
      request("b", prompt, { ...greedy, stopTokenIds: [stopToken] }),
      request("c", prompt, { ...greedy, stop: [text.slice(-2)], maxTokens: 39 }),
    ]);
    expect(runs[0]).toMatchObject({
      text: text.slice(0, at),
      finish: { reason: "stop", stopReason: stop, usage: { completionTokens: at + 3 } },
    });
    expect(runs[1]).toMatchObject({
      text: before,
      finish: {
        reason: "stop",
        stopReason: stopToken,
        usage: { completionTokens: before.length + 1 },
      },
    });
    // Half of a stop string at the end is text after all.
    expect(runs[2]).toMatchObject({ text: text.slice(0, 39), finish: { reason: "length" } });
    const eos = runAll(fakeCore({ eosTokenIds: [stopToken] }), [
      request("d", prompt, greedy),
      request("e", prompt, { ...greedy, ignoreEos: true }),
      request("f", prompt, { ...greedy, minTokens: 20 }),
    ]);
    expect(eos[0]).toMatchObject({ text: before, finish: { reason: "stop", stopReason: null } });
    expect(eos[1]?.text).toBe(text);
    expect(eos[2]?.finish?.usage.completionTokens).toBeGreaterThan(20);
    expect(eos[2]?.tokenIds.slice(0, 20)).not.toContain(stopToken);
  });

  it("aligns log-probabilities with tokens, and reports the prompt's", () => {
    const prompt = Array.from({ length: 100 }, (_, i) => (i * 7) % FAKE_VOCAB);
    const core = fakeCore({ maxBatchedTokens: 16 });
    runAll(core, [request("warm", prompt, { maxTokens: 1 })]);
    const [r, lone] = runAll(core, [
      request("a", prompt, { temperature: 0, maxTokens: 5, logprobs: 3, promptLogprobs: true }),
      request("b", [3], { temperature: 0, maxTokens: 1, promptLogprobs: true }),
    ]);
    const [first] = r?.events ?? [];
    if (first?.type !== "prompt") throw new Error("the prompt's event must come first");
    expect(first.logprobs.map((entry) => entry?.tokenId)).toEqual([undefined, ...prompt.slice(1)]);
    expect(first.logprobs[1]?.top).toHaveLength(3);
    expect(lone?.events[0]).toEqual({ type: "prompt", logprobs: [null] });
    for (const event of r?.events ?? []) {
      if (event.type !== "delta") continue;
      expect(event.logprobs?.map((l) => l.tokenId)).toEqual(event.tokenIds);
      expect(event.logprobs?.[0]?.top[0]?.tokenId).toBe(event.tokenIds[0]);
      expect(event.logprobs?.[0]?.text).toBe(event.text);
    }
    // The same numbers as by generating: the model is deterministic, so scores must agree.
    const [again] = runAll(core, [
      request("c", [...prompt, ...(r?.tokenIds ?? [])], {
        temperature: 0,
        maxTokens: 1,
        promptLogprobs: true,
      }),
    ]);
    const scored = again?.events[0];
    if (scored?.type !== "prompt") throw new Error("no prompt event");
    const generated = (r?.events ?? []).flatMap((e) => (e.type === "delta" ? e.logprobs : []));
    expect(scored.logprobs.slice(100).map((l) => l?.logprob)).toEqual(
      generated.map((l) => l?.logprob),
    );
  });

  it("frees the blocks of an aborted request and ends it with what it has", () => {
    const core = fakeCore({ maxSequences: 1 });
    const collector = new Collector();
    core.add(1, request("a", [1, 2], { maxTokens: 500, temperature: 0 }));
    core.add(2, request("b", [1, 2], { maxTokens: 500 }));
    for (let i = 0; i < 5; i++) collector.take(core.step());
    expect(core.blocks.used).toBe(1);
    core.abort(1);
    core.abort(2);
    core.abort(77);
    expect(core.blocks.used).toBe(0);
    collector.take(core.step());
    expect(core.hasWork).toBe(false);
    expect(collector.result(1)).toMatchObject({
      finish: { reason: "abort", usage: { completionTokens: 5 } },
    });
    expect(collector.result(2)).toMatchObject({
      text: "",
      finish: { reason: "abort", usage: { completionTokens: 0 } },
    });
    expect(core.board.snapshot()).toMatchObject({ running: 0, waiting: 0, finished: { abort: 2 } });
  });

  it("fails only the request whose logits are not numbers", () => {
    const model = new FakeModel();
    model.poison = (context, row) => {
      if (context[0] === 9 && context.length === 6) row[3] = Number.NaN;
    };
    const core = fakeCore({}, model);
    const [bad, good] = runAll(core, [
      request("bad", [9, 1, 1], { temperature: 0, maxTokens: 10 }),
      request("good", [8, 1, 1], { temperature: 0, maxTokens: 10 }),
    ]);
    expect(bad?.error).toBeInstanceOf(LogitsError);
    expect(bad?.error?.message).toMatch(/'bad'.*after token 5 contain NaN/);
    expect(bad?.tokenIds).toHaveLength(3);
    expect(good?.finish?.reason).toBe("length");
    expect(core.board.snapshot().failedRequests).toBe(1);
    expect(core.blocks.used).toBe(0);
  });

  it("refuses what is too much", () => {
    const core = fakeCore({ maxSequences: 1, maxQueue: 1 });
    core.add(0, request("a", [1], {}));
    core.add(1, request("b", [1], {}));
    expect(() => core.add(2, request("c", [1], {}))).toThrow(EngineOverloadedError);
  });

  it("counts what the server shows", () => {
    const core = fakeCore();
    runAll(core, randomRequests(6, 3));
    const { histograms, ...stats } = core.board.snapshot();
    expect(histograms.timeToFirstTokenSeconds.count).toBe(6);
    expect(histograms.e2eRequestLatencySeconds.count).toBe(6);
    expect(histograms.requestQueueTimeSeconds.count).toBe(6);
    expect(histograms.interTokenLatencySeconds.count).toBe(stats.generationTokens - 6);
    expect(histograms.iterationTokens.count).toBe(stats.steps);
    expect(histograms.requestPromptTokens.sum).toBe(stats.promptTokens);
    expect(histograms.requestGenerationTokens.sum).toBe(stats.generationTokens);
    expect(stats.finished).toEqual({ stop: 0, length: 6, abort: 0 });
  });
});
