// DeepSeek-V2, V3 and R1 models: config, weights, tokenizer, forward pass.

export type * from "./api.ts";
export { loadModel } from "./causal-lm.ts";
export {
  loadConfig,
  type ModelConfig,
  parseConfig,
  type RoutingConfig,
} from "./config.ts";
export {
  ChatTemplateError,
  ConfigError,
  ForwardError,
  TokenizerError,
  WeightsError,
} from "./errors.ts";
export { type GenerationDefaults, loadGenerationDefaults } from "./generation-config.ts";
export {
  type RandomModelOptions,
  type RandomModelResult,
  writeRandomModel,
} from "./make-model/make-model.ts";
export { type ModelPreset, modelPresets, type RandomDType } from "./make-model/presets.ts";
export type { RopeConfig, YarnConfig } from "./rope-config.ts";
export { type ScoreOptions, scoreTokens, type TokenScores } from "./score.ts";
export { loadTokenizer } from "./tokenizer.ts";
