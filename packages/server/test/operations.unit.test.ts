// Health, metrics, statistics, keys, origins and options.

import { describe, expect, it } from "vitest";
import { createApp, ServerOptionError, version } from "../src/index.ts";
import { Exposition } from "../src/prometheus.ts";
import { parseExposition } from "./helpers/exposition.ts";
import { demoTokenizer, errorOf, jsonOf, poster, testApp } from "./helpers/http.ts";
import { ScriptedEngine } from "./helpers/scripted-engine.ts";

describe("while the model loads", () => {
  const loading = () => {
    const { promise, resolve, reject } = Promise.withResolvers<ScriptedEngine>();
    const app = createApp({
      engine: promise,
      tokenizer: demoTokenizer(),
      options: {
        logLevel: "silent",
        loadProgress: () => ({ phase: "weights", done: 3, total: 10 }),
      },
    });
    return { app, resolve, reject };
  };

  it("health and the API say so, and metrics are there already", async () => {
    const { app, resolve } = loading();
    const health = await app.request("/health");
    expect(health.status).toBe(503);
    expect(health.headers.get("retry-after")).toBe("2");
    expect(await health.json()).toEqual({
      status: "loading",
      progress: { phase: "weights", done: 3, total: 10 },
    });
    const post = poster(async (path, init) => await app.request(path, init));
    for (const response of [
      await app.request("/v1/models"),
      await app.request("/v1/models/demo"),
      await app.request("/api/stats"),
      await app.request("/api/stats/stream"),
      await post("/v1/completions", { model: "demo", prompt: "x" }),
      await post("/v1/chat/completions", "not even json"),
      await post("/tokenize", {}),
    ]) {
      expect(response.headers.get("retry-after")).toBe("2");
      expect((await errorOf(response, 503)).code).toBe("model_loading");
    }
    const families = parseExposition(await (await app.request("/metrics")).text());
    expect(families.has("process_start_time_seconds")).toBe(true);
    expect(families.has("open_infra:num_requests_running")).toBe(false);
    resolve(new ScriptedEngine());
    await expect.poll(async () => (await app.request("/health")).status).toBe(200);
    expect(await (await app.request("/health")).json()).toEqual({ status: "ok" });
  });

  it("a failure to load is told without its details", async () => {
    const { app, reject } = loading();
    reject(new Error("/srv/someone/model is broken"));
    await expect
      .poll(async () => await (await app.request("/health")).json())
      .toEqual({ status: "failed" });
    const error = await errorOf(await app.request("/v1/models"), 503);
    expect(error.message).not.toContain("someone");
  });
});

describe("models, version, statistics", () => {
  it("lists the model and its aliases", async () => {
    const { fetch } = await testApp(undefined, { modelAliases: ["org/alias", "demo"] });
    const list = await jsonOf<{ object: string; data: unknown[] }>(fetch("/v1/models"));
    expect(list.object).toBe("list");
    expect(list.data).toMatchObject([
      { id: "demo", object: "model", owned_by: "open-infra", root: "demo", max_model_len: 1024 },
      { id: "org/alias", root: "demo" },
    ]);
    for (const path of ["/v1/models/org/alias", "/v1/models/org%2Falias"]) {
      expect(await (await fetch(path)).json()).toEqual(list.data[1]);
    }
    expect(await (await fetch("/version")).json()).toEqual({ version });
  });

  it("statistics are the engine's, without the model's folder", async () => {
    const { fetch, engine } = await testApp();
    const stats = await jsonOf<{ model: object; stats: object; uptimeSeconds: number }>(
      fetch("/api/stats"),
    );
    const { dir, ...model } = engine.model;
    expect(stats.model).toEqual(model);
    expect(JSON.stringify(stats)).not.toContain(dir);
    expect(stats.stats).toEqual(JSON.parse(JSON.stringify(engine.stats())));
    expect(stats.uptimeSeconds).toBeGreaterThanOrEqual(0);
  });

  it("stream of statistics sends one at once", async () => {
    const { fetch } = await testApp();
    const response = await fetch("/api/stats/stream");
    expect(response.headers.get("content-type")).toContain("text/event-stream");
    const reader = response.body?.getReader();
    const first = new TextDecoder().decode((await reader?.read())?.value);
    expect(JSON.parse(first.slice(6)).model.id).toBe("demo");
    await reader?.cancel();
  });
});

