// A row does not know its batch: bit for bit the same logits however a prompt is cut, whoever
// shares the step, wherever its pages lie, and on any number of threads.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createDevice, type Device, findCompiler } from "@open-infra/jit";
import { requirement, seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type CausalLM, type ComputeDType, loadModel, writeRandomModel } from "../src/index.ts";
import { allLogits, onePageList } from "./helpers.ts";

const seed = testSeed();
const missing = findCompiler() === undefined ? "no C compiler; install gcc or clang" : true;

describe.skipIf(requirement("batch invariance", missing))("a row does not know its batch", () => {
  const scratch = mkdtempSync(join(tmpdir(), "open-infra-invariance-"));
  let one: Device;
  let two: Device;
  beforeAll(async () => {
    one = createDevice({ backend: "cpu", threads: 1 });
    two = createDevice({ backend: "cpu", threads: 2 });
    for (const preset of ["v3-tiny", "v2-tiny"]) {
      await writeRandomModel({ preset, seed, dir: join(scratch, preset) });
    }
  });
  afterAll(() => {
    one[Symbol.dispose]();
    two[Symbol.dispose]();
    rmSync(scratch, { recursive: true, force: true });
  });

  const cases: [string, ComputeDType][] = [
    ["v3-tiny", "f32"],
    ["v3-tiny", "bf16"],
    ["v3-tiny", "w8a8"],
    ["v2-tiny", "f32"],
    ["v2-tiny", "bf16"],
  ];

  it.each(cases)("%s %s: whole, in chunks, token by token", async (preset, dtype) => {
    const ids = randomIds(90);
    const logitsOn = async (device: Device, chunks: readonly number[]) => {
      using model = await loadModel(join(scratch, preset), { device, dtype });
      using cache = model.createKvCache({ numBlocks: 6, blockTokens: 16 });
      return allLogits(model, cache, ids, chunks, onePageList(90, 16));
    };
    const whole = await logitsOn(two, [90]);
    expect(whole.length).toBe(90);
    for (const [device, chunks] of [
      [two, [1]],
      [two, [7, 33, 2, 48]],
      [one, [64]],
    ] as const) {
      const got = await logitsOn(device, chunks);
      got.forEach((row, t) => {
        expect(row, `seed ${seed}, token ${t}, chunks ${chunks}`).toEqual(whole[t]);
      });
    }
  });

  it.each(cases)("%s %s: alone and among others", async (preset, dtype) => {
    using model = await loadModel(join(scratch, preset), { device: two, dtype });
    const alone = [70, 5, 33].map((length, i) => {
      const ids = randomIds(length, i);
      using cache = model.createKvCache({ numBlocks: 5, blockTokens: 16 });
      return { ids, rows: allLogits(model, cache, ids, [length], onePageList(length, 16)) };
    });
    const together = batched(
      model,
      alone.map(({ ids }) => ids),
    );
    alone.forEach(({ rows }, i) => {
      const [prefill, decode] = together[i] as [Float32Array, Float32Array];
      const where = `seed ${seed}, sequence ${i}`;
      expect(prefill, where).toEqual(rows.at(-2));
      expect(decode, where).toEqual(rows.at(-1));
    });
  });

  /** All sequences' prompts but the last token in one step, then the last tokens in one step. */
  function batched(model: CausalLM, prompts: readonly number[][]): Float32Array[][] {
    using cache = model.createKvCache({ numBlocks: 20, blockTokens: 16 });
    const pages = Array.from({ length: 20 }, (_, i) => (i * 7) % 20);
    const blocks = prompts.map((_, i) => pages.slice(i * 6, i * 6 + 6));
    const step = (from: (ids: number[]) => number[], context: (ids: number[]) => number) => {
      const parts = prompts.map(from);
      let end = 0;
      const lastRows = parts.map((part) => (end += part.length) - 1);
      const logits = model.forward(
        {
          tokenIds: Int32Array.from(parts.flat()),
          sequences: prompts.map((ids, i) => ({
            queryTokens: parts[i]!.length,
            contextTokens: context(ids),
            blocks: blocks[i]!,
          })),
          logitRows: Int32Array.from(lastRows),
        },
        cache,
      );
      return prompts.map((_, i) => logits.select(0, i).toFloat32());
    };
    const prefill = step(
      (ids) => ids.slice(0, -1),
      (ids) => ids.length - 1,
    );
    const decode = step(
      (ids) => ids.slice(-1),
      (ids) => ids.length,
    );
    return prompts.map((_, i) => [prefill[i]!, decode[i]!]);
  }

  function randomIds(length: number, salt = 0): number[] {
    const random = seededRandom(seed + salt);
    return Array.from({ length }, () => random.int(0, 1024));
  }
});
