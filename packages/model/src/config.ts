// The configuration of a DeepSeek-architecture model, read from config.json: the hub's original
// files (DeepSeek-V2, V2-Lite, V3, R1) and those that newer transformers versions write. What would
// change the arithmetic and is not implemented is refused by name; what is merely unknown is noted.

import { join } from "node:path";
import type { ConfigError } from "./errors.ts";
import { FieldReader, type JsonObject, readJsonObject } from "./json-reader.ts";
import { type RopeConfig, readRope } from "./rope-config.ts";

/**
 * How experts are chosen. The values follow `topk_method` and `scoring_func` of the hub's files.
 */
export interface RoutingConfig {
  readonly scoring: "softmax" | "sigmoid";
  readonly method: "greedy" | "group_limited_greedy" | "noaux_tc";
  readonly experts: number;
  readonly expertsPerToken: number;
  /** 1 where the model does not group. */
  readonly groups: number;
  /** Groups a token may choose from. */
  readonly groupsPerToken: number;
  /** Divide the chosen scores by their sum. */
  readonly normalise: boolean;
  readonly scale: number;
  /** V3 scales normalised weights too; V2's own code scales only where it does not normalise. */
  readonly scaleNormalised: boolean;
}

/** A model's architecture. Sizes are in elements; names follow the hub's keys in camelCase. */
export interface ModelConfig {
  readonly modelType: "deepseek_v2" | "deepseek_v3";
  readonly architecture: string;
  readonly vocabSize: number;
  readonly maxPositionEmbeddings: number;
  readonly hiddenSize: number;
  /** Of the dense layers. */
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  /** Undefined where queries are not compressed (V2-Lite). */
  readonly qLoraRank: number | undefined;
  readonly kvLoraRank: number;
  readonly qkNopeHeadDim: number;
  readonly qkRopeHeadDim: number;
  readonly vHeadDim: number;
  readonly rmsNormEps: number;
  readonly rope: RopeConfig;
  readonly tieWordEmbeddings: boolean;
  /** Undefined for an all-dense model. */
  readonly routing: RoutingConfig | undefined;
  readonly moeIntermediateSize: number;
  readonly sharedExperts: number;
  /** Per layer: does it route over experts? */
  readonly moeLayers: readonly boolean[];
  /** Native FP8: e4m3 weights with a scale per 128×128 block. */
  readonly fp8: boolean;
  /** Multi-token-prediction layers in the checkpoint; they are not loaded. */
  readonly mtpLayers: number;
  readonly bosTokenId: number | undefined;
  readonly eosTokenIds: readonly number[];
  /** What was ignored, for the log. */
  readonly notes: readonly string[];
}

/** Rows and columns that one FP8 scale covers; the only block size DeepSeek's checkpoints use. */
export const fp8Block = 128;

/** Reads `<dir>/config.json`. @throws ConfigError naming the key, what came and what is allowed. */
export function loadConfig(dir: string): ModelConfig {
  return parseConfig(readJsonObject(join(dir, "config.json"), "config.json"));
}

/** Parses the object of a config.json. @throws {@link ConfigError} */
export function parseConfig(json: JsonObject, file = "config.json"): ModelConfig {
  const reader = new FieldReader(file, json);
  const modelType = readModelType(reader);
  refuseUnsupported(reader);
  const notes: string[] = [];
  const dims = readDims(reader);
  const numLayers = reader.integer("num_hidden_layers", 1);
  const moe = readMoe(reader, modelType, numLayers);
  const mtpLayers =
    reader.optionalInteger("num_nextn_predict_layers", 0) ??
    reader.optionalInteger("num_mtp_layers", 0) ??
    0;
  if (mtpLayers > 0) {
    notes.push(`num_nextn_predict_layers ${mtpLayers}: multi-token-prediction layers not loaded`);
  }
  const fp8 = readQuantization(reader, notes);
  const config: ModelConfig = {
    modelType,
    architecture: modelType === "deepseek_v2" ? "DeepseekV2ForCausalLM" : "DeepseekV3ForCausalLM",
    vocabSize: reader.integer("vocab_size", 1),
    maxPositionEmbeddings: reader.integer("max_position_embeddings", 1),
    ...dims,
    numLayers,
    rmsNormEps: reader.number("rms_norm_eps", 0, 1e-6),
    rope: readRope(reader, dims.qkRopeHeadDim),
    tieWordEmbeddings: reader.boolean("tie_word_embeddings", false),
    ...moe,
    fp8,
    mtpLayers,
    bosTokenId: reader.optionalInteger("bos_token_id", 0),
    eosTokenIds: readTokenIds(reader, "eos_token_id"),
    notes,
  };
  noteUnknown(reader, notes);
  return config;
}

