// The real engine on the demo model behind a real socket, asked through the clients that people
// use: OpenAI's and the AI SDK's.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { demoModelDir } from "@open-infra/demo-model";
import { type EngineClient, startEngine } from "@open-infra/engine";
import { generateText, streamText } from "ai";
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type RunningServer, startServer } from "../src/index.ts";
import { parseExposition } from "./helpers/exposition.ts";
import { demoTokenizer } from "./helpers/http.ts";
import { postHead, RawConnection } from "./helpers/raw-http.ts";

const KEY = "test-key";
const model = "demo";
const prompt = "def fibonacci(n):";
const greedy = { model, temperature: 0, max_tokens: 24 } as const;
const messages = [{ role: "user" as const, content: prompt }];

let engine: EngineClient;
let server: RunningServer;
let client: OpenAI;

beforeAll(async () => {
  const starting = startEngine({
    modelDir: demoModelDir,
    modelId: model,
    maxSequences: 4,
    maxQueue: 4,
    onLog: () => {},
  });
  server = await startServer({
    engine: starting,
    tokenizer: demoTokenizer(),
    port: 0,
    options: { apiKey: KEY, logLevel: "error", modelAliases: ["alias"] },
  });
  engine = await starting;
  await server.ready;
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: KEY, maxRetries: 0 });
}, 300_000);

afterAll(async () => {
  await server.close();
  await engine.close();
});

/** The engine is idle and every block is back. */
async function expectIdle(): Promise<void> {
  await expect
    .poll(() => [engine.stats().running, engine.stats().waiting, engine.stats().kvBlocksUsed], {
      timeout: 10_000,
    })
    .toEqual([0, 0, 0]);
}

