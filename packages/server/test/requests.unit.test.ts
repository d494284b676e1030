// Requests that are wrong in every way a client can think of: each gets OpenAI's error shape, the
// right status and the name of the field, and none reaches the engine.

import { describe, expect, it } from "vitest";
import { errorOf, testApp } from "./helpers/http.ts";

const chat = "/v1/chat/completions";
const completions = "/v1/completions";
const user = [{ role: "user", content: "hi" }];

describe("the body", () => {
  it.each([
    ["", "invalid_json"],
    ["{", "invalid_json"],
    ['{"model": "demo", "prompt": NaN}', "invalid_json"],
    ["[1,2", "invalid_json"],
    ["null", null],
    ["[]", null],
    ['"demo"', null],
  ])("%j is refused", async (text, code) => {
    const { post, engine } = await testApp();
    for (const path of [chat, completions, "/tokenize", "/detokenize"]) {
      expect((await errorOf(await post(path, text), 400)).code).toBe(code);
    }
    expect(engine.requests).toEqual([]);
  });

  it("must be UTF-8", async () => {
    const { post } = await testApp();
    const body = Buffer.concat([Buffer.from('{"model":"demo","prompt":"'), Buffer.from([0xff])]);
    const error = await errorOf(await post(completions, "", { body }), 400);
    expect(error.message).toContain("UTF-8");
  });

  it.each(["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16"])(
    "of type %s is refused, since browsers send it without asking",
    async (type) => {
      const { post } = await testApp();
      const body = { model: "demo", prompt: "x" };
      const error = await errorOf(
        await post(completions, body, { headers: { "content-type": type } }),
        415,
      );
      expect(error.message).toContain("application/json");
    },
  );

  it("without a type, or compressed, is refused", async () => {
    const { fetch, post } = await testApp();
    const body = new Uint8Array(Buffer.from('{"model":"demo","prompt":"x"}'));
    await errorOf(await fetch(completions, { method: "POST", body }), 415);
    await errorOf(await post(completions, {}, { headers: { "content-encoding": "gzip" } }), 415);
  });

  it("over the limit is refused, declared or not", async () => {
    const { post, fetch, engine } = await testApp(undefined, { maxBodyBytes: 1000 });
    const body = { model: "demo", prompt: "x".repeat(1000) };
    expect((await errorOf(await post(completions, body), 413)).code).toBe("request_too_large");
    const stream = new Blob([JSON.stringify(body)]).stream();
    const init = { method: "POST", body: stream, duplex: "half" } as RequestInit;
    const headers = { "content-type": "application/json" };
    await errorOf(await fetch(completions, { ...init, headers }), 413);
    expect(engine.requests).toEqual([]);
    const small = { model: "demo", prompt: "x".repeat(500) };
    expect((await post(completions, small)).status).toBe(200);
  });
});