function readModelType(reader: FieldReader): "deepseek_v2" | "deepseek_v3" {
  const type = reader.raw("model_type");
  const names = reader.raw("architectures");
  if (type === "deepseek_v32") {
    reader.fail("model_type", 'is "deepseek_v32": its sparse attention indexer is not implemented');
  }
  // Early hub files lack model_type; the class name says the same.
  if (type === undefined && Array.isArray(names)) {
    if (names[0] === "DeepseekV2ForCausalLM") return "deepseek_v2";
    if (names[0] === "DeepseekV3ForCausalLM") return "deepseek_v3";
  }
  return reader.choice(
    "model_type",
    ["deepseek_v2", "deepseek_v3"],
    undefined,
    ": only the DeepSeek-V2 and V3 architectures are implemented",
  );
}

/**
 * Keys that change the arithmetic, the value under which they do not, and why others are refused.
 */
const unsupported: readonly [key: string, harmless: readonly unknown[], why: string][] = [
  ["attention_bias", [false], "biases of the attention projections are not implemented"],
  ["mlp_bias", [false], "biases of the MLP projections are not implemented"],
  ["index_topk", [], "DeepSeek-V3.2's sparse attention indexer is not implemented"],
  ["index_n_heads", [], "DeepSeek-V3.2's sparse attention indexer is not implemented"],
  ["index_head_dim", [], "DeepSeek-V3.2's sparse attention indexer is not implemented"],
  ["sliding_window", [0], "windowed attention is not implemented"],
  ["compress_ratios", [], "DeepSeek-V4's compressed attention is not implemented"],
  ["hc_mult", [1], "hyper-connections are not implemented"],
  ["num_hash_layers", [0], "hash routing is not implemented"],
  ["attn_logit_softcapping", [], "soft-capped attention scores are not implemented"],
  ["final_logit_softcapping", [], "soft-capped logits are not implemented"],
  ["use_qk_norm", [false], "normalised queries and keys are not implemented"],
  ["is_encoder_decoder", [false], "encoder-decoder models are not implemented"],
];

function refuseUnsupported(reader: FieldReader): void {
  for (const [key, harmless, why] of unsupported) {
    const value = reader.raw(key);
    if (value !== undefined && !harmless.includes(value)) {
      reader.fail(key, `${reader.show(key)}: ${why}`);
    }
  }
  reader.choice("hidden_act", ["silu", "swish"], "silu", ": the MLPs are SwiGLU");
}

type Dims = Pick<
  ModelConfig,
  | "hiddenSize"
  | "intermediateSize"
  | "numHeads"
  | "qLoraRank"
  | "kvLoraRank"
  | "qkNopeHeadDim"
  | "qkRopeHeadDim"
  | "vHeadDim"
>;