describe("the openai client", () => {
  it("lists models", async () => {
    const ids: string[] = [];
    for await (const entry of client.models.list()) ids.push(entry.id);
    expect(ids).toEqual([model, "alias"]);
    expect((await client.models.retrieve(model)).object).toBe("model");
  });

  it("gets the same completion whole, streamed, by token ids and beside others", async () => {
    const whole = await client.completions.create({ ...greedy, prompt });
    const text = whole.choices[0]?.text ?? "";
    expect(text.length).toBeGreaterThan(10);
    expect(whole.choices[0]?.finish_reason).toBe("length");
    expect(whole.usage).toMatchObject({
      prompt_tokens: demoTokenizer().encode(prompt).length,
      completion_tokens: 24,
    });
    let streamed = "";
    let usage: OpenAI.CompletionUsage | undefined;
    const stream = await client.completions.create({
      ...greedy,
      prompt: [demoTokenizer().encode(prompt)],
      stream: true,
      stream_options: { include_usage: true },
    });
    for await (const chunk of stream) {
      streamed += chunk.choices[0]?.text ?? "";
      usage = chunk.usage ?? usage;
    }
    expect(streamed).toBe(text);
    expect(usage).toMatchObject({ completion_tokens: 24 });
    const many = await client.completions.create({
      ...greedy,
      prompt: [prompt, "import os", prompt],
      n: 2,
    });
    const texts = many.choices.map((choice) => choice.text);
    expect([texts[0], texts[1], texts[4], texts[5]]).toEqual([text, text, text, text]);
    expect(texts[2]).not.toBe(text);
  });

  it("scores a prompt as its own continuation was scored", async () => {
    const first = await client.completions.create({
      ...greedy,
      max_tokens: 4,
      prompt,
      logprobs: 3,
    });
    const choice = first.choices[0];
    const scored = await client.completions.create({
      model,
      prompt: prompt + choice?.text,
      echo: true,
      logprobs: 0,
      max_tokens: 0,
    });
    const logprobs = scored.choices[0]?.logprobs;
    expect(scored.choices[0]?.text).toBe(prompt + choice?.text);
    // The text may be cut into other tokens when it is read as one; here it is not.
    expect(logprobs?.tokens?.slice(-4)).toEqual(choice?.logprobs?.tokens);
    const values = logprobs?.token_logprobs?.slice(-4) ?? [];
    for (const [i, value] of values.entries()) {
      expect(value).toBeCloseTo(choice?.logprobs?.token_logprobs?.[i] ?? Number.NaN, 4);
    }
    expect(logprobs?.text_offset?.at(-4)).toBe(prompt.length);
    expect(Object.keys(choice?.logprobs?.top_logprobs?.[0] ?? {})).toHaveLength(3);
  });

  it("chats, whole and through the streaming helper, with log-probabilities", async () => {
    const whole = await client.chat.completions.create({
      ...greedy,
      messages,
      logprobs: true,
      top_logprobs: 2,
    });
    const content = whole.choices[0]?.message.content ?? "";
    expect(whole.choices[0]?.logprobs?.content).toHaveLength(24);
    const bytes = whole.choices[0]?.logprobs?.content?.flatMap((token) => token.bytes ?? []) ?? [];
    expect(Buffer.from(bytes).toString()).toBe(content);
    const runner = client.chat.completions.stream({
      ...greedy,
      messages,
      stream_options: { include_usage: true },
    });
    const deltas: string[] = [];
    runner.on("content", (delta) => deltas.push(delta));
    const final = await runner.finalChatCompletion();
    expect(deltas.join("")).toBe(content);
    expect(final.choices[0]?.message).toMatchObject({ role: "assistant", content });
    expect(final.usage?.completion_tokens).toBe(24);
    // The demo's chat template joins messages, so that a chat of one is the same prompt.
    expect((await client.completions.create({ ...greedy, prompt })).choices[0]?.text).toBe(content);
  });

  it("repeats a seed, and finds a repeated prompt in the cache", async () => {
    const body = { model, messages, seed: 11, temperature: 1, max_tokens: 16, n: 2 };
    const [a, b] = [
      await client.chat.completions.create(body),
      await client.chat.completions.create(body),
    ];
    const texts = (answer: OpenAI.ChatCompletion) => answer.choices.map((c) => c.message.content);
    expect(texts(a)).toEqual(texts(b));
    const long = { ...greedy, max_tokens: 1, prompt: "import os\nimport sys\n".repeat(30) };
    await client.completions.create(long);
    const again = await client.completions.create(long);
    expect(again.usage?.prompt_tokens_details?.cached_tokens).toBeGreaterThanOrEqual(64);
  });

  it("stops at a string that is not part of the text", async () => {
    const free = await client.completions.create({ ...greedy, prompt });
    const text = free.choices[0]?.text ?? "";
    const stop = text.slice(8, 11);
    const stopped = await client.completions.create({ ...greedy, prompt, stop });
    expect(stopped.choices[0]).toMatchObject({
      text: text.slice(0, text.indexOf(stop)),
      finish_reason: "stop",
    });
  });

  it("throws its own error classes", async () => {
    const stranger = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "wrong", maxRetries: 0 });
    await expect(stranger.models.list()).rejects.toBeInstanceOf(OpenAI.AuthenticationError);
    const other = client.chat.completions.create({ model: "gpt-4", messages });
    await expect(other).rejects.toBeInstanceOf(OpenAI.NotFoundError);
    await expect(other).rejects.toMatchObject({ code: "model_not_found", param: "model" });
    const hot = client.chat.completions.create({ model, messages, temperature: 3 });
    await expect(hot).rejects.toBeInstanceOf(OpenAI.BadRequestError);
    await expect(hot).rejects.toMatchObject({ status: 400, param: "temperature" });
    await expect(hot).rejects.toMatchObject({ requestID: expect.stringMatching(/^req-/) });
    const long = client.completions.create({ model, prompt: "x = 1\n".repeat(2000) });
    await expect(long).rejects.toMatchObject({ code: "context_length_exceeded" });
    const minimum = { ...greedy, prompt, min_tokens: 30 };
    await expect(client.completions.create(minimum)).rejects.toMatchObject({ param: "min_tokens" });
  });

  it("gets RateLimitError from a full queue, and nothing is lost", async () => {
    const body = { ...greedy, max_tokens: 200, ignore_eos: true, prompt };
    const results = await Promise.allSettled(
      Array.from({ length: 24 }, () => client.completions.create(body)),
    );
    const texts = results
      .filter((r) => r.status === "fulfilled")
      .map((r) => r.value.choices[0]?.text);
    const refused = results.filter((r) => r.status === "rejected").map((r) => r.reason);
    expect(refused.length).toBeGreaterThan(0);
    expect(texts.length).toBeGreaterThanOrEqual(8);
    for (const reason of refused) {
      expect(reason).toBeInstanceOf(OpenAI.RateLimitError);
      expect(Number(reason.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
    }
    expect(new Set(texts).size).toBe(1);
    await expectIdle();
  });

  it("aborting a stream frees its blocks", async () => {
    const stream = client.chat.completions.stream({
      ...greedy,
      max_tokens: 900,
      messages,
      ignore_eos: true,
    } as never);
    for await (const _ of stream) {
      if (engine.stats().kvBlocksUsed > 0) break;
    }
    stream.abort();
    await expectIdle();
  });
});

