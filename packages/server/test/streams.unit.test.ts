// Answers in OpenAI's shapes, whole and streamed, over an engine that says what the test wants.

import { EngineOverloadedError, EngineStoppedError, type GenerateEvent } from "@open-infra/engine";
import { describe, expect, it } from "vitest";
import { demoTokenizer, errorOf, jsonOf, readSse, testApp } from "./helpers/http.ts";
import { endless, finish, logprob, type Script, says, silence } from "./helpers/scripted-engine.ts";

const chat = "/v1/chat/completions";
const completions = "/v1/completions";
const chatBody = { model: "demo", messages: [{ role: "user", content: "def f(x):" }] };
const body = { model: "demo", prompt: "def f(x):" };

describe("chat completions", () => {
  it("answers in one piece", async () => {
    const { post } = await testApp(says(["a", "b"], { cachedTokens: 2, reason: "length" }));
    const response = await post(chat, chatBody, { headers: { "x-request-id": "mine-1" } });
    expect(response.headers.get("x-request-id")).toBe("mine-1");
    const answer = await response.json();
    const promptTokens = demoTokenizer().encode("def f(x):").length;
    expect(answer).toEqual({
      id: expect.stringMatching(/^chatcmpl-[0-9a-f]{32}$/),
      object: "chat.completion",
      created: expect.any(Number),
      model: "demo",
      system_fingerprint: expect.stringMatching(/^fp_[0-9a-f]{10}$/),
      choices: [
        {
          index: 0,
          message: { role: "assistant", content: "ab", refusal: null },
          logprobs: null,
          finish_reason: "length",
          stop_reason: null,
        },
      ],
      usage: {
        prompt_tokens: promptTokens,
        completion_tokens: 2,
        total_tokens: promptTokens + 2,
        prompt_tokens_details: { cached_tokens: 2 },
      },
    });
  });

  it("streams role, content, the end, usage and [DONE], in this order", async () => {
    const { post } = await testApp(says(["a", "", "b"]));
    const options = { stream: true, stream_options: { include_usage: true } };
    const response = await post(chat, { ...chatBody, ...options });
    expect(response.headers.get("content-type")).toBe("text/event-stream; charset=utf-8");
    expect(response.headers.get("cache-control")).toBe("no-cache");
    const { chunks, done } = readSse(await response.text());
    expect(done).toBe(true);
    expect(chunks.slice(0, -1).map(({ choices }) => choices[0])).toMatchObject([
      { index: 0, delta: { role: "assistant", content: "" }, finish_reason: null },
      { index: 0, delta: { content: "a" }, finish_reason: null },
      { index: 0, delta: { content: "b" }, finish_reason: null },
      { index: 0, delta: {}, finish_reason: "stop" },
    ]);
    expect(chunks.map(({ usage }) => usage === null)).toEqual([true, true, true, true, false]);
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: 3 } });
    expect(new Set(chunks.map(({ id }) => id)).size).toBe(1);
    expect(new Set(chunks.map(({ object }) => object))).toEqual(new Set(["chat.completion.chunk"]));
  });

  it("leaves usage out unless it was asked for", async () => {
    const { post } = await testApp();
    const { chunks } = readSse(await (await post(chat, { ...chatBody, stream: true })).text());
    expect(chunks.some((chunk) => "usage" in chunk)).toBe(false);
    expect(chunks.every(({ choices }) => (choices as unknown[]).length === 1)).toBe(true);
  });

  it("gives log-probabilities, streamed and whole", async () => {
    const { post, engine } = await testApp(says(["a", ""]));
    const fields = { logprobs: true, top_logprobs: 2 };
    const whole = await jsonOf(post(chat, { ...chatBody, ...fields }));
    const token = (text: string, value: number) => ({
      token: text,
      logprob: value,
      bytes: expect.any(Array),
    });
    const content = ["a", ""].map((text) => ({
      ...token(text, -0.5),
      top_logprobs: [token(text, -0.5), token("other", -1.5)],
    }));
    expect(whole.choices[0]?.logprobs).toEqual({ content, refusal: null });
    expect(engine.requests[0]?.sampling.logprobs).toBe(2);
    const streamed = await (await post(chat, { ...chatBody, ...fields, stream: true })).text();
    const parts = readSse(streamed).chunks.flatMap((chunk) => {
      const [choice] = chunk.choices;
      return choice?.logprobs?.content ?? [];
    });
    // A token without text yet still has its entry.
    expect(parts).toEqual(content);
  });

  it("multiplexes n choices with different seeds", async () => {
    const script: Script = async function* (request) {
      const texts = request.id.endsWith("-0") ? ["a", "b"] : ["c", "d", "e"];
      yield* says(texts)(request, new AbortController().signal);
    };
    const { post, engine } = await testApp(script);
    const response = await post(chat, {
      ...chatBody,
      n: 2,
      seed: 7,
      stream: true,
      stream_options: { include_usage: true },
    });
    const { chunks } = readSse(await response.text());
    const texts = ["", ""];
    const ends: number[] = [];
    const roles: number[] = [];
    for (const { choices } of chunks) {
      for (const { index, delta, finish_reason } of choices) {
        texts[index] += delta.content ?? "";
        if (delta.role !== undefined) roles.push(index);
        if (finish_reason !== null) ends.push(index);
      }
    }
    expect(texts).toEqual(["ab", "cde"]);
    expect(roles).toEqual([0, 1]);
    expect(ends.toSorted()).toEqual([0, 1]);
    expect(engine.requests.map((request) => request.sampling.seed)).toEqual([7, 8]);
    expect(new Set(engine.requests.map((request) => request.id)).size).toBe(2);
    const prompt = engine.requests[0]?.promptTokenIds.length ?? 0;
    expect(chunks.at(-1)).toMatchObject({ usage: { prompt_tokens: prompt, completion_tokens: 5 } });
  });

  it("passes roles, parts, tools and sampling on", async () => {
    const { post, engine } = await testApp();
    const messages = [
      { role: "developer", content: "be brief" },
      {
        role: "user",
        content: [
          { type: "text", text: "a" },
          { type: "text", text: "b" },
        ],
      },
      {
        role: "assistant",
        content: null,
        tool_calls: [{ id: "1", type: "function", function: { name: "f", arguments: "{}" } }],
      },
      { role: "tool", tool_call_id: "1", content: "42" },
    ];
    const response = await post(chat, {
      model: "demo",
      messages,
      tools: [{ type: "function", function: { name: "f", parameters: { type: "object" } } }],
      tool_choice: "auto",
      temperature: 0.5,
      top_k: 5,
      min_p: 0.1,
      repetition_penalty: 1.1,
      presence_penalty: 1,
      frequency_penalty: -1,
      stop: "END",
      stop_token_ids: [7],
      ignore_eos: true,
      min_tokens: 2,
      max_completion_tokens: 9,
      logit_bias: { "5": -100 },
      chat_template_kwargs: { enable_thinking: true },
    });
    expect(response.status).toBe(200);
    expect(engine.requests[0]?.sampling).toEqual({
      temperature: 0.5,
      topP: 0.95,
      topK: 5,
      minP: 0.1,
      repetitionPenalty: 1.1,
      presencePenalty: 1,
      frequencyPenalty: -1,
      stop: ["END"],
      stopTokenIds: [7],
      ignoreEos: true,
      minTokens: 2,
      maxTokens: 9,
      logitBias: { "5": -100 },
    });
    // The demo's template joins the contents.
    const prompt = demoTokenizer().decode(engine.requests[0]?.promptTokenIds ?? []);
    expect(prompt).toContain("be brief\nab\n");
    expect(prompt).toContain("42");
    expect(engine.requests[0]?.promptTokenIds.filter((id) => id === 0)).toHaveLength(1);
  });

  it("without max_tokens an answer may fill the context", async () => {
    const { post, engine } = await testApp();
    await post(chat, chatBody);
    const { promptTokenIds, sampling } = engine.requests[0] ?? {};
    expect(sampling?.maxTokens).toBe(1024 - (promptTokenIds?.length ?? 0));
  });
});

