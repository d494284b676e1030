// Opens all that an engine runs on: device, weights, tokenizer, cache. Used by the worker, and by
// tests and benches that step an engine in their own thread.

import { basename, resolve } from "node:path";
import { createDevice } from "@open-infra/jit";
import {
  type CausalLM,
  type GenerationDefaults,
  loadGenerationDefaults,
  loadModel,
  loadTokenizer,
  type Tokenizer,
} from "@open-infra/model";
import type { Recorder } from "@open-infra/profile";
import type { ModelInfo, SamplingParams } from "./api.ts";
import { BLOCK_TOKENS, EngineCore } from "./core.ts";
import { type CheckedOptions, type LoadPhase, planCache } from "./options.ts";

export interface OpenHooks {
  readonly onProgress?: (phase: LoadPhase, done: number, total: number) => void;
  readonly onLog?: (line: string) => void;
  readonly recorder?: Recorder;
}

/** An engine that is ready to step. Disposing it frees the cache, the model and the device. */
export interface OpenedEngine extends Disposable {
  readonly core: EngineCore;
  readonly info: ModelInfo;
  readonly tokenizer: Tokenizer;
}

/** @throws the model's, tokenizer's or device's own typed errors, and EngineOptionError. */
export async function openEngine(
  options: CheckedOptions,
  hooks: OpenHooks = {},
): Promise<OpenedEngine> {
  const { recorder, onLog, onProgress } = hooks;
  // The cheap things first, so that a folder that cannot be served is refused at once.
  const tokenizer = await loadTokenizer(options.modelDir);
  const generation = loadGenerationDefaults(options.modelDir);
  using stack = new DisposableStack();
  const device = stack.use(
    createDevice({
      backend: options.backend,
      ...(options.threads !== undefined && { threads: options.threads }),
      ...(options.cacheDir !== undefined && { cacheDir: options.cacheDir }),
      ...(recorder !== undefined && { recorder }),
      ...(onLog !== undefined && { onFallback: onLog }),
    }),
  );
  const model = stack.use(
    await loadModel(options.modelDir, {
      device,
      dtype: options.dtype,
      ...(options.fp8Inputs && { fp8Inputs: options.fp8Inputs }),
      ...(onProgress !== undefined && {
        onProgress: (done: number, total: number) => onProgress("weights", done, total),
      }),
    }),
  );
  for (const note of model.config.notes) onLog?.(note);
  const plan = planCache(options, {
    blockTokens: BLOCK_TOKENS,
    bytesPerBlock: model.kvBytesPerBlock(BLOCK_TOKENS),
    maxPositions: model.config.maxPositionEmbeddings,
    availableBytes: process.availableMemory(),
  });
  onLog?.(plan.note);
  const eosTokenIds = [...new Set([...tokenizer.eosTokenIds, ...generation.eosTokenIds])].filter(
    (id) => id < model.config.vocabSize,
  );
  const core = stack.use(
    new EngineCore({
      ...options,
      model,
      tokenizer,
      device,
      numBlocks: plan.numBlocks,
      maxModelLen: plan.maxModelLen,
      eosTokenIds,
      ...(recorder !== undefined && { recorder }),
    }),
  );
  await warmup(model, core, onProgress);
  const { architecture, vocabSize } = model.config;
  const info: ModelInfo = {
    id: options.modelId ?? basename(resolve(options.modelDir)),
    dir: options.modelDir,
    architecture,
    parameters: model.parameters,
    activeWeightBytes: model.activeWeightBytes,
    dtype: model.dtype,
    vocabSize,
    maxModelLen: plan.maxModelLen,
    device: device.description,
    eosTokenIds,
    defaultSampling: recommendedSampling(generation),
  };
  const owned = stack.move();
  return { core, info, tokenizer, [Symbol.dispose]: () => owned.dispose() };
}

async function warmup(
  model: CausalLM,
  core: EngineCore,
  onProgress: OpenHooks["onProgress"],
): Promise<void> {
  await core.warmup();
  await model.warmup({ onProgress: ({ done, total }) => onProgress?.("kernels", done, total) });
}

/** What generation_config.json says of sampling, without what it leaves open. */
function recommendedSampling(defaults: GenerationDefaults): SamplingParams {
  const { temperature, topK, topP, minP, repetitionPenalty } = defaults;
  return {
    ...(temperature !== undefined && { temperature }),
    ...(topK !== undefined && { topK }),
    ...(topP !== undefined && { topP }),
    ...(minP !== undefined && { minP }),
    ...(repetitionPenalty !== undefined && { repetitionPenalty }),
  };
}