describe("a connection that breaks", () => {
  it.each([true, false])("in the middle frees the blocks (stream: %s)", async (stream) => {
    const before = engine.stats().finished.abort;
    const text = JSON.stringify({ ...greedy, prompt, max_tokens: 900, ignore_eos: true, stream });
    const head = { "content-length": text.length, authorization: `Bearer ${KEY}` };
    const connection = await RawConnection.open(server);
    connection.send(postHead("/v1/completions", head) + text);
    await expect.poll(() => engine.stats().kvBlocksUsed, { interval: 1 }).toBeGreaterThan(0);
    connection.socket.destroy();
    await expectIdle();
    expect(engine.stats().finished.abort).toBe(before + 1);
  });
});

describe("the AI SDK", () => {
  const provider = () =>
    createOpenAICompatible({
      name: "open-infra",
      baseURL: `${server.url}/v1`,
      apiKey: KEY,
      includeUsage: true,
    });
  const settings = () => ({ temperature: 0, maxOutputTokens: 24, prompt, maxRetries: 0 });

  it("generates and streams the same text", async () => {
    const whole = await generateText({ model: provider().chatModel(model), ...settings() });
    expect(whole.text.length).toBeGreaterThan(10);
    expect(whole.finishReason).toBe("length");
    expect(whole.usage.outputTokens).toBe(24);
    const stream = streamText({ model: provider().chatModel(model), ...settings() });
    let text = "";
    for await (const part of stream.textStream) text += part;
    expect(text).toBe(whole.text);
    expect((await stream.usage).outputTokens).toBe(24);
    const older = await generateText({ model: provider().completionModel(model), ...settings() });
    expect(older.text.length).toBeGreaterThan(0);
  });

  it("reads our errors", async () => {
    const unknown = generateText({ model: provider().chatModel("nothing"), ...settings() });
    await expect(unknown).rejects.toMatchObject({
      statusCode: 404,
      message: expect.stringContaining("does not exist"),
    });
  });
});

describe("metrics of the real engine", () => {
  it("can be scraped and have counted", async () => {
    const families = parseExposition(await (await fetch(`${server.url}/metrics`)).text());
    const tokens = families.get("open_infra:generation_tokens_total")?.samples[0];
    expect(tokens?.labels).toEqual({ model_name: model });
    expect(tokens?.value).toBeGreaterThan(100);
    const latency = families.get("open_infra:time_to_first_token_seconds")?.samples;
    const count = latency?.find(({ name }) => name.endsWith("_count"))?.value;
    expect(count).toBeGreaterThan(5);
    expect(latency?.find(({ labels }) => labels.le === "+Inf")?.value).toBe(count);
  });
});