describe("completions", () => {
  it("answers several prompts, text and tokens, n times each", async () => {
    const script: Script = (request, signal) =>
      says([`<${request.id.split("-").at(-1)}>`])(request, signal);
    const { post, engine } = await testApp(script);
    const ids = [5, 6, 7];
    const answer = await jsonOf(post(completions, { ...body, prompt: ["ab", ids], n: 2 }));
    expect(answer.object).toBe("text_completion");
    expect(answer.choices.map((choice: { text: string }) => choice.text)).toEqual([
      "<0>",
      "<1>",
      "<2>",
      "<3>",
    ]);
    expect(engine.requests[2]?.promptTokenIds).toEqual(ids);
    const textTokens = demoTokenizer().encode("ab").length;
    expect(answer.usage).toMatchObject({ prompt_tokens: textTokens + 3, completion_tokens: 4 });
  });

  const tokens = demoTokenizer().encode("né");
  const scoring: Script = async function* (request) {
    const logprobs = request.promptTokenIds.map((tokenId, i) =>
      i === 0 ? null : { ...logprob(`t${tokenId}`), tokenId },
    );
    if (request.sampling.promptLogprobs) yield { type: "prompt", logprobs } as GenerateEvent;
    yield {
      type: "delta",
      text: "Z",
      tokenIds: [59],
      logprobs: [{ ...logprob("Z"), tokenId: 59 }],
    };
    yield finish(request, 1, "length");
  };

  it("echoes the prompt with its log-probabilities; offsets point into the text", async () => {
    const { post, engine } = await testApp(scoring);
    const fields = { prompt: "né", echo: true, logprobs: 1 };
    const answer = await jsonOf(post(completions, { ...body, ...fields }));
    const { text, logprobs } = answer.choices[0] ?? {};
    expect(text).toBe("néZ");
    expect(engine.requests[0]?.sampling).toMatchObject({ logprobs: 1, promptLogprobs: true });
    expect(logprobs?.tokens).toHaveLength(tokens.length + 1);
    expect(logprobs?.token_logprobs).toEqual([null, ...tokens.map(() => -0.5)]);
    expect(logprobs?.top_logprobs[0]).toBeNull();
    expect(logprobs?.top_logprobs.at(-1)).toEqual({ Z: -0.5, other: -1.5 });
    // The beginning-of-text token is not part of the text; é is two bytes and one character.
    expect(logprobs?.text_offset[0]).toBe(0);
    expect(logprobs?.text_offset[1]).toBe(0);
    expect(logprobs?.text_offset.at(-1)).toBe(2);
    const stream = await (await post(completions, { ...body, ...fields, stream: true })).text();
    const chunks = readSse(stream).chunks.flatMap((c) => c.choices);
    expect(chunks.map((c) => c.text)).toEqual(["né", "Z", ""]);
    expect(chunks.flatMap((c) => c.logprobs?.tokens ?? [])).toEqual(logprobs?.tokens);
  });

  it("scores a prompt alone with max_tokens 0", async () => {
    const { post } = await testApp(scoring);
    const fields = { prompt: "né", echo: true, logprobs: 0, max_tokens: 0 };
    const answer = await jsonOf(post(completions, { ...body, ...fields }));
    expect(answer.choices[0]?.text).toBe("né");
    expect(answer.choices[0]?.logprobs?.tokens).toHaveLength(tokens.length);
    expect(answer.usage).toMatchObject({ completion_tokens: 0 });
  });

  it("echoes without log-probabilities, token prompts too", async () => {
    const { post } = await testApp(says(["!"]));
    const answer = await jsonOf(post(completions, { ...body, prompt: tokens, echo: true }));
    expect(answer.choices[0]).toMatchObject({ text: "né!", logprobs: null });
  });
});

