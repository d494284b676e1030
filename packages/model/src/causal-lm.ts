// Loads a checkpoint and runs it: validates a step, walks the layers, and multiplies by the head.
// What a layer does is in layers.ts; which requests make up a step is the engine's business.

import { gemmNt } from "@open-infra/deep-gemm";
import type { Device, WarmupOptions } from "@open-infra/jit";
import type { Tensor } from "@open-infra/tensor";
import type { CausalLM, ComputeDType, ForwardBatch, KvCache, LoadOptions } from "./api.ts";
import { loadConfig, type ModelConfig } from "./config.ts";
import { ForwardError, WeightsError } from "./errors.ts";
import { kvBlockBytes, LatentKvCache } from "./kv-cache.ts";
import { type Numerics, type Pending, runLayer, type Step } from "./layers.ts";
import { embed } from "./ops/embed.ts";
import { residualNorm } from "./ops/residual-norm.ts";
import { type RopeTables, ropeTables, softmaxScale } from "./rope.ts";
import { stepInputs } from "./step-inputs.ts";
import { activeWeightBytes } from "./weight-bytes.ts";
import { loadWeights, type ModelWeights } from "./weights.ts";
import { Workspace } from "./workspace.ts";

/**
 * Loads the model in `dir`: config.json and safetensors, one file or shards with an index.
 *
 * @throws ConfigError, WeightsError, CheckpointError (`@open-infra/tensor`), or the signal's
 * reason.
 */
export async function loadModel(dir: string, options: LoadOptions): Promise<CausalLM> {
  const config = loadConfig(dir);
  // One bf16 rounding can turn a near-tie of the expert router, and on a CPU reading the weights
  // costs what f32 activations do not: exact is the default.
  const dtype = options.dtype === undefined || options.dtype === "auto" ? "f32" : options.dtype;
  if (dtype === "w8a8" && !config.fp8) {
    throw new WeightsError(
      "quantization_config",
      "dtype w8a8 needs a native FP8 checkpoint (e4m3 weights with weight_scale_inv); this one's " +
        "config.json has no quantization_config. Use bf16 or f32.",
    );
  }
  const weights = await loadWeights(dir, config, {
    device: options.device,
    dtype,
    onProgress: options.onProgress,
    signal: options.signal,
  });
  return new DeepseekModel(config, weights, options, dtype);
}

function numericsOf(
  dtype: Exclude<ComputeDType, "auto">,
  fp8Inputs: LoadOptions["fp8Inputs"],
): Numerics {
  if (dtype !== "w8a8") return { act: dtype, attention: dtype, fp8Inputs: "none" };
  // What is not quantised stays f32: a second rounding before the FP8 one would only add to it.
  return { act: "f32", attention: "bf16", fp8Inputs: fp8Inputs ?? "mlp" };
}

/** Tokens in the steps that warm-up goes through: kernels may differ by the number of rows. */
const warmupTokens = [1, 2, 8, 64, 512];

/** Positions the rotary tables start with; they double when a sequence grows past them. */
const firstRopeLength = 4096;

class DeepseekModel implements CausalLM {
  readonly config: ModelConfig;
  readonly dtype: Exclude<ComputeDType, "auto">;
  readonly parameters: number;
  readonly activeWeightBytes: number;
  readonly #device: Device;
  readonly #weights: ModelWeights;
  #workspace = new Workspace();
  readonly #numerics: Numerics;
  readonly #softmaxScale: number;
  #rope: RopeTables | undefined;
  #disposed = false;

  constructor(
    config: ModelConfig,
    weights: ModelWeights,
    options: LoadOptions,
    dtype: Exclude<ComputeDType, "auto">,
  ) {
    this.config = config;
    this.dtype = dtype;
    this.parameters = weights.parameters;
    this.activeWeightBytes = activeWeightBytes(config, weights);
    this.#device = options.device;
    this.#weights = weights;
    this.#numerics = numericsOf(dtype, options.fp8Inputs);
    this.#softmaxScale = softmaxScale(config.rope, config.qkNopeHeadDim + config.qkRopeHeadDim);
  }

