// What the tests of the forward pass share: where checkpoints lie, and greedy continuation.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { sharedDir } from "@open-infra/testing";
import type { CausalLM, KvCache } from "../src/index.ts";

export interface GoldenCase {
  readonly prompt: number[];
  readonly last_logits: number[];
  readonly token_logprobs: number[];
  readonly logit_std: number;
  readonly greedy?: number[];
  /** Difference between the best and the second logit at each greedy step. */
  readonly greedy_margin?: number[];
}

export function goldenCases(dir: string): GoldenCase[] {
  return (JSON.parse(readFileSync(join(dir, "golden.json"), "utf8")) as { cases: GoldenCase[] })
    .cases;
}

export interface GoldenDir {
  readonly name: string;
  readonly dir: string | undefined;
  /** Lies in this repository, so that its absence is a fault. */
  readonly own: boolean;
}

function ownDir(path: string): string {
  return fileURLToPath(new URL(path, import.meta.url));
}

export const fixture = (name: string): string => ownDir(`../fixtures/${name}`);

export const goldenDirs: readonly GoldenDir[] = [
  { name: "small-v3-bf16", dir: fixture("small-v3-bf16"), own: true },
  { name: "small-v3-fp8", dir: fixture("small-v3-fp8"), own: true },
  { name: "demo", dir: ownDir("../../demo-model/model"), own: true },
  ...["v3-bf16", "v3-fp8", "v2-lite-bf16"].map((name) => ({
    name: `gold/${name}`,
    dir: sharedDir(`gold/${name}`),
    own: false,
  })),
];

export function isFp8(dir: string): boolean {
  return readFileSync(join(dir, "config.json"), "utf8").includes('"quantization_config"');
}

/** Pages 0, 1, … for one sequence of up to `tokens` tokens. */
export function onePageList(tokens: number, blockTokens: number): number[] {
  return Array.from({ length: Math.ceil(tokens / blockTokens) }, (_, i) => i);
}

/** Logits of every token of `ids`, computed in chunks of the given sizes (the last one repeats). */
export function allLogits(
  model: CausalLM,
  cache: KvCache,
  ids: readonly number[],
  chunks: readonly number[],
  blocks: readonly number[],
): Float32Array[] {
  const rows: Float32Array[] = [];
  for (let at = 0, i = 0; at < ids.length; i++) {
    const size = chunks[Math.min(i, chunks.length - 1)] as number;
    const now = ids.slice(at, at + size);
    const logits = model.forward(
      {
        tokenIds: Int32Array.from(now),
        sequences: [{ queryTokens: now.length, contextTokens: at + now.length, blocks }],
        logitRows: Int32Array.from(now, (_, r) => r),
      },
      cache,
    );
    for (let r = 0; r < now.length; r++) rows.push(logits.select(0, r).toFloat32());
    at += now.length;
  }
  return rows;
}

export function argmax(values: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}

/** Greedy continuation, token by token over one cache. */
export function greedy(model: CausalLM, prompt: readonly number[], count: number): number[] {
  const blocks = onePageList(prompt.length + count, 64);
  using cache = model.createKvCache({ numBlocks: blocks.length, blockTokens: 64 });
  const out: number[] = [];
  let now = [...prompt];
  let context = 0;
  while (out.length < count) {
    context += now.length;
    const logits = model.forward(
      {
        tokenIds: Int32Array.from(now),
        sequences: [{ queryTokens: now.length, contextTokens: context, blocks }],
        logitRows: Int32Array.of(now.length - 1),
      },
      cache,
    );
    now = [argmax(logits.raw())];
    out.push(now[0] as number);
  }
  return out;
}