function readDims(reader: FieldReader): Dims {
  // A missing rank and a rank of null mean different models, so the key has to be there.
  if (!reader.has("q_lora_rank")) {
    reader.missing("q_lora_rank", "an integer, or null for uncompressed queries");
  }
  const dims = {
    hiddenSize: reader.integer("hidden_size", 1),
    intermediateSize: reader.integer("intermediate_size", 1),
    numHeads: reader.integer("num_attention_heads", 1),
    qLoraRank: reader.optionalInteger("q_lora_rank", 1),
    kvLoraRank: reader.integer("kv_lora_rank", 1),
    qkNopeHeadDim: reader.integer("qk_nope_head_dim", 1),
    qkRopeHeadDim: reader.integer("qk_rope_head_dim", 2),
    vHeadDim: reader.integer("v_head_dim", 1),
  };
  if (dims.qkRopeHeadDim % 2 !== 0) {
    reader.fail("qk_rope_head_dim", `${reader.show("qk_rope_head_dim")}; expected an even number`);
  }
  const whole = dims.qkNopeHeadDim + dims.qkRopeHeadDim;
  const qkHeadDim = reader.optionalInteger("qk_head_dim", 1);
  if (qkHeadDim !== undefined && qkHeadDim !== whole) {
    reader.fail(
      "qk_head_dim",
      `is ${qkHeadDim}, but qk_nope_head_dim + qk_rope_head_dim = ${whole}`,
    );
  }
  // transformers writes the rotary part here; other tools write the whole head.
  const headDim = reader.optionalInteger("head_dim", 1);
  if (headDim !== undefined && headDim !== dims.qkRopeHeadDim && headDim !== whole) {
    reader.fail(
      "head_dim",
      `is ${headDim}, in conflict with qk_rope_head_dim ${dims.qkRopeHeadDim} ` +
        `(and qk_nope_head_dim + qk_rope_head_dim = ${whole})`,
    );
  }
  return dims;
}

type Moe = Pick<ModelConfig, "routing" | "moeIntermediateSize" | "sharedExperts" | "moeLayers">;

function readMoe(reader: FieldReader, modelType: string, numLayers: number): Moe {
  const experts =
    reader.optionalInteger("n_routed_experts", 1) ??
    reader.optionalInteger("num_local_experts", 1) ??
    reader.optionalInteger("num_experts", 1);
  const moeLayers = readLayerTypes(reader, numLayers, experts !== undefined);
  if (experts === undefined || !moeLayers.includes(true)) {
    for (const key of moeKeys) reader.raw(key);
    const dense = new Array<boolean>(numLayers).fill(false);
    return { routing: undefined, moeIntermediateSize: 0, sharedExperts: 0, moeLayers: dense };
  }
  return {
    routing: readRouting(reader, modelType === "deepseek_v3", experts),
    moeIntermediateSize: reader.integer("moe_intermediate_size", 1),
    sharedExperts: reader.optionalInteger("n_shared_experts", 0) ?? 0,
    moeLayers,
  };
}

const moeKeys = [
  "num_experts_per_tok",
  "n_group",
  "topk_group",
  "topk_method",
  "scoring_func",
  "norm_topk_prob",
  "routed_scaling_factor",
  "moe_intermediate_size",
  "n_shared_experts",
];

function readLayerTypes(reader: FieldReader, numLayers: number, hasExperts: boolean): boolean[] {
  const types = reader.raw("mlp_layer_types");
  const firstDense = reader.integer("first_k_dense_replace", 0, 0);
  const frequency = reader.integer("moe_layer_freq", 1, 1);
  if (types === undefined) {
    const layers = Array.from({ length: numLayers }, (_, layer) => layer);
    return layers.map((layer) => hasExperts && layer >= firstDense && layer % frequency === 0);
  }
  if (!Array.isArray(types) || types.length !== numLayers) {
    reader.fail(
      "mlp_layer_types",
      `must list ${numLayers} layers (num_hidden_layers), "dense" or "sparse" each`,
    );
  }
  return types.map((type: unknown, layer) => {
    if (type !== "dense" && type !== "sparse") {
      reader.fail("mlp_layer_types", `names ${JSON.stringify(type)} for layer ${layer}`);
    }
    if (type === "sparse" && !hasExperts) reader.missing("n_routed_experts", "an integer");
    return type === "sparse";
  });
}

