// Architectures that `make-model` knows by name, as the hub's config.json would say them.

import type { JsonObject } from "../json-reader.ts";

/**
 * What weights are stored as. `fp8` is DeepSeek's native layout: linear layers only, with scales.
 */
export type RandomDType = "bf16" | "fp8" | "f32";

export interface ModelPreset {
  /** One line for `--list`. */
  readonly brief: string;
  /** Stored as this unless asked otherwise. */
  readonly dtype: RandomDType;
  /** config.json without quantization_config. */
  readonly config: JsonObject;
}

const common: JsonObject = {
  attention_bias: false,
  attention_dropout: 0,
  hidden_act: "silu",
  rms_norm_eps: 1e-6,
  rope_theta: 10000,
  rope_scaling: null,
  tie_word_embeddings: false,
  torch_dtype: "bfloat16",
  use_cache: true,
  moe_layer_freq: 1,
  bos_token_id: 0,
  eos_token_id: 1,
};

const v2: JsonObject = {
  ...common,
  architectures: ["DeepseekV2ForCausalLM"],
  model_type: "deepseek_v2",
  topk_method: "greedy",
  scoring_func: "softmax",
  norm_topk_prob: false,
  routed_scaling_factor: 1,
  n_group: 1,
  topk_group: 1,
};

const v3: JsonObject = {
  ...common,
  architectures: ["DeepseekV3ForCausalLM"],
  model_type: "deepseek_v3",
  topk_method: "noaux_tc",
  scoring_func: "sigmoid",
  norm_topk_prob: true,
  routed_scaling_factor: 2.5,
};

const yarn: JsonObject = {
  type: "yarn",
  factor: 40,
  beta_fast: 32,
  beta_slow: 1,
  mscale: 1,
  mscale_all_dim: 1,
  original_max_position_embeddings: 4096,
};

function heads(count: number): JsonObject {
  return { num_attention_heads: count, num_key_value_heads: count };
}

const tinySizes: JsonObject = {
  ...heads(4),
  vocab_size: 1024,
  hidden_size: 128,
  intermediate_size: 256,
  moe_intermediate_size: 64,
  num_hidden_layers: 3,
  first_k_dense_replace: 1,
  n_routed_experts: 8,
  num_experts_per_tok: 2,
  n_shared_experts: 1,
  kv_lora_rank: 64,
  qk_rope_head_dim: 16,
  qk_nope_head_dim: 32,
  v_head_dim: 32,
  max_position_embeddings: 4096,
};

/** DeepSeek-V2-Lite's own sizes (16 B parameters with 27 layers). */
const v2Lite: JsonObject = {
  ...v2,
  ...heads(16),
  vocab_size: 102400,
  hidden_size: 2048,
  intermediate_size: 10944,
  moe_intermediate_size: 1408,
  num_hidden_layers: 27,
  first_k_dense_replace: 1,
  n_routed_experts: 64,
  num_experts_per_tok: 6,
  n_shared_experts: 2,
  q_lora_rank: null,
  kv_lora_rank: 512,
  qk_rope_head_dim: 64,
  qk_nope_head_dim: 128,
  v_head_dim: 128,
  max_position_embeddings: 163840,
  // biome-ignore lint/suspicious/noApproximativeNumericConstant: this is what the hub's file says
  rope_scaling: { ...yarn, mscale: 0.707, mscale_all_dim: 0.707 },
};

/** DeepSeek-V3's own sizes (671 B parameters with 61 layers). */
const v3Full: JsonObject = {
  ...v3,
  ...heads(128),
  vocab_size: 129280,
  hidden_size: 7168,
  intermediate_size: 18432,
  moe_intermediate_size: 2048,
  num_hidden_layers: 61,
  first_k_dense_replace: 3,
  n_routed_experts: 256,
  num_experts_per_tok: 8,
  n_group: 8,
  topk_group: 4,
  n_shared_experts: 1,
  q_lora_rank: 1536,
  kv_lora_rank: 512,
  qk_rope_head_dim: 64,
  qk_nope_head_dim: 128,
  v_head_dim: 128,
  max_position_embeddings: 163840,
  rope_scaling: yarn,
};

/** The presets by name. */
export const modelPresets: Readonly<Record<string, ModelPreset>> = {
  tiny: {
    brief: "V3 architecture, 1.0 M parameters, bf16, 2 MB: for tests",
    dtype: "bf16",
    config: { ...v3, ...tinySizes, q_lora_rank: 64, n_group: 4, topk_group: 2 },
  },
  "v2-tiny": {
    brief: "V2-Lite architecture (greedy routing, uncompressed queries), 2 MB, bf16: for tests",
    dtype: "bf16",
    config: { ...v2, ...tinySizes, q_lora_rank: null, n_shared_experts: 2 },
  },
  "v3-tiny": {
    brief: "V3 architecture with YaRN, native FP8, 2 MB: for tests",
    dtype: "fp8",
    config: {
      ...v3,
      ...tinySizes,
      hidden_size: 192,
      moe_intermediate_size: 96,
      q_lora_rank: 96,
      n_group: 4,
      topk_group: 2,
      rope_scaling: { ...yarn, original_max_position_embeddings: 1024 },
      max_position_embeddings: 40960,
    },
  },
  small: {
    brief: "V3 architecture, 8 layers of width 512, 32 experts, bf16, 0.3 GB: for quick benches",
    dtype: "bf16",
    config: {
      ...v3,
      ...tinySizes,
      ...heads(8),
      vocab_size: 16384,
      hidden_size: 512,
      intermediate_size: 1536,
      moe_intermediate_size: 384,
      num_hidden_layers: 8,
      n_routed_experts: 32,
      num_experts_per_tok: 4,
      n_group: 4,
      topk_group: 2,
      q_lora_rank: 256,
      kv_lora_rank: 256,
      qk_rope_head_dim: 32,
      qk_nope_head_dim: 64,
      v_head_dim: 64,
    },
  },
  "v2-lite-1l": {
    brief: "DeepSeek-V2-Lite's sizes, 2 layers (1 dense, 1 MoE), 2.2 GB in bf16",
    dtype: "bf16",
    config: { ...v2Lite, num_hidden_layers: 2 },
  },
  "v2-lite-8l": {
    brief: "DeepSeek-V2-Lite's sizes, 8 of its 27 layers, 9.3 GB in bf16: for benches",
    dtype: "bf16",
    config: { ...v2Lite, num_hidden_layers: 8 },
  },
  "v2-lite": {
    brief: "DeepSeek-V2-Lite's sizes, all 27 layers, 31 GB in bf16",
    dtype: "bf16",
    config: v2Lite,
  },
  "v3-4l": {
    brief: "DeepSeek-V3's sizes, 4 of its 61 layers (3 dense, 1 MoE), native FP8, 17 GB",
    dtype: "fp8",
    config: { ...v3Full, num_hidden_layers: 4 },
  },
};