describe("tokenize and detokenize", () => {
  it("answers in vLLM's shapes", async () => {
    const { post } = await testApp();
    const tokenizer = demoTokenizer();
    const tokens = tokenizer.encode("def f");
    const plain = await jsonOf(post("/tokenize", { model: "demo", prompt: "def f" }));
    expect(plain).toEqual({ count: tokens.length, max_model_len: 1024, tokens, token_strs: null });
    const bare = { prompt: "def f", add_special_tokens: false, return_token_strs: true };
    const without = await jsonOf<{ tokens: number[]; token_strs: string[] }>(
      post("/tokenize", bare),
    );
    expect(without.tokens).toEqual(tokens.slice(1));
    expect(without.token_strs.join("")).toBe("def f");
    const chatted = await jsonOf<{ tokens: number[]; token_strs: string[] }>(
      post("/tokenize", { messages: chatBody.messages }),
    );
    expect(chatted.tokens).toEqual(tokenizer.encode("def f(x):"));
    const text = await jsonOf(post("/detokenize", { tokens: without.tokens }));
    expect(text).toEqual({ prompt: "def f" });
    expect((await post("/tokenize", { model: "other", prompt: "x" })).status).toBe(404);
  });
});

describe("failures of the engine", () => {
  const overloaded: Script = () => {
    throw new EngineOverloadedError(320, 320, 7);
  };

  it.each([true, false])("a full queue is 429 with Retry-After (stream: %s)", async (stream) => {
    const { post } = await testApp(overloaded);
    const response = await post(chat, { ...chatBody, stream });
    expect(response.headers.get("retry-after")).toBe("7");
    expect(await errorOf(response, 429)).toMatchObject({
      code: "queue_full",
      type: "rate_limit_error",
    });
  });

  it("one refused choice of many ends the others", async () => {
    let calls = 0;
    const { post, engine } = await testApp((request, signal) => {
      calls++;
      return calls === 3 ? overloaded(request, signal) : endless(request, signal);
    });
    await errorOf(await post(completions, { ...body, n: 3 }), 429);
    await expect.poll(() => engine.running).toBe(0);
    expect(engine.aborted).toBe(3);
  });

  it("an unexpected error is a bare 500", async () => {
    const { post } = await testApp(() => {
      throw new TypeError("secret at /srv/someone/file.ts:12");
    });
    for (const stream of [true, false]) {
      const error = await errorOf(await post(chat, { ...chatBody, stream }), 500);
      expect(error.message).not.toContain("secret");
    }
  });

  it("an error after the start is an event, and the stream is not [DONE]", async () => {
    const { post } = await testApp(async function* () {
      yield { type: "delta", text: "a", tokenIds: [1] };
      throw new Error("broken");
    });
    const response = await post(chat, { ...chatBody, stream: true });
    expect(response.status).toBe(200);
    const { chunks, done } = readSse(await response.text());
    expect(done).toBe(false);
    expect(chunks.at(-1)).toEqual({
      error: {
        message: "the server failed at this request; its log says why",
        type: "server_error",
        param: null,
        code: "internal_error",
      },
    });
  });

  it("an engine that ends a request by itself is 503, not an empty answer", async () => {
    const { post } = await testApp(says(["a"], { reason: "abort" }));
    expect((await errorOf(await post(chat, chatBody), 503)).code).toBe("engine_stopped");
  });

  it("an engine that stops under a request is 503 with Retry-After", async () => {
    const { post } = await testApp(() => {
      throw new EngineStoppedError("the engine was closed");
    });
    const response = await post(chat, { ...chatBody, stream: true });
    expect(response.headers.get("retry-after")).toBe("60");
    expect((await errorOf(response, 503)).code).toBe("engine_stopped");
  });

  it("a failed engine is 503 everywhere", async () => {
    const { post, fetch, engine } = await testApp();
    engine.fail(new Error("worker died"));
    await new Promise(setImmediate);
    const refused = await post(chat, chatBody);
    expect(refused.headers.get("retry-after")).toBe("60");
    expect((await errorOf(refused, 503)).code).toBe("engine_stopped");
    const health = await fetch("/health");
    expect(health.status).toBe(503);
    expect(await health.json()).toEqual({ status: "failed" });
  });
});