function readRouting(reader: FieldReader, v3: boolean, experts: number): RoutingConfig {
  const method = reader.choice(
    "topk_method",
    ["greedy", "group_limited_greedy", "noaux_tc"],
    v3 ? "noaux_tc" : "greedy",
  );
  const scoring = reader.choice("scoring_func", ["softmax", "sigmoid"], v3 ? "sigmoid" : "softmax");
  const grouped = method !== "greedy";
  const groups = reader.optionalInteger("n_group", 1) ?? 1;
  const groupsPerToken = reader.optionalInteger("topk_group", 1) ?? groups;
  const expertsPerToken = reader.integer("num_experts_per_tok", 1);
  if (expertsPerToken > experts) {
    reader.fail("num_experts_per_tok", `is ${expertsPerToken}, more than the ${experts} experts`);
  }
  if (grouped && experts % groups !== 0) {
    reader.fail("n_group", `is ${groups}, which does not divide the ${experts} experts`);
  }
  if (grouped && groupsPerToken > groups) {
    reader.fail("topk_group", `is ${groupsPerToken}, more than the ${groups} groups`);
  }
  if (grouped && (experts / groups) * groupsPerToken < expertsPerToken) {
    reader.fail(
      "topk_group",
      `is ${groupsPerToken}: that many groups of ${experts / groups} experts cannot give the ` +
        `${expertsPerToken} of num_experts_per_tok`,
    );
  }
  return {
    scoring,
    method,
    experts,
    expertsPerToken,
    groups: grouped ? groups : 1,
    groupsPerToken: grouped ? groupsPerToken : 1,
    // A single V3 expert gets weight 1 (the paper, DeepSeek's inference code, transformers); V2's
    // code, and the V3 hub file alone, leave a single expert's score as it is.
    normalise: reader.boolean("norm_topk_prob", v3) && (v3 || expertsPerToken > 1),
    scale: reader.number("routed_scaling_factor", 0, 1),
    scaleNormalised: v3,
  };
}

function readQuantization(reader: FieldReader, notes: string[]): boolean {
  const quantization = reader.object("quantization_config");
  if (quantization === undefined) return false;
  quantization.choice(
    "quant_method",
    ["fp8"],
    undefined,
    ": of quantised checkpoints only DeepSeek's native FP8 is implemented",
  );
  quantization.choice("fmt", ["e4m3"], "e4m3");
  quantization.choice("activation_scheme", ["dynamic"], "dynamic", ": scales are per token");
  const block = quantization.raw("weight_block_size");
  const fits = Array.isArray(block) && block.length === 2 && block.every((n) => n === fp8Block);
  if (!fits) {
    const came = block === undefined ? "is missing" : quantization.show("weight_block_size");
    quantization.fail(
      "weight_block_size",
      `${came}; only [${fp8Block}, ${fp8Block}] is implemented`,
    );
  }
  if (quantization.raw("scale_fmt") === "ue8m0") {
    notes.push(
      'quantization_config.scale_fmt "ue8m0": activation scales are kept as f32, which is finer',
    );
  }
  return true;
}

/** A token id or a list of them. */
export function readTokenIds(reader: FieldReader, key: string): number[] {
  const value = reader.raw(key);
  if (value === undefined) return [];
  const list: unknown[] = Array.isArray(value) ? value : [value];
  if (!list.every((id) => Number.isSafeInteger(id) && (id as number) >= 0)) {
    reader.fail(key, `${reader.show(key)}; expected a token id or a list of token ids`);
  }
  return list as number[];
}

/**
 * Keys that cannot change a forward pass: bookkeeping, training, and what tensors themselves say.
 */
const harmlessKeys: ReadonlySet<string> = new Set([
  ..."architectures auto_map torch_dtype dtype use_cache attention_dropout initializer_range".split(
    " ",
  ),
  ..."num_key_value_heads pretraining_tp ep_size aux_loss_alpha seq_aux pad_token_id".split(" "),
  ..."transformers_version _name_or_path quantization_config output_router_logits".split(" "),
  ..."output_attentions output_hidden_states return_dict chunk_size_feed_forward id2label".split(
    " ",
  ),
  ..."label2id problem_type router_aux_loss_coef router_jitter_noise unsloth_fixed".split(" "),
  ..."num_mtp_layers num_experts num_local_experts rope_scaling max_window_layers".split(" "),
]);

function noteUnknown(reader: FieldReader, notes: string[]): void {
  const unknown = reader.keys.filter((key) => !reader.asked.has(key) && !harmlessKeys.has(key));
  if (unknown.length > 0) notes.push(`config.json: unknown keys ignored: ${unknown.join(", ")}`);
}
