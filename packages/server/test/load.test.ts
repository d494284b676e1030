// Many clients at once on the real engine: everybody gets the text they would have got alone, some
// leave in the middle, and a server that is told to go finishes what it began.

import { demoModelDir } from "@open-infra/demo-model";
import { type EngineClient, startEngine } from "@open-infra/engine";
import { seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type RunningServer, startServer } from "../src/index.ts";
import { demoTokenizer, jsonOf, readSse } from "./helpers/http.ts";

const CLIENTS = 64;
const prompts = [
  "def fibonacci(n):",
  "import os\nimport sys\n",
  "class Stack:\n    def __init__(self):\n",
  "for i in range(10):\n    print(",
  "# A comment\n",
  "def add(a, b):\n    return a + b\n".repeat(12),
  "x",
  "try:\n    value = int(text)\nexcept ",
];

let engine: EngineClient;
let server: RunningServer;
beforeAll(async () => {
  const options = {
    modelDir: demoModelDir,
    modelId: "demo",
    dtype: "f32",
    onLog: () => {},
  } as const;
  const starting = startEngine(options);
  server = await startServer({
    engine: starting,
    tokenizer: demoTokenizer(),
    port: 0,
    options: { logLevel: "error" },
  });
  engine = await starting;
  await server.ready;
}, 300_000);
afterAll(async () => {
  await server.close();
  await engine.close();
});

function complete(prompt: string, fields: object, signal?: AbortSignal): Promise<Response> {
  return fetch(`${server.url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model: "demo", prompt, temperature: 0, ignore_eos: true, ...fields }),
    ...(signal !== undefined && { signal }),
  });
}

async function streamed(response: Response): Promise<{ text: string; done: boolean }> {
  const { chunks, done } = readSse(await response.text());
  return { text: chunks.map((chunk) => chunk.choices[0]?.text ?? "").join(""), done };
}

describe("under load", () => {
  it("64 streaming clients get the texts they get alone, while others leave", async () => {
    const alone = new Map<string, string>();
    for (const prompt of prompts) {
      const answer = await jsonOf(complete(prompt, { max_tokens: 16 }));
      alone.set(prompt, answer.choices[0]?.text ?? "");
    }
    const random = seededRandom(testSeed());
    const leaving = Array.from({ length: 8 }, async () => {
      const controller = new AbortController();
      const fields = { max_tokens: 500, stream: true };
      const response = await complete(random.pick(prompts), fields, controller.signal);
      await response.body?.getReader().read();
      controller.abort();
    });
    const clients = Array.from({ length: CLIENTS }, async (_, i) => {
      const prompt = prompts[i % prompts.length] as string;
      const stream = { max_tokens: 16, stream: true };
      const { text, done } = await streamed(await complete(prompt, stream));
      expect(text, `seed ${random.seed}, client ${i}`).toBe(alone.get(prompt));
      expect(done).toBe(true);
    });
    await Promise.all([...clients, ...leaving]);
    await expect
      .poll(() => [engine.stats().running, engine.stats().kvBlocksUsed], { timeout: 10_000 })
      .toEqual([0, 0]);
    expect(engine.stats().finished.abort).toBeGreaterThanOrEqual(1);
  });

  it("drains: what runs finishes in full, what comes is refused", async () => {
    const responses = await Promise.all(
      Array.from({ length: 16 }, () => complete("import os\n", { max_tokens: 48, stream: true })),
    );
    const texts = responses.map(streamed);
    await server.drain(60_000);
    for (const { text, done } of await Promise.all(texts)) {
      expect(done).toBe(true);
      expect(text.length).toBeGreaterThan(48);
    }
    await expect(complete("x", {})).rejects.toThrow();
    expect(engine.stats().running).toBe(0);
  });
});