describe("metrics", () => {
  it("can be scraped, under vLLM's names", async () => {
    const { fetch, post } = await testApp();
    await post("/v1/completions", { model: "demo", prompt: "x" });
    await post("/v1/completions", { model: "other", prompt: "x" });
    await fetch("/made/up/by/a/stranger");
    await fetch("/made/up", { method: "BREW" });
    const response = await fetch("/metrics");
    expect(response.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
    const families = parseExposition(await response.text());
    const value = (name: string, labels: Record<string, string> = { model_name: "demo" }) =>
      families
        .get(`open_infra:${name}`)
        ?.samples.find((sample) => JSON.stringify(sample.labels) === JSON.stringify(labels))?.value;
    expect(value("num_requests_waiting")).toBe(2);
    expect(value("kv_cache_usage_perc")).toBe(0.25);
    expect(value("prefix_cache_queries_total")).toBe(100);
    expect(value("prefix_cache_hits_total")).toBe(64);
    expect(value("prompt_tokens_total")).toBe(300);
    expect(value("generation_tokens_total")).toBe(200);
    expect(value("num_preemptions_total")).toBe(1);
    expect(value("request_success_total", { model_name: "demo", finished_reason: "length" })).toBe(
      2,
    );
    const handler = "/v1/completions";
    expect(value("http_requests_total", { handler, method: "POST", status: "200" })).toBe(1);
    expect(value("http_requests_total", { handler, method: "POST", status: "404" })).toBe(1);
    expect(value("http_requests_total", { handler: "*", method: "GET", status: "404" })).toBe(1);
    expect(value("http_requests_total", { handler: "*", method: "other", status: "404" })).toBe(1);
    for (const name of [
      "time_to_first_token_seconds",
      "inter_token_latency_seconds",
      "e2e_request_latency_seconds",
      "request_queue_time_seconds",
      "iteration_tokens_total",
      "request_prompt_tokens",
      "request_generation_tokens",
    ]) {
      const family = families.get(`open_infra:${name}`);
      expect(family?.type).toBe("histogram");
      const buckets = family?.samples.filter((sample) => sample.name.endsWith("_bucket"));
      expect(buckets?.map((bucket) => [bucket.labels.le, bucket.value])).toEqual([
        ["0.1", 3],
        ["1", 5],
        ["10", 5],
        ["+Inf", 6],
      ]);
    }
  });

  it("escapes what names of models may hold", () => {
    const out = new Exposition();
    out.gauge("a", "back\\slash\nline", [{ labels: { l: 'q"b\\n\nx' }, value: Number.NaN }]);
    expect(out.text()).toBe(
      '# HELP a back\\\\slash\\nline\n# TYPE a gauge\na{l="q\\"b\\\\n\\nx"} NaN\n',
    );
    expect(parseExposition(out.text()).get("a")?.samples).toHaveLength(1);
    expect(() => out.gauge("a", "again", [])).toThrow("twice");
    expect(() => out.gauge("a-b", "bad", [])).toThrow("no name");
  });
});

describe("API keys", () => {
  const options = { apiKey: ["first-key", "second-key"] };

  it("lock the API and leave health, version and metrics open", async () => {
    const { fetch, post } = await testApp(undefined, options);
    for (const path of ["/health", "/version", "/metrics", "/"]) {
      expect((await fetch(path)).status).toBe(200);
    }
    const attempts = [
      undefined,
      "",
      "first-key",
      "Bearer",
      "Bearer ",
      "Bearer first-ke",
      "Bearer first-key2",
      "Basic Zmlyc3Qta2V5",
      "Bearer first-key, second-key",
    ];
    for (const authorization of attempts) {
      const headers: Record<string, string> = authorization === undefined ? {} : { authorization };
      for (const response of [
        await fetch("/v1/models", { headers }),
        await fetch("/v1/nothing", { headers }),
        await fetch("/api/stats", { headers }),
        await post("/v1/chat/completions", "{", { headers }),
        await post("/tokenize", {}, { headers }),
        await post("/detokenize", {}, { headers }),
      ]) {
        expect(response.headers.get("www-authenticate")).toBe("Bearer");
        expect((await errorOf(response, 401)).code).toBe("invalid_api_key");
      }
    }
  });

  it("open with any of the keys", async () => {
    const { fetch } = await testApp(undefined, options);
    for (const authorization of ["Bearer first-key", "bearer second-key"]) {
      expect((await fetch("/v1/models", { headers: { authorization } })).status).toBe(200);
    }
  });
});

describe("origins", () => {
  const origin = "https://app.example";

  it("are not answered by default", async () => {
    const { fetch } = await testApp();
    const response = await fetch("/v1/models", { headers: { origin } });
    expect(response.headers.get("access-control-allow-origin")).toBeNull();
    const preflight = {
      method: "OPTIONS",
      headers: { origin, "access-control-request-method": "POST" },
    };
    expect((await fetch("/v1/completions", preflight)).status).toBe(405);
  });

  it("that are named may read, also errors and before the key is known", async () => {
    const { fetch, post } = await testApp(undefined, { corsOrigins: [origin], apiKey: "key" });
    const preflight = await fetch("/v1/chat/completions", {
      method: "OPTIONS",
      headers: {
        origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-os",
      },
    });
    expect(preflight.status).toBe(204);
    expect(preflight.headers.get("access-control-allow-origin")).toBe(origin);
    expect(preflight.headers.get("access-control-allow-headers")).toContain("x-stainless-os");
    const refused = await post("/v1/completions", {}, { headers: { origin } });
    expect(refused.status).toBe(401);
    expect(refused.headers.get("access-control-allow-origin")).toBe(origin);
    const headers = { origin, authorization: "Bearer key" };
    const body = { model: "demo", prompt: "x", stream: true };
    const streamed = await post("/v1/completions", body, { headers });
    expect(streamed.headers.get("access-control-allow-origin")).toBe(origin);
    const stranger = await fetch("/health", { headers: { origin: "https://evil.example" } });
    expect(stranger.headers.get("access-control-allow-origin")).toBeNull();
  });
});

describe("options", () => {
  it.each<[object, string]>([
    [{ apiKey: "" }, "apiKey"],
    [{ apiKey: [] }, "apiKey"],
    [{ apiKey: "with space" }, "apiKey"],
    [{ corsOrigins: ["app.example"] }, "corsOrigins"],
    [{ corsOrigins: ["https://app.example/path"] }, "corsOrigins"],
    [{ maxBodyBytes: 0 }, "maxBodyBytes"],
    [{ maxBodyBytes: Number.NaN }, "maxBodyBytes"],
    [{ maxChoices: 1.5 }, "maxChoices"],
    [{ keepAliveMs: -1 }, "keepAliveMs"],
    [{ logLevel: "loud" }, "logLevel"],
  ])("%j is refused by name", (options, name) => {
    const make = () =>
      createApp({ engine: new ScriptedEngine(), tokenizer: demoTokenizer(), options });
    expect(make).toThrow(ServerOptionError);
    expect(make).toThrow(name);
  });
});

describe("request ids", () => {
  it("are taken over when harmless, else made", async () => {
    const { fetch } = await testApp();
    const id = async (given: string) =>
      (await fetch("/health", { headers: { "x-request-id": given } })).headers.get("x-request-id");
    expect(await id("abc-123")).toBe("abc-123");
    expect(await id("x".repeat(129))).toMatch(/^req-[0-9a-f-]{36}$/);
    expect(await id('"},{"level":60')).toMatch(/^req-/);
  });
});
