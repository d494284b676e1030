// Long texts through the worker thread: the same tokens, with the event loop free meanwhile.

import { demoModelDir } from "@open-infra/demo-model";
import { seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, afterEach, describe, expect, it } from "vitest";
import { Encoder } from "../src/encoder.ts";
import { demoTokenizer } from "./helpers/http.ts";

const tokenizer = demoTokenizer();
const signal = new AbortController().signal;
// One worker for the tests that need no other.
const shared = new Encoder({ tokenizer, dir: demoModelDir, inlineChars: 0 });
afterAll(() => shared.close());
const encoders: Encoder[] = [];
afterEach(async () => {
  for (const encoder of encoders.splice(0)) await encoder.close();
});

function open(inlineChars: number, dir = demoModelDir): Encoder {
  const encoder = new Encoder({ tokenizer, dir, inlineChars });
  encoders.push(encoder);
  return encoder;
}

describe("the worker", () => {
  it("gives the tokens that the thread itself would", async () => {
    const encoder = shared;
    const texts = ["", "a", "def f(x):\n    return x\n".repeat(300), "né😀".repeat(500)];
    const jobs = texts.flatMap((text) => [true, false].map((add) => ({ text, add })));
    const found = await Promise.all(
      jobs.map(({ text, add }) => encoder.encode(text, { addSpecialTokens: add, signal })),
    );
    expect(found).toEqual(
      jobs.map(({ text, add }) => tokenizer.encode(text, { addSpecialTokens: add })),
    );
  });

  it("leaves the event loop free", async () => {
    const encoder = shared;
    await encoder.encode("x".repeat(1001), { addSpecialTokens: false, signal });
    let turns = 0;
    const counter = setInterval(() => turns++, 1);
    const ids = await encoder.encode("import os\n".repeat(30_000), {
      addSpecialTokens: false,
      signal,
    });
    clearInterval(counter);
    expect(ids.length).toBeGreaterThan(10_000);
    expect(turns).toBeGreaterThan(3);
  });

  it("skips those who have left", async () => {
    const encoder = shared;
    const leaving = new AbortController();
    const first = encoder.encode("x".repeat(1000), { addSpecialTokens: false, signal });
    const second = encoder.encode("y", { addSpecialTokens: false, signal: leaving.signal });
    const third = encoder.encode("z", { addSpecialTokens: false, signal });
    leaving.abort(new Error("gone"));
    await expect(second).rejects.toThrow("gone");
    await first;
    expect(await third).toEqual(tokenizer.encode("z", { addSpecialTokens: false }));
  });

  it("that cannot start is an error, and nothing hangs", async () => {
    const encoder = open(0, "/nowhere/at/all");
    const jobs = ["a", "b"].map((text) => encoder.encode(text, { addSpecialTokens: true, signal }));
    for (const result of await Promise.allSettled(jobs)) expect(result.status).toBe("rejected");
    await expect(encoder.encode("c", { addSpecialTokens: true, signal })).rejects.toThrow();
  });

  it("that is closed refuses, and what waits ends", async () => {
    const encoder = open(0);
    const waiting = encoder.encode("x".repeat(100_000), { addSpecialTokens: true, signal });
    const ended = expect(waiting).rejects.toThrow("shutting down");
    await encoder.close();
    await ended;
    await expect(encoder.encode("x", { addSpecialTokens: true, signal })).rejects.toThrow();
  });
});

describe("the least number of tokens", () => {
  it("never exceeds the real one", () => {
    const encoder = open(1e9);
    const random = seededRandom(testSeed());
    const pieces = [
      "    ",
      "def ",
      "é",
      "😀",
      "\n",
      "return",
      "ÀÁÂ",
      " ".repeat(64),
      "=".repeat(80),
      "a",
    ];
    for (let i = 0; i < 200; i++) {
      const text = Array.from({ length: random.int(0, 300) }, () => random.pick(pieces)).join("");
      const real = tokenizer.encode(text, { addSpecialTokens: false }).length;
      expect(encoder.leastTokens(text), `seed ${random.seed}: ${text}`).toBeLessThanOrEqual(real);
    }
    expect(encoder.leastTokens("x".repeat(1_000_000))).toBeGreaterThan(1024);
  });
});

describe("decoding", () => {
  it("gives a long list's text, special tokens included, in slices", async () => {
    const encoder = open(0);
    const ids = tokenizer.encode("é😀 def\n".repeat(5000));
    let turns = 0;
    const counter = setImmediate(function turn() {
      turns++;
      if (turns < 1000) setImmediate(turn);
    });
    const text = await encoder.decode(ids);
    clearImmediate(counter);
    expect(text).toBe(tokenizer.decode(ids, { skipSpecialTokens: false }));
    expect(turns).toBeGreaterThan(2);
  });
});
