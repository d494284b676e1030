// One request from sending to its end, with a scripted client, a hand-cranked frame and a clock.

import { describe, expect, it } from "vitest";
import { ApiError } from "../web/src/api/errors.ts";
import type { CompletionChunk } from "../web/src/api/wire.ts";
import { Generation } from "../web/src/pages/chat/generation.ts";
import { metricsOf } from "../web/src/pages/chat/metrics.ts";
import { type Scheduler, TextBatcher } from "../web/src/ui/frames.ts";

/** Frames that run when the test says so. */
function handFrames(): { readonly schedule: Scheduler; run(): void; waiting(): number } {
  let waiting: (() => void)[] = [];
  return {
    schedule: (run) => {
      waiting.push(run);
      return () => {
        waiting = waiting.filter((other) => other !== run);
      };
    },
    run: () => {
      const due = waiting;
      waiting = [];
      for (const run of due) run();
    },
    waiting: () => waiting.length,
  };
}

type Complete = (signal: AbortSignal) => AsyncGenerator<CompletionChunk, void, void>;

function start(complete: Complete, frames = handFrames()) {
  let time = 1000;
  const generation = new Generation({
    client: { complete: (_path, _body, signal) => complete(signal) },
    path: "v1/completions",
    body: () => ({}),
    schedule: frames.schedule,
    now: () => (time += 10),
  });
  return { generation, frames };
}

/** Lets everything that is already due happen. */
const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0));

describe("Generation", () => {
  it("changes its text once a frame, however many pieces come", async () => {
    const { promise: more, resolve: goOn } = Promise.withResolvers<void>();
    const { generation, frames } = start(async function* () {
      for (const text of ["a", "b", "c"]) yield { text };
      await more;
      yield { text: "d", finishReason: "stop" };
      yield { text: "", usage: { promptTokens: 5, completionTokens: 4, cachedTokens: 2 } };
    });
    const seen: string[] = [];
    generation.text.subscribe((text) => seen.push(text));
    await settle();
    expect(generation.state.value.phase).toBe("waiting");
    expect(frames.waiting()).toBe(1);
    frames.run();
    expect(generation.state.value.phase).toBe("streaming");
    goOn();
    await generation.ended;
    expect(seen).toEqual(["", "abc", "abcd"]);
    expect(generation.state.value).toEqual({ phase: "finished", reason: "stop" });
    expect(generation.metrics.value).toMatchObject({
      estimated: false,
      promptTokens: 5,
      completionTokens: 4,
      cachedTokens: 2,
    });
    expect(frames.waiting()).toBe(0);
  });

  it("keeps the text that came before the user's stop", async () => {
    const { generation } = start(async function* (signal) {
      yield { text: "half" };
      await new Promise<void>((_, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason));
      });
    });
    await settle();
    generation.stop();
    await generation.ended;
    expect(generation.state.value).toEqual({ phase: "stopped" });
    expect(generation.text.value).toBe("half");
    expect(generation.running).toBe(false);
  });

  it("carries the API's error", async () => {
    const error = new ApiError("full", { kind: "overloaded", status: 429 });
    // biome-ignore lint/correctness/useYield: it fails before it yields
    const { generation } = start(async function* () {
      throw error;
    });
    await generation.ended;
    expect(generation.state.value).toEqual({ phase: "failed", error });
  });

  it("shows a fault of its own instead of losing it", async () => {
    // biome-ignore lint/correctness/useYield: it fails before it yields
    const { generation } = start(async function* () {
      throw new TypeError("oops");
    });
    await generation.ended;
    expect(generation.state.value).toMatchObject({
      phase: "failed",
      error: { message: "The console failed: oops" },
    });
  });
});

describe("metricsOf", () => {
  const times = { sentAt: 100, firstTextAt: 350, lastTextAt: 1350, textChunks: 21 };

  it("counts tokens after the first over the time since the first", () => {
    expect(metricsOf(times, undefined)).toMatchObject({
      timeToFirstTokenMs: 250,
      tokensPerSecond: 20,
      estimated: true,
      completionTokens: 21,
    });
    const usage = { promptTokens: 3, completionTokens: 41 };
    expect(metricsOf(times, usage)).toMatchObject({ tokensPerSecond: 40, cachedTokens: null });
  });

  it("has no speed for one token and no latency for none", () => {
    const one = { ...times, lastTextAt: 350, textChunks: 1 };
    expect(metricsOf(one, undefined).tokensPerSecond).toBeNull();
    const none = { sentAt: 1, firstTextAt: null, lastTextAt: null, textChunks: 0 };
    expect(metricsOf(none, undefined).timeToFirstTokenMs).toBeNull();
  });
});

describe("TextBatcher", () => {
  it("asks for one frame, and for none when there is nothing", () => {
    const frames = handFrames();
    const got: string[] = [];
    const batcher = new TextBatcher(frames.schedule, (text) => got.push(text));
    batcher.push("");
    expect(frames.waiting()).toBe(0);
    batcher.push("a");
    batcher.push("b");
    expect(frames.waiting()).toBe(1);
    frames.run();
    batcher.push("c");
    batcher.flush();
    frames.run();
    expect(got).toEqual(["ab", "c"]);
  });
});
