// A model and tokenizer for tests of scheduling: small, exact, and unforgiving. The logits after a
// token depend on every token before it, read back through the block table, so a block that was
// shared, freed or recomputed wrongly changes the text. No test of numerics uses it.

import { ReferenceDevice } from "@open-infra/jit";
import type { CausalLM, ForwardBatch, KvCache, ModelConfig, Tokenizer } from "@open-infra/model";
import { Tensor } from "@open-infra/tensor";
import type { GenerateEvent, GenerateRequest, SamplingParams } from "../src/api.ts";
import { EngineCore, type EngineCoreOptions, type EngineOutput } from "../src/core.ts";

export const FAKE_VOCAB = 40;
const EMPTY = -1;

class FakeCache implements KvCache {
  readonly numBlocks: number;
  readonly blockTokens: number;
  readonly bytesPerBlock = 4;
  readonly slots: Int32Array;

  constructor(numBlocks: number, blockTokens: number) {
    this.numBlocks = numBlocks;
    this.blockTokens = blockTokens;
    this.slots = new Int32Array(numBlocks * blockTokens).fill(EMPTY);
  }

  [Symbol.dispose](): void {}
}

export class FakeModel implements CausalLM {
  readonly config = { vocabSize: FAKE_VOCAB, maxPositionEmbeddings: 4096 } as ModelConfig;
  readonly dtype = "f32";
  readonly parameters = 0;
  readonly activeWeightBytes = 0;
  /** Steps so far, as (tokens, sequences). */
  readonly steps: { readonly tokens: number; readonly sequences: number }[] = [];
  /** Replaces a row's logits; for poisoning them. */
  poison: ((context: readonly number[], row: Float32Array) => void) | undefined;

  kvBytesPerBlock(): number {
    return 4;
  }

  createKvCache(options: { readonly numBlocks: number; readonly blockTokens: number }): FakeCache {
    return new FakeCache(options.numBlocks, options.blockTokens);
  }

  async warmup(): Promise<void> {}

  forward(batch: ForwardBatch, cache: KvCache): Tensor<"f32"> {
    const { slots, blockTokens } = cache as FakeCache;
    this.steps.push({ tokens: batch.tokenIds.length, sequences: batch.sequences.length });
    const logits = Tensor.empty([batch.logitRows.length, FAKE_VOCAB], "f32", "logits");
    const wanted = new Map(Array.from(batch.logitRows, (token, row) => [token, row]));
    const slotOf = (blocks: ArrayLike<number>, i: number): number =>
      (blocks[Math.floor(i / blockTokens)] as number) * blockTokens + (i % blockTokens);
    // As in the real one, everything is written before anything is read.
    let at = 0;
    for (const { queryTokens, contextTokens, blocks } of batch.sequences) {
      for (let i = contextTokens - queryTokens; i < contextTokens; i++, at++) {
        slots[slotOf(blocks, i)] = batch.tokenIds[at] as number;
      }
    }
    at = 0;
    for (const { queryTokens, contextTokens, blocks } of batch.sequences) {
      for (let i = contextTokens - queryTokens; i < contextTokens; i++, at++) {
        const row = wanted.get(at);
        if (row === undefined) continue;
        const context = Array.from({ length: i + 1 }, (_, t) => slots[slotOf(blocks, t)] as number);
        if (context.includes(EMPTY)) throw new Error("a slot was read before it was written");
        const values = logits.select(0, row).raw();
        fillLogits(context, values);
        this.poison?.(context, values);
      }
    }
    if (at !== batch.tokenIds.length) throw new Error("tokens and sequences do not add up");
    return logits;
  }

  [Symbol.dispose](): void {}
}

/** Pseudo-random logits from all of the context, each token counting by its place. */
function fillLogits(context: readonly number[], row: Float32Array): void {
  let hash = 0x811c9dc5;
  for (const token of context) hash = Math.imul(hash ^ (token + 1), 0x01000193) >>> 0;
  for (let id = 0; id < row.length; id++) {
    let x = Math.imul(hash ^ Math.imul(id + 1, 0x9e3779b1), 0x85ebca6b);
    x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
    row[id] = ((x ^ (x >>> 16)) >>> 0) / 2 ** 30;
  }
}

/** One letter a token: 0 to 25 lower case, then upper case. No token is special. */
export const fakeTokenizer: Tokenizer = {
  vocabSize: FAKE_VOCAB,
  bosTokenId: undefined,
  eosTokenIds: [],
  encode: (text) => Array.from(text, (c) => c.charCodeAt(0) - (c < "a" ? 39 : 97)),
  decode: (ids) => ids.map(letter).join(""),
  tokenBytes: (id) => new TextEncoder().encode(letter(id)),
  isSpecial: () => false,
  createDetokenizer: () => ({ push: letter, flush: () => "" }),
  hasChatTemplate: false,
  applyChatTemplate: () => {
    throw new Error("the fake has no template");
  },
};

function letter(id: number): string {
  return String.fromCharCode(id < 26 ? 97 + id : 39 + id);
}

export function fakeCore(
  options: Partial<EngineCoreOptions> = {},
  model: FakeModel = new FakeModel(),
): EngineCore {
  return new EngineCore({
    model,
    tokenizer: fakeTokenizer,
    device: new ReferenceDevice(),
    numBlocks: 64,
    maxBatchedTokens: 128,
    maxSequences: 16,
    maxQueue: 1000,
    maxModelLen: 1024,
    eosTokenIds: [],
    ...options,
  });
}

export interface Finished {
  readonly text: string;
  readonly tokenIds: readonly number[];
  readonly events: readonly GenerateEvent[];
  readonly finish: Extract<GenerateEvent, { type: "finish" }> | undefined;
  readonly error: Error | undefined;
}

/** Gathers what a core's steps bring, by key. */
export class Collector {
  readonly #events = new Map<number, GenerateEvent[]>();
  readonly #errors = new Map<number, Error>();

  take(outputs: readonly EngineOutput[]): void {
    for (const { key, events, error } of outputs) {
      const list = this.#events.get(key) ?? [];
      list.push(...events);
      this.#events.set(key, list);
      if (error !== undefined) this.#errors.set(key, error);
    }
  }

  result(key: number): Finished {
    const events = this.#events.get(key) ?? [];
    const deltas = events.filter((e) => e.type === "delta");
    return {
      text: deltas.map((e) => e.text).join(""),
      tokenIds: deltas.flatMap((e) => e.tokenIds),
      events,
      finish: events.find((e) => e.type === "finish"),
      error: this.#errors.get(key),
    };
  }
}

export function request(
  id: string,
  promptTokenIds: readonly number[],
  sampling: SamplingParams,
): GenerateRequest {
  return { id, promptTokenIds, sampling };
}

/** Runs requests together to their ends. */
export function runAll(core: EngineCore, requests: readonly GenerateRequest[]): Finished[] {
  const collector = new Collector();
  for (const [key, one] of requests.entries()) core.add(key, one);
  for (let step = 0; core.hasWork; step++) {
    if (step > 100_000) throw new Error("the engine does not come to an end");
    collector.take(core.step());
  }
  return requests.map((_, key) => collector.result(key));
}