describe("a stream's silence and its reader", () => {
  it("sends comments while nothing happens", async () => {
    const { post } = await testApp(
      async function* (request) {
        await new Promise((resolve) => setTimeout(resolve, 100));
        yield { type: "delta", text: "a", tokenIds: [1] };
        yield finish(request, 1);
      },
      { keepAliveMs: 15 },
    );
    const { comments, chunks, done } = readSse(
      await (await post(chat, { ...chatBody, stream: true })).text(),
    );
    expect(comments).toBeGreaterThanOrEqual(2);
    expect(chunks).toHaveLength(3);
    expect(done).toBe(true);
  });

  it("a reader that cancels ends the request, also while it waits", async () => {
    for (const script of [endless, silence]) {
      const { post, engine } = await testApp(script, { keepAliveMs: 5 });
      const response = await post(chat, { ...chatBody, stream: true, n: 20 });
      const reader = response.body?.getReader();
      await reader?.read();
      expect(engine.running).toBe(20);
      await reader?.cancel();
      await expect.poll(() => engine.running).toBe(0);
      expect(engine.aborted).toBe(20);
    }
  });

  it("takes from the engine only what is read", async () => {
    let made = 0;
    const { post } = await testApp(async function* (request) {
      for (; made < 1000; made++) yield { type: "delta", text: "x", tokenIds: [1] };
      yield finish(request, 1000);
    });
    const response = await post(chat, { ...chatBody, stream: true });
    const reader = response.body?.getReader();
    for (let i = 0; i < 10; i++) await reader?.read();
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(made).toBeLessThan(20);
    await reader?.cancel();
  });

  it("a client's signal ends a request that does not stream", async () => {
    const { post, engine } = await testApp(silence);
    const controller = new AbortController();
    const pending = post(chat, chatBody, { signal: controller.signal });
    await expect.poll(() => engine.running).toBe(1);
    controller.abort();
    expect((await pending).status).toBe(499);
    await expect.poll(() => engine.running).toBe(0);
  });
});