describe("fields of both endpoints", () => {
  it.each<[Record<string, unknown>, string]>([
    [{ model: undefined }, "model"],
    [{ model: 7 }, "model"],
    [{ temperature: -0.1 }, "temperature"],
    [{ temperature: 2.5 }, "temperature"],
    [{ temperature: "hot" }, "temperature"],
    [{ top_p: 0 }, "top_p"],
    [{ top_p: 1.1 }, "top_p"],
    [{ top_k: 1.5 }, "top_k"],
    [{ min_p: 2 }, "min_p"],
    [{ n: 0 }, "n"],
    [{ n: 129 }, "n"],
    [{ n: 1e9 }, "n"],
    [{ stop: "" }, "stop"],
    [{ stop: Array(17).fill("x") }, "stop"],
    [{ stop: ["a", 1] }, "stop[1]"],
    [{ stop: "x".repeat(2000) }, "stop"],
    [{ seed: 1.5 }, "seed"],
    [{ seed: 2 ** 60 }, "seed"],
    [{ presence_penalty: 3 }, "presence_penalty"],
    [{ frequency_penalty: "1" }, "frequency_penalty"],
    [{ repetition_penalty: 0 }, "repetition_penalty"],
    [{ logit_bias: { 5: 101 } }, "logit_bias.5"],
    [{ logit_bias: { five: 1 } }, "logit_bias"],
    [{ logit_bias: [1] }, "logit_bias"],
    [{ stream: "yes" }, "stream"],
    [{ stream_options: true }, "stream_options"],
    [{ stop_token_ids: ["a"] }, "stop_token_ids[0]"],
    [{ max_tokens: -1 }, "max_tokens"],
    [{ max_tokens: 1.5 }, "max_tokens"],
    [{ max_tokens: "many" }, "max_tokens"],
    [{ max_tokens: 1e9 }, "max_tokens"],
    [{ max_tokens: 1e300 }, "max_tokens"],
    [{ max_tokens: 0 }, "max_tokens"],
    [{ response_format: { type: "json_object" } }, "response_format.type"],
    [{ response_format: { type: "json_schema", json_schema: {} } }, "response_format.type"],
    [{ guided_json: {} }, "guided_json"],
    [{ use_beam_search: true }, "use_beam_search"],
    [{ skip_special_tokens: false }, "skip_special_tokens"],
  ])("%j names %s", async (fields, param) => {
    const { post, engine } = await testApp();
    for (const [path, base] of [
      [chat, { model: "demo", messages: user }],
      [completions, { model: "demo", prompt: "hi" }],
    ] as const) {
      const error = await errorOf(await post(path, { ...base, ...fields }), 400);
      expect(error.param).toBe(param);
      expect(error.type).toBe("invalid_request_error");
      expect(error.message).toContain(param.split(/[.[]/)[0]);
    }
    expect(engine.requests).toEqual([]);
  });

  it("null stands for absent, unknown fields are ignored, harmless values are taken", async () => {
    const { post, engine } = await testApp();
    const fields = {
      temperature: null,
      top_p: null,
      n: null,
      stop: null,
      seed: null,
      max_tokens: null,
      logit_bias: null,
      stream: null,
      stream_options: null,
      response_format: { type: "text" },
      use_beam_search: false,
      skip_special_tokens: true,
      user: "someone",
      service_tier: "auto",
      made_up: { deep: [1] },
    };
    const a = await post(chat, { model: "demo", messages: user, ...fields });
    const b = await post(completions, { model: "demo", prompt: "hi", ...fields, suffix: "" });
    expect([a.status, b.status]).toEqual([200, 200]);
    expect(engine.requests).toHaveLength(2);
    expect(engine.requests[1]?.sampling).toEqual({ topP: 0.95, maxTokens: 16 });
  });

  it("names models that exist", async () => {
    const { post } = await testApp(undefined, { modelAliases: ["gpt-x"] });
    const body = { model: "gpt-4", messages: user };
    const error = await errorOf(await post(chat, body), 404);
    expect(error).toMatchObject({ param: "model", code: "model_not_found" });
    expect(error.message).toContain("demo, gpt-x");
    expect((await post(chat, { ...body, model: "gpt-x" })).status).toBe(200);
  });

  it("__proto__ in a body reaches nothing", async () => {
    const { post } = await testApp();
    const evil = '"__proto__":{"polluted":true}';
    const body = `{"model":"demo","prompt":"x",${evil},"logit_bias":{"__proto__":5}}`;
    await post(completions, body);
    await post(
      chat,
      `{"model":"demo","messages":[{"role":"user","content":"x",${evil}}],` +
        `"chat_template_kwargs":{${evil}}}`,
    );
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
  });
});

describe("chat completions", () => {
  it.each<[Record<string, unknown>, string]>([
    [{ messages: undefined }, "messages"],
    [{ messages: [] }, "messages"],
    [{ messages: "hi" }, "messages"],
    [{ messages: ["hi"] }, "messages[0]"],
    [{ messages: [{ role: "wizard", content: "x" }] }, "messages[0].role"],
    [{ messages: [{ content: "x" }] }, "messages[0].role"],
    [{ messages: [...user, { role: "user" }] }, "messages[1].content"],
    [{ messages: [{ role: "user", content: 5 }] }, "messages[0].content"],
    [{ messages: [{ role: "user", content: [{ type: "text" }] }] }, "messages[0].content[0].text"],
    [
      { messages: [{ role: "user", content: [{ type: "image_url", image_url: { url: "x" } }] }] },
      "messages[0].content[0].type",
    ],
    [{ messages: [{ role: "tool", content: "x" }] }, "messages[0].tool_call_id"],
    [{ max_completion_tokens: -1 }, "max_completion_tokens"],
    [{ max_completion_tokens: 5000 }, "max_completion_tokens"],
    [{ logprobs: 3 }, "logprobs"],
    [{ top_logprobs: 3 }, "top_logprobs"],
    [{ logprobs: true, top_logprobs: 21 }, "top_logprobs"],
    [{ tools: [{ type: "function" }] }, "tools[0].function"],
    [{ tools: {} }, "tools"],
    [{ tool_choice: "maybe" }, "tool_choice"],
    [{ functions: [] }, "functions"],
    [{ modalities: ["audio"] }, "modalities[0]"],
    [{ chat_template_kwargs: [] }, "chat_template_kwargs"],
  ])("%j names %s", async (fields, param) => {
    const { post, engine } = await testApp();
    const response = await post(chat, { model: "demo", messages: user, ...fields });
    expect((await errorOf(response, 400)).param).toBe(param);
    expect(engine.requests).toEqual([]);
  });

  it("a chat over the context", async () => {
    const { post } = await testApp();
    const messages = [{ role: "user", content: "def f():\n".repeat(1000) }];
    const error = await errorOf(await post(chat, { model: "demo", messages }), 400);
    expect(error).toMatchObject({ param: "messages", code: "context_length_exceeded" });
    expect(error.message).toContain("1024");
  });
});

describe("completions", () => {
  it.each<[unknown, string]>([
    [undefined, "prompt"],
    [null, "prompt"],
    ["", "prompt"],
    [5, "prompt"],
    [{}, "prompt"],
    [[], "prompt"],
    [[[]], "prompt[0]"],
    [["a", ""], "prompt[1]"],
    [["a", 5], "prompt[1]"],
    [[1, "a"], "prompt[1]"],
    [[1, 2048], "prompt[1]"],
    [[-1], "prompt[0]"],
    [[1.5], "prompt[0]"],
    [[[1], [2, 1e20]], "prompt[1][1]"],
    [[null], "prompt[0]"],
    [Array(129).fill("x"), "prompt"],
  ])("prompt %j names %s", async (prompt, param) => {
    const { post, engine } = await testApp();
    const error = await errorOf(await post(completions, { model: "demo", prompt }), 400);
    expect(error.param).toBe(param);
    expect(engine.requests).toEqual([]);
  });

  it.each<[Record<string, unknown>, string]>([
    [{ best_of: 2 }, "best_of"],
    [{ n: 2, best_of: 3 }, "best_of"],
    [{ suffix: "end" }, "suffix"],
    [{ logprobs: true }, "logprobs"],
    [{ logprobs: 21 }, "logprobs"],
    [{ echo: 1 }, "echo"],
    [{ prompt_embeds: "x" }, "prompt_embeds"],
  ])("%j names %s", async (fields, param) => {
    const { post } = await testApp();
    const response = await post(completions, { model: "demo", prompt: "x", ...fields });
    expect((await errorOf(response, 400)).param).toBe(param);
  });

  it("a prompt over the context, as text of any length or as tokens", async () => {
    const { post } = await testApp();
    for (const prompt of ["import os\n".repeat(500), "x".repeat(3_000_000), Array(1024).fill(5)]) {
      const error = await errorOf(await post(completions, { model: "demo", prompt }), 400);
      expect(error).toMatchObject({ param: "prompt", code: "context_length_exceeded" });
    }
    expect((await post(completions, { model: "demo", prompt: Array(1023).fill(5) })).status).toBe(
      200,
    );
  });

  it("max_tokens beyond the room is refused, a default is cut to it", async () => {
    const { post, engine } = await testApp();
    const prompt = Array(1020).fill(5);
    const error = await errorOf(
      await post(completions, { model: "demo", prompt, max_tokens: 5 }),
      400,
    );
    expect(error).toMatchObject({ param: "max_tokens", code: "context_length_exceeded" });
    expect(error.message).toContain("at most 4");
    expect((await post(completions, { model: "demo", prompt })).status).toBe(200);
    expect(engine.requests[0]?.sampling.maxTokens).toBe(4);
  });

  it("prompts times n is bounded", async () => {
    const { post } = await testApp(undefined, { maxChoices: 4 });
    const body = { model: "demo", prompt: ["a", "b", "c"], n: 2 };
    expect((await errorOf(await post(completions, body), 400)).message).toContain("at most 4");
  });
});

describe("tokenize and detokenize", () => {
  it.each<[string, unknown, string]>([
    ["/tokenize", {}, "prompt"],
    ["/tokenize", { prompt: "x", messages: user }, "prompt"],
    ["/tokenize", { prompt: 5 }, "prompt"],
    ["/detokenize", {}, "tokens"],
    ["/detokenize", { tokens: "x" }, "tokens"],
    ["/detokenize", { tokens: [1, 99999] }, "tokens[1]"],
    ["/detokenize", { tokens: [null] }, "tokens[0]"],
  ])("%s %j names %s", async (path, body, param) => {
    const { post } = await testApp();
    expect((await errorOf(await post(path, body), 400)).param).toBe(param);
  });
});

describe("sizes are looked at first", () => {
  const many = (n: number, item: unknown) => Array(n).fill(item);
  it.each<[string, string, Record<string, unknown>, string]>([
    ["messages", chat, { messages: many(9000, { role: "user", content: "" }) }, "messages"],
    [
      "content parts",
      chat,
      { messages: [{ role: "user", content: many(9000, { type: "text", text: "" }) }] },
      "messages",
    ],
    [
      "broken tool calls",
      chat,
      { messages: [{ role: "assistant", tool_calls: many(9000, 1) }] },
      "messages",
    ],
    ["tools", chat, { messages: user, tools: many(129, {}) }, "tools"],
    [
      "template variables",
      chat,
      {
        messages: user,
        chat_template_kwargs: Object.fromEntries(many(200, 0).map((_, i) => [i, i])),
      },
      "chat_template_kwargs",
    ],
    [
      "biased tokens",
      completions,
      { prompt: "x", logit_bias: Object.fromEntries(many(5000, 0).map((_, i) => [i, 1])) },
      "logit_bias",
    ],
    ["tokens to decode", "/detokenize", { tokens: many(20_000, 5) }, "tokens"],
    ["text to tokenise", "/tokenize", { prompt: "x".repeat(3_500_000) }, "prompt"],
  ])("%s", async (_what, path, fields, param) => {
    const { post, engine } = await testApp();
    const error = await errorOf(await post(path, { model: "demo", ...fields }), 400);
    expect(error.param).toBe(param);
    expect(error.message).toContain("at most");
    expect(engine.requests).toEqual([]);
  });

  it("a value nested beyond every stack is the client's fault", async () => {
    const { post } = await testApp();
    const deep = `${"[".repeat(500_000)}${"]".repeat(500_000)}`;
    const head = '{"model":"demo","messages":[{"role":"user","content":"x"}]';
    const text = `${head},"chat_template_kwargs":{"a":${deep}}}`;
    await errorOf(await post(chat, text), 400);
  });
});

describe("addresses and methods", () => {
  it.each(["/v1", "/v1/", "/v1/embeddings", "/nothing", "/v1/chat/completions/", "/api/x"])(
    "GET %s is not there",
    async (path) => {
      const { fetch } = await testApp();
      expect((await errorOf(await fetch(path), 404)).code).toBe("not_found");
    },
  );

  it("POST to nowhere is 404, the wrong method is 405 and says which is right", async () => {
    const { fetch, post } = await testApp();
    await errorOf(await post("/v1/embeddings", {}), 404);
    for (const [method, path, allow] of [
      ["GET", chat, "POST"],
      ["DELETE", "/v1/models/demo", "GET, HEAD"],
      ["PUT", completions, "POST"],
      ["POST", "/health", "GET, HEAD"],
      ["OPTIONS", chat, "POST"],
    ] as const) {
      const response = await fetch(path, { method });
      expect(response.headers.get("allow")).toBe(allow);
      expect((await errorOf(response, 405)).message).toContain(path);
    }
  });

  it("an unknown model's page is 404 in the same shape", async () => {
    const { fetch } = await testApp();
    const error = await errorOf(await fetch("/v1/models/org/other"), 404);
    expect(error.code).toBe("model_not_found");
  });
});
