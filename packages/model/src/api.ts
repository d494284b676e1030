// What the engine and the command line see of a model: a forward pass over a paged KV cache, and a
// tokenizer. How a checkpoint becomes these is the rest of this package.

import type { Device, WarmupOptions } from "@open-infra/jit";
import type { Tensor } from "@open-infra/tensor";
import type { ModelConfig } from "./config.ts";

/**
 * How weights and activations are computed. `bf16` and `f32` name the activation and cache type
 * (weights stay as stored, `f32` computes them exactly); `w8a8` quantises activations to FP8
 * (1×128) and needs a native FP8 checkpoint. `auto` is `f32`.
 */
export type ComputeDType = "auto" | "bf16" | "f32" | "w8a8";

export interface LoadOptions {
  readonly device: Device;
  /** @default "auto" */
  readonly dtype?: ComputeDType;
  /**
   * With `w8a8`, the layers whose inputs are quantised: all of them as in DeepSeek's own code, or
   * those of MLPs and experts only. The README has the errors of both.
   *
   * @default "mlp"
   */
  readonly fp8Inputs?: "mlp" | "all";
  /** Bytes read so far and in all. */
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
  readonly signal?: AbortSignal;
}

/** One sequence's part of a step. */
export interface SequenceSlice {
  /** Tokens computed now; they are the last ones of the context. */
  readonly queryTokens: number;
  /** Tokens in the cache after this step, those of now included. */
  readonly contextTokens: number;
  /** Cache blocks in order; block i holds tokens i·blockTokens … */
  readonly blocks: ArrayLike<number>;
}

/** One step over many sequences; tokens of all sequences are concatenated in order. */
export interface ForwardBatch {
  /** [T] */
  readonly tokenIds: Int32Array;
  readonly sequences: readonly SequenceSlice[];
  /** Rows of [T] whose logits are wanted, ascending. */
  readonly logitRows: Int32Array;
}

/** The latent KV cache of all layers: per layer [numBlocks, blockTokens, kvLoraRank + ropeDim]. */
export interface KvCache extends Disposable {
  readonly numBlocks: number;
  readonly blockTokens: number;
  readonly bytesPerBlock: number;
}

export interface CausalLM extends Disposable {
  readonly config: ModelConfig;
  readonly dtype: Exclude<ComputeDType, "auto">;
  /** Parameters in the checkpoint. */
  readonly parameters: number;
  /** Weight bytes read to decode one token: all dense weights and the chosen experts'. */
  readonly activeWeightBytes: number;
  /** Bytes one cache block takes over all layers. */
  kvBytesPerBlock(blockTokens: number): number;
  createKvCache(options: { readonly numBlocks: number; readonly blockTokens: number }): KvCache;
  /** Compiles every kernel that steps of this model launch. */
  warmup(options?: WarmupOptions): Promise<void>;
  /**
   * Runs one step and writes the new tokens' latents into the cache.
   *
   * A row's result does not depend on what else is in the batch or how a prompt was cut in chunks.
   * Each layer writes the latents of all the batch's tokens before it reads any, so a sequence may
   * have blocks in its context that another sequence of the same batch is only now filling.
   *
   * @returns f32 [logitRows.length, vocabSize], overwritten by the next call.
   */
  forward(batch: ForwardBatch, cache: KvCache): Tensor<"f32">;
}

export interface ChatMessage {
  readonly role: string;
  readonly content: string | null;
  readonly [key: string]: unknown;
}

export interface ChatTemplateOptions {
  /** @default true */
  readonly addGenerationPrompt?: boolean;
  readonly tools?: readonly unknown[];
  /** Extra variables for the template. */
  readonly variables?: Readonly<Record<string, unknown>>;
}

/** Turns token ids into text piece by piece, holding back incomplete characters. */
export interface Detokenizer {
  /** Text that became certain with this token. */
  push(tokenId: number): string;
  /** Whatever is still held back. */
  flush(): string;
}

export interface Tokenizer {
  readonly vocabSize: number;
  readonly bosTokenId: number | undefined;
  readonly eosTokenIds: readonly number[];
  /** @param options.addSpecialTokens @default true */
  encode(text: string, options?: { readonly addSpecialTokens?: boolean }): number[];
  /** @param options.skipSpecialTokens @default true */
  decode(ids: readonly number[], options?: { readonly skipSpecialTokens?: boolean }): string;
  /** The raw bytes a token stands for. */
  tokenBytes(id: number): Uint8Array;
  isSpecial(id: number): boolean;
  createDetokenizer(options?: { readonly skipSpecialTokens?: boolean }): Detokenizer;
  readonly hasChatTemplate: boolean;
  /**
   * @throws ChatTemplateError when the model has no template or the template rejects the messages.
   */
  applyChatTemplate(messages: readonly ChatMessage[], options?: ChatTemplateOptions): string;
}