  kvBytesPerBlock(blockTokens: number): number {
    return kvBlockBytes(this.config, this.#numerics.attention, blockTokens);
  }

  createKvCache(options: { readonly numBlocks: number; readonly blockTokens: number }): KvCache {
    const { numBlocks, blockTokens } = options;
    return new LatentKvCache(this.config, this.#numerics.attention, numBlocks, blockTokens);
  }

  async warmup(options: WarmupOptions = {}): Promise<void> {
    const blockTokens = 64;
    const most = Math.min(warmupTokens.at(-1) as number, this.config.maxPositionEmbeddings);
    const numBlocks = Math.ceil(most / blockTokens);
    using cache = this.createKvCache({ numBlocks, blockTokens });
    const blocks = Array.from({ length: numBlocks }, (_, i) => i);
    const steps = (): void => {
      for (const tokens of warmupTokens.filter((n) => n <= most)) {
        this.forward(
          {
            tokenIds: new Int32Array(tokens),
            sequences: [{ queryTokens: tokens, contextTokens: tokens, blocks }],
            logitRows: Int32Array.from({ length: Math.min(tokens, 64) }, (_, i) => i),
          },
          cache,
        );
      }
    };
    await this.#device.warmup(() => this.#withOwnBuffers(steps), options);
  }

  forward(batch: ForwardBatch, cache: KvCache): Tensor<"f32"> {
    if (this.#disposed) throw new ForwardError("forward: the model was disposed");
    if (!(cache instanceof LatentKvCache) || !cache.fits(this.config, this.#numerics.attention)) {
      throw new ForwardError("forward: the cache was not made by this model's createKvCache");
    }
    const { config } = this;
    const workspace = this.#workspace;
    const device = this.#device;
    const inputs = stepInputs(batch, config, cache, workspace);
    const step: Step = {
      device,
      config,
      workspace,
      numerics: this.#numerics,
      inputs,
      cache,
      rope: this.#ropeFor(inputs.maxContext),
      softmaxScale: this.#softmaxScale,
    };
    const h = workspace.tensor("h", [batch.tokenIds.length, config.hiddenSize], "f32");
    device.run(embed, { ids: inputs.ids, table: this.#weights.embed, out: h });
    let pending: Pending = {};
    this.#weights.layers.forEach((layer, index) => {
      pending = runLayer(step, layer, index, h, pending);
    });
    return this.#head(step, h, pending);
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#weights[Symbol.dispose]();
    this.#workspace[Symbol.dispose]();
  }

  /** The final norm of the wanted rows and their logits, f32 [R, V]. */
  #head(step: Step, h: Tensor<"f32">, pending: Pending): Tensor<"f32"> {
    const { config, workspace, device, inputs } = step;
    const rows = inputs.logitRows;
    const count = rows.dim(0);
    const logits = workspace.tensor("logits", [count, config.vocabSize], "f32");
    if (count === 0) return logits;
    const out = workspace.tensor("final", [count, config.hiddenSize], step.numerics.act);
    const { norm, lmHead } = this.#weights;
    device.run(residualNorm, { h, ...pending, weight: norm, eps: config.rmsNormEps, rows, out });
    gemmNt(device, { a: out, b: lmHead, d: logits });
    return logits;
  }

  /**
   * Nothing computes in a warm-up, so what a former step left in the buffers (the rows of each
   * expert) would not fit its steps.
   */
  #withOwnBuffers(body: () => void): void {
    const kept = this.#workspace;
    using own = new Workspace();
    this.#workspace = own;
    try {
      body();
    } finally {
      this.#workspace = kept;
    }
  }

  #ropeFor(positions: number): RopeTables {
    const known = this.#rope?.cos.dim(0) ?? 0;
    if (this.#rope === undefined || known < positions) {
      const { rope, qkRopeHeadDim, maxPositionEmbeddings } = this.config;
      const wanted = Math.max(positions, 2 * known, firstRopeLength);
      const length = Math.max(positions, Math.min(maxPositionEmbeddings, wanted));
      this.#rope = ropeTables(rope, qkRopeHeadDim, length);
    }
    return this.#rope;
  }
}
