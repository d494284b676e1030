// What the log says of a request, and what it never says.

import { Writable } from "node:stream";
import { pino } from "pino";
import { describe, expect, it } from "vitest";
import { testApp } from "./helpers/http.ts";
import { endless, type Script, says } from "./helpers/scripted-engine.ts";

async function logged(script: Script, options: { readonly logPrompts?: boolean } = {}) {
  const lines: Record<string, unknown>[] = [];
  const stream = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      lines.push(JSON.parse(chunk.toString()));
      done();
    },
  });
  const app = await testApp(script, { logger: pino({ level: "debug" }, stream), ...options });
  return { ...app, lines };
}

const secret = "my secret prompt";
const body = { model: "demo", prompt: secret };

describe("the request log", () => {
  it("has one line a request with its outcome and without its text", async () => {
    const { post, lines } = await logged(says(["an", "swer"], { reason: "length" }));
    const headers = { "x-request-id": "r-1", authorization: "Bearer hush" };
    await post("/v1/completions", body, { headers });
    await (await post("/v1/completions", { ...body, stream: true })).text();
    await post("/v1/completions", { ...body, temperature: 9 });
    await post("/v1/chat/completions", {
      model: "demo",
      messages: [{ role: "user", content: secret }],
    });
    expect(lines).toHaveLength(4);
    expect(lines[0]).toMatchObject({
      level: 30,
      requestId: "r-1",
      method: "POST",
      path: "/v1/completions",
      status: 200,
      model: "demo",
      completionTokens: 2,
      finishReason: "length",
      ms: expect.any(Number),
    });
    expect(lines[1]).toMatchObject({ status: 200, stream: true, completionTokens: 2 });
    expect(lines[2]).toMatchObject({ status: 400, error: expect.stringContaining("temperature") });
    const text = JSON.stringify(lines);
    expect(text).not.toContain("secret");
    expect(text).not.toContain("answer");
    expect(text).not.toContain("hush");
  });

  it("tells of a client that left, once", async () => {
    const { post, lines } = await logged(endless);
    const response = await post("/v1/completions", { ...body, stream: true });
    const reader = response.body?.getReader();
    await reader?.read();
    expect(lines).toEqual([]);
    await reader?.cancel();
    await expect.poll(() => lines.length).toBe(1);
    expect(lines[0]).toMatchObject({ status: 499, clientGone: true });
  });

  it("holds the cause of a 500", async () => {
    const { post, lines } = await logged(() => {
      throw new TypeError("the real reason");
    });
    await post("/v1/completions", body);
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatchObject({ level: 50, status: 500, err: { message: "the real reason" } });
  });

  it("holds prompts only where that was asked for", async () => {
    const { post, lines } = await logged(says(["x"]), { logPrompts: true });
    await post("/v1/completions", body);
    expect(lines[0]).toMatchObject({ level: 20, prompt: secret });
  });
});
