// The engine as the server holds it: a worker thread behind EngineClient.

import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { demoModelDir } from "@open-infra/demo-model";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { GenerateEvent, GenerateRequest, SamplingParams } from "../src/api.ts";
import { WorkerEngineClient } from "../src/client.ts";
import {
  EngineOptionError,
  EngineOverloadedError,
  EngineStoppedError,
  RequestError,
} from "../src/errors.ts";
import { startEngine } from "../src/index.ts";
import type { EngineOptions } from "../src/options.ts";

const prompt = [0, 458, 289, 1386, 269, 1204, 484, 1107, 312];

const start = (more: Partial<EngineOptions> = {}): Promise<WorkerEngineClient> =>
  WorkerEngineClient.start({ modelDir: demoModelDir, dtype: "f32", onLog: () => {}, ...more });

let made = 0;
function ask(sampling: SamplingParams, promptTokenIds: readonly number[] = prompt) {
  return { id: `q${made++}`, promptTokenIds, sampling } satisfies GenerateRequest;
}

async function all(events: AsyncIterable<GenerateEvent>) {
  const list: GenerateEvent[] = [];
  for await (const event of events) list.push(event);
  const text = list.map((e) => (e.type === "delta" ? e.text : "")).join("");
  return { list, text, finish: list.find((e) => e.type === "finish") };
}

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; !condition(); i++) {
    if (i > 5000) throw new Error("what was waited for did not happen");
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

describe("a running engine", () => {
  let engine: WorkerEngineClient;
  const logs: string[] = [];
  const phases = new Set<string>();
  beforeAll(async () => {
    engine = await start({
      onLog: (line) => logs.push(line),
      onProgress: (phase, done, total) => {
        phases.add(phase);
        expect(done).toBeLessThanOrEqual(total);
      },
    });
  });
  afterAll(() => engine?.close());

  it("tells of its loading and of the model", () => {
    expect(phases).toContain("weights");
    expect(logs.join("\n")).toMatch(/KV cache: \d+ blocks of 64 tokens/);
    expect(engine.model).toMatchObject({
      id: "model",
      architecture: "DeepseekV3ForCausalLM",
      dtype: "f32",
      vocabSize: 2048,
      maxModelLen: 1024,
      eosTokenIds: [1],
      defaultSampling: { temperature: 0.6, topP: 0.95 },
    });
    expect(engine.model.parameters).toBeGreaterThan(9e6);
  });

  it("streams the golden continuation", async () => {
    const golden = JSON.parse(readFileSync(join(demoModelDir, "golden.json"), "utf8"));
    const { text, finish, list } = await all(
      engine.generate(ask({ temperature: 0, maxTokens: 48 })),
    );
    expect(text).toBe(golden.cases[0].greedy_text);
    expect(finish).toMatchObject({
      reason: "length",
      usage: { promptTokens: 9, completionTokens: 48 },
    });
    expect(list.filter((e) => e.type === "delta")).toHaveLength(48);
    if (finish?.type !== "finish") throw new Error("no finish");
    const { queuedMs, timeToFirstTokenMs, totalMs } = finish.timings;
    expect(queuedMs).toBeGreaterThanOrEqual(0);
    expect(timeToFirstTokenMs).toBeGreaterThanOrEqual(queuedMs);
    expect(totalMs).toBeGreaterThanOrEqual(timeToFirstTokenMs);
  });

  it("gives n seeds of one prompt n texts, and each again", async () => {
    const run = (seed: number) =>
      all(engine.generate(ask({ temperature: 1, seed, maxTokens: 12 })));
    const texts = await Promise.all([1, 2, 3, 1].map(run));
    expect(texts[3]?.text).toBe(texts[0]?.text);
    expect(new Set(texts.map((t) => t.text)).size).toBe(3);
  });

  it.each<[string, GenerateRequest, string]>([
    ["an empty prompt", ask({}, []), "promptTokenIds"],
    ["a prompt over the context", ask({}, Array(1024).fill(5)), "promptTokenIds"],
    ["an unknown token", ask({}, [2048]), "promptTokenIds[0]"],
    ["too many tokens wanted", ask({ maxTokens: 1016 }), "sampling.maxTokens"],
    ["a bad setting", ask({ topP: 2 }), "sampling.topP"],
  ])("refuses %s and lives on", async (_, request, parameter) => {
    await expect(all(engine.generate(request))).rejects.toThrow(RequestError);
    await expect(all(engine.generate({ ...request, id: "again" }))).rejects.toMatchObject({
      code: "request",
      parameter,
    });
    expect(engine.stats().running).toBe(0);
  });

  it("refuses an id that is in use", async () => {
    const one = ask({ temperature: 0, maxTokens: 20 });
    const first = all(engine.generate(one));
    await expect(all(engine.generate(one))).rejects.toThrow(/id is .*no running request has/);
    expect((await first).finish).toBeDefined();
    expect((await all(engine.generate({ ...one }))).finish).toBeDefined();
  });

  it("ends an aborted request with what it has, and frees its blocks", async () => {
    const controller = new AbortController();
    const list: GenerateEvent[] = [];
    const events = engine.generate(ask({ maxTokens: 900, ignoreEos: true }), {
      signal: controller.signal,
    });
    for await (const event of events) {
      list.push(event);
      if (list.length === 3) controller.abort();
    }
    expect(list.at(-1)).toMatchObject({ type: "finish", reason: "abort" });
    expect(list.length).toBeLessThan(200);
    expect(engine.stats()).toMatchObject({ running: 0, kvBlocksUsed: 0 });
    const late = engine.generate(ask({}), { signal: AbortSignal.abort() });
    await expect(all(late)).rejects.toThrow(/abort/i);
  });

  it("frees the blocks of a request whose reader leaves the loop", async () => {
    for await (const event of engine.generate(ask({ maxTokens: 900, ignoreEos: true }))) {
      if (event.type === "delta") break;
    }
    await until(() => engine.stats().running === 0);
    expect(engine.stats()).toMatchObject({ kvBlocksUsed: 0, waiting: 0 });
  });

  it("stops computing for an iterator that nobody holds any more", async () => {
    setFlagsFromString("--expose-gc");
    const gc = runInNewContext("gc") as () => void;
    const { abort } = engine.stats().finished;
    // In a function of its own, so that no local variable keeps the iterator.
    const drop = (): void => {
      engine.generate(ask({ maxTokens: 1000, ignoreEos: true }));
    };
    drop();
    await until(() => {
      gc();
      return engine.stats().finished.abort > abort;
    });
    expect(engine.stats()).toMatchObject({ running: 0, kvBlocksUsed: 0 });
  });

  it("answers on the main thread while it computes", async () => {
    const running = all(engine.generate(ask({ maxTokens: 200, temperature: 0, ignoreEos: true })));
    let turns = 0;
    let busy = true;
    const spin = (): void => {
      turns++;
      if (busy) setImmediate(spin);
    };
    spin();
    await running;
    busy = false;
    expect(turns).toBeGreaterThan(100);
  });
});

describe("an engine at its limits", () => {
  it("refuses more than it may queue, and serves the others", async () => {
    await using engine = await start({ maxSequences: 1, maxQueue: 1 });
    const runs = [1, 2].map(() => all(engine.generate(ask({ maxTokens: 40, ignoreEos: true }))));
    const refused = all(engine.generate(ask({})));
    await expect(refused).rejects.toThrow(EngineOverloadedError);
    await expect(all(engine.generate(ask({})))).rejects.toMatchObject({
      code: "overloaded",
      pending: 2,
      limit: 2,
    });
    const finished = await Promise.all(runs);
    expect(finished.map((r) => r.finish)).toMatchObject([
      { reason: "length" },
      { reason: "length" },
    ]);
  });

  it("drains: refuses the new, finishes the old, aborts what takes too long", async () => {
    await using engine = await start();
    const quick = all(engine.generate(ask({ maxTokens: 4, ignoreEos: true })));
    await engine.drain(60_000);
    await expect(all(engine.generate(ask({})))).rejects.toThrow(EngineStoppedError);
    expect((await quick).finish).toMatchObject({ reason: "length" });

    await using other = await start();
    const slow = all(other.generate(ask({ maxTokens: 1000, ignoreEos: true })));
    await other.drain(1);
    expect((await slow).finish).toMatchObject({ reason: "abort" });
  });

  it("writes a trace on close, and ends running requests", async () => {
    const dir = mkdtempSync(join(tmpdir(), "open-infra-engine-"));
    try {
      const tracePath = join(dir, "trace.json");
      const engine = await start({ tracePath });
      await all(engine.generate(ask({ maxTokens: 3 })));
      const running = all(engine.generate(ask({ maxTokens: 1000, ignoreEos: true })));
      await engine.close();
      await engine.close();
      expect((await running).finish).toMatchObject({ reason: "abort" });
      await expect(all(engine.generate(ask({})))).rejects.toThrow(EngineStoppedError);
      await expect(engine.failed).resolves.toBeInstanceOf(EngineStoppedError);
      const { traceEvents } = JSON.parse(readFileSync(tracePath, "utf8"));
      const names = new Set(traceEvents.map((e: { name: string }) => e.name));
      expect([...names]).toEqual(expect.arrayContaining(["step", "forward", "sample"]));
    } finally {
      rmSync(dir, { recursive: true });
    }
  });

  it("rejects everything when its thread is killed", async () => {
    const engine = await start();
    const running = [1, 2].map(() => all(engine.generate(ask({ maxTokens: 1000 }))));
    await until(() => engine.stats().running === 2);
    await engine.worker.terminate();
    for (const run of running) await expect(run).rejects.toThrow(EngineStoppedError);
    await expect(engine.failed).rejects.toThrow(/thread ended/);
    await expect(all(engine.generate(ask({})))).rejects.toThrow(EngineStoppedError);
    await engine.drain(1000);
    await engine.close();
  });
});

describe("an engine that cannot start", () => {
  it.each<[string, Partial<EngineOptions>, string]>([
    ["maxSequences", { maxSequences: 0 }, "maxSequences is 0"],
    ["budget", { maxBatchedTokens: 8, maxSequences: 9 }, "at least maxSequences"],
    ["dtype", { dtype: "f64" as "f32" }, "option dtype is 'f64'"],
    ["context", { maxModelLen: 2000 }, "at most 1024"],
    ["cache", { kvCacheBytes: 10 }, "one block of 64 tokens"],
    ["context and cache", { numBlocks: 2, maxModelLen: 129 }, "at most 128"],
    ["trace", { tracePath: "/nowhere/trace.json" }, "a file I can create"],
  ])("says why: %s", async (_, options, message) => {
    await expect(start(options)).rejects.toThrow(EngineOptionError);
    await expect(start(options)).rejects.toThrow(message);
  });

  it("passes the loader's error on, with its code", async () => {
    const failure = startEngine({ modelDir: join(tmpdir(), "no-such-model"), onLog: () => {} });
    await expect(failure).rejects.toMatchObject({ code: expect.any(String), name: /Error$/ });
    expect(existsSync(join(tmpdir(), "no-such-model"))).toBe(false);
  });

  it("gives up loading when told to", async () => {
    const controller = new AbortController();
    const starting = start({ signal: controller.signal });
    controller.abort(new Error("changed my mind"));
    await expect(starting).rejects.toThrow("changed my mind");
  });
});
