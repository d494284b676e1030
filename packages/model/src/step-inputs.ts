// Turns a batch of sequence slices into the index tensors that the kernels read, and refuses what
// would make a kernel leave its tables.

import type { Tensor } from "@open-infra/tensor";
import type { ForwardBatch, KvCache, SequenceSlice } from "./api.ts";
import type { ModelConfig } from "./config.ts";
import { ForwardError } from "./errors.ts";
import type { Workspace } from "./workspace.ts";

/** Everything i32. T tokens, B sequences. */
export interface StepInputs {
  /** [T] */
  readonly ids: Tensor<"i32">;
  /** [T]: places in their own sequences. */
  readonly positions: Tensor<"i32">;
  /** [T]: rows of the cache. */
  readonly slots: Tensor<"i32">;
  /** [B + 1] */
  readonly cuSeqlensQ: Tensor<"i32">;
  /** [B] */
  readonly contextLens: Tensor<"i32">;
  /** [B, the longest sequence's blocks] */
  readonly blockTable: Tensor<"i32">;
  /** [R] */
  readonly logitRows: Tensor<"i32">;
  readonly maxContext: number;
}

function checkSlice(slice: SequenceSlice, at: number, config: ModelConfig, cache: KvCache): void {
  const { queryTokens, contextTokens, blocks } = slice;
  const where = `forward: sequence ${at}`;
  if (!Number.isSafeInteger(queryTokens) || queryTokens < 1) {
    throw new ForwardError(`${where} has ${queryTokens} query tokens; expected at least 1`);
  }
  if (!Number.isSafeInteger(contextTokens) || contextTokens < queryTokens) {
    throw new ForwardError(
      `${where} has ${contextTokens} context tokens, fewer than its ${queryTokens} query tokens`,
    );
  }
  if (contextTokens > config.maxPositionEmbeddings) {
    throw new ForwardError(
      `${where} has ${contextTokens} context tokens; the model's max_position_embeddings is ` +
        `${config.maxPositionEmbeddings}`,
    );
  }
  const needed = Math.ceil(contextTokens / cache.blockTokens);
  if (blocks.length < needed) {
    throw new ForwardError(
      `${where} has ${blocks.length} cache blocks; its ${contextTokens} tokens need ${needed}`,
    );
  }
  for (let i = 0; i < needed; i++) {
    const block = blocks[i] as number;
    if (!(Number.isInteger(block) && block >= 0 && block < cache.numBlocks)) {
      throw new ForwardError(
        `${where} names cache block ${block}; the cache has ${cache.numBlocks}`,
      );
    }
  }
}

function checkBatch(batch: ForwardBatch, config: ModelConfig, cache: KvCache): void {
  const { tokenIds, sequences, logitRows } = batch;
  sequences.forEach((slice, at) => {
    checkSlice(slice, at, config, cache);
  });
  const tokens = sequences.reduce((sum, { queryTokens }) => sum + queryTokens, 0);
  if (tokens !== tokenIds.length || tokens === 0) {
    throw new ForwardError(
      `forward: ${tokenIds.length} token ids, but the sequences' query tokens sum to ${tokens}` +
        (tokens === 0 ? "; expected at least 1" : ""),
    );
  }
  for (const id of tokenIds) {
    if (id < 0 || id >= config.vocabSize) {
      throw new ForwardError(`forward: token id ${id}; the vocabulary has ${config.vocabSize}`);
    }
  }
  let last = -1;
  for (const row of logitRows) {
    if (row <= last || row >= tokens) {
      throw new ForwardError(
        `forward: logit rows must ascend within 0..${tokens - 1}; ${row} follows ${last}`,
      );
    }
    last = row;
  }
}

/** Checks the batch and fills the index tensors. @throws ForwardError */
export function stepInputs(
  batch: ForwardBatch,
  config: ModelConfig,
  cache: KvCache,
  workspace: Workspace,
): StepInputs {
  checkBatch(batch, config, cache);
  const { tokenIds, sequences, logitRows } = batch;
  const { blockTokens } = cache;
  const maxContext = sequences.reduce((max, s) => Math.max(max, s.contextTokens), 0);
  const width = Math.ceil(maxContext / blockTokens);
  const i32 = (name: string, ...shape: number[]) => workspace.tensor(name, shape, "i32");
  const inputs: StepInputs = {
    ids: i32("ids", tokenIds.length),
    positions: i32("positions", tokenIds.length),
    slots: i32("slots", tokenIds.length),
    cuSeqlensQ: i32("cuSeqlensQ", sequences.length + 1),
    contextLens: i32("contextLens", sequences.length),
    blockTable: i32("blockTable", sequences.length, width),
    logitRows: i32("logitRows", logitRows.length),
    maxContext,
  };
  inputs.ids.raw().set(tokenIds);
  inputs.logitRows.raw().set(logitRows);
  const positions = inputs.positions.raw();
  const slots = inputs.slots.raw();
  const starts = inputs.cuSeqlensQ.raw();
  const contexts = inputs.contextLens.raw();
  const table = inputs.blockTable.raw().fill(0);
  let at = 0;
  sequences.forEach(({ queryTokens, contextTokens, blocks }, b) => {
    starts[b] = at;
    contexts[b] = contextTokens;
    const used = Math.ceil(contextTokens / blockTokens);
    for (let i = 0; i < used; i++) table[b * width + i] = blocks[i] as number;
    for (let p = contextTokens - queryTokens; p < contextTokens; p++, at++) {
      positions[at] = p;
      slots[at] = (blocks[Math.floor(p / blockTokens)] as number) * blockTokens + (p % blockTokens);
    }
  });
  starts[sequences.length] = at;
  return inputs;
}
