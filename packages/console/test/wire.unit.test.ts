// Reading the server's JSON: what the engine really sends is accepted, what is missing is named.

import type { EngineStats, ModelInfo } from "@open-infra/engine";
import { describe, expect, it } from "vitest";
import { errorBody, errorOfResponse } from "../web/src/api/errors.ts";
import {
  type ModelFacts,
  parseChunk,
  parseModels,
  parseStatsMessage,
  type StatsFacts,
  WireError,
} from "../web/src/api/wire.ts";
import { sampleStats } from "./helpers/sample-stats.ts";

// The engine's own types fit what the console reads; the compiler checks these two lines.
const modelFits = (model: ModelInfo): ModelFacts => model;
const statsFit = (stats: EngineStats): StatsFacts => stats;

describe("parseStatsMessage", () => {
  it("reads what the engine's types promise, and ignores more", () => {
    const message = sampleStats({ stats: { running: 3 } });
    const text = JSON.stringify({ ...message, more: 1 });
    expect(parseStatsMessage(text)).toEqual(message);
    expect([modelFits, statsFit]).toHaveLength(2);
  });

  it("names the field that is missing or wrong", () => {
    const { model, stats } = sampleStats();
    const broken = (change: object): string =>
      JSON.stringify({ model, stats, uptimeSeconds: 1, ...change });
    const failure = (text: string) => () => parseStatsMessage(text);
    expect(failure(broken({ uptimeSeconds: null }))).toThrow(/uptimeSeconds is null/);
    expect(failure(broken({ model: undefined }))).toThrow(/stats\.model is missing/);
    expect(failure(broken({ model: { ...model, id: 4 } }))).toThrow(/model\.id is 4/);
    expect(failure(broken({ stats: { ...stats, lastStep: [] } }))).toThrow(/lastStep is \[\]/);
    expect(failure("[]")).toThrow(WireError);
    expect(failure("{")).toThrow(/not JSON/);
  });
});

describe("parseModels", () => {
  it("lists ids in order", () => {
    expect(parseModels('{"data":[{"id":"b"},{"id":"a"}]}')).toEqual(["b", "a"]);
  });

  it("names what is wrong", () => {
    expect(() => parseModels('{"data":{}}')).toThrow(/models\.data is \{\}/);
    expect(() => parseModels('{"data":[{"id":"a"},{}]}')).toThrow(/models\.data\[1\]\.id/);
  });
});

describe("parseChunk", () => {
  it("reads text of both endpoints", () => {
    expect(parseChunk('{"choices":[{"text":"a","finish_reason":null}]}')).toEqual({ text: "a" });
    const chat = '{"choices":[{"delta":{"content":"b"},"finish_reason":"stop"}]}';
    expect(parseChunk(chat)).toEqual({ text: "b", finishReason: "stop" });
    expect(parseChunk('{"choices":[{"delta":{"role":"assistant"}}]}')).toEqual({ text: "" });
  });

  it("reads usage, with cached tokens where the server tells them", () => {
    const usage = { prompt_tokens: 3, completion_tokens: 4 };
    expect(parseChunk(JSON.stringify({ choices: [], usage })).usage).toEqual({
      promptTokens: 3,
      completionTokens: 4,
    });
    const cached = { ...usage, prompt_tokens_details: { cached_tokens: 2 } };
    expect(parseChunk(JSON.stringify({ choices: [], usage: cached })).usage).toEqual({
      promptTokens: 3,
      completionTokens: 4,
      cachedTokens: 2,
    });
  });

  it("refuses a chunk without choices", () => {
    expect(() => parseChunk("{}")).toThrow(/choices is missing/);
  });
});

describe("errors of responses", () => {
  it("takes the server's words, the field and the pause", async () => {
    const body = JSON.stringify({ error: { message: "busy", param: "n", type: "x" } });
    const headers = { "retry-after": "3" };
    const error = await errorOfResponse(new Response(body, { status: 429, headers }));
    expect(error).toMatchObject({
      message: "busy",
      kind: "overloaded",
      status: 429,
      param: "n",
      retryAfterSeconds: 3,
    });
  });

  it("says something useful about an answer that is no JSON", async () => {
    const html = new Response("<html>", { status: 502, statusText: "Bad Gateway" });
    const error = await errorOfResponse(html);
    expect(error.kind).toBe("failed");
    expect(error.message).toContain("502 Bad Gateway");
    expect(error.retryAfterSeconds).toBeUndefined();
  });

  it("tells kinds by status", async () => {
    const kind = async (status: number) =>
      (await errorOfResponse(new Response("", { status }))).kind;
    expect(await kind(401)).toBe("unauthorized");
    expect(await kind(503)).toBe("unavailable");
    expect(await kind(422)).toBe("rejected");
    expect(await kind(500)).toBe("failed");
  });

  it("sees no error in an ordinary chunk", () => {
    expect(errorBody('{"choices":[]}')).toBeUndefined();
    expect(errorBody('{"error":{}}')).toBeUndefined();
    expect(errorBody("nonsense")).toBeUndefined();
  });
});
