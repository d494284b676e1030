// The latent KV cache: per layer one tensor of pages, each row a token's normalised latent followed
// by its rotated shared key. Which pages belong to whom is the engine's business.

import { dtypeBits, Tensor } from "@open-infra/tensor";
import type { KvCache } from "./api.ts";
import type { ModelConfig } from "./config.ts";
import { ForwardError } from "./errors.ts";
import type { ActDType } from "./ops/common.ts";

/** Elements of one token's row. */
export function latentWidth(config: ModelConfig): number {
  return config.kvLoraRank + config.qkRopeHeadDim;
}

/** Bytes that a page of `blockTokens` tokens takes over all layers. */
export function kvBlockBytes(config: ModelConfig, dtype: ActDType, blockTokens: number): number {
  return (config.numLayers * blockTokens * latentWidth(config) * dtypeBits[dtype]) / 8;
}

export class LatentKvCache implements KvCache {
  readonly numBlocks: number;
  readonly blockTokens: number;
  readonly bytesPerBlock: number;
  readonly dtype: ActDType;
  /** Per layer [numBlocks, blockTokens, 1, kvLoraRank + ropeDim]. */
  readonly layers: readonly Tensor<ActDType>[];

  constructor(config: ModelConfig, dtype: ActDType, numBlocks: number, blockTokens: number) {
    for (const [name, n] of Object.entries({ numBlocks, blockTokens })) {
      if (!Number.isSafeInteger(n) || n < 1) {
        throw new ForwardError(`createKvCache: ${name} is ${n}; expected a positive integer`);
      }
    }
    this.numBlocks = numBlocks;
    this.blockTokens = blockTokens;
    this.dtype = dtype;
    this.bytesPerBlock = kvBlockBytes(config, dtype, blockTokens);
    const shape = [numBlocks, blockTokens, 1, latentWidth(config)];
    this.layers = Array.from({ length: config.numLayers }, (_, layer) =>
      Tensor.empty(shape, dtype, `kv cache of layer ${layer}`),
    );
  }

  /** True if a model of this config and activation dtype can use it. */
  fits(config: ModelConfig, dtype: ActDType): boolean {
    const width = this.layers[0]?.dim(-1);
    return (
      this.dtype === dtype &&
      this.layers.length === config.numLayers &&
      width === latentWidth(config)
    );
  }

  [Symbol.dispose](): void {
    for (const layer of this.layers) layer[Symbol.dispose]();
  }
}
