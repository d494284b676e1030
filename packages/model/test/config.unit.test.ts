// What config.json may say, and how each refusal names its key.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { ConfigError, modelPresets, parseConfig } from "../src/index.ts";
import { type JsonObject, parseJsonObject } from "../src/json-reader.ts";
import { inverseFrequencies, ropeTables, softmaxScale, yarnMscale } from "../src/rope.ts";

const fixture = fileURLToPath(new URL("../fixtures/small-v3-fp8/config.json", import.meta.url));
const base = JSON.parse(readFileSync(fixture, "utf8")) as JsonObject;

function without(key: string): JsonObject {
  return Object.fromEntries(Object.entries(base).filter(([name]) => name !== key));
}

describe("config", () => {
  it("reads an original hub file", () => {
    const config = parseConfig(base);
    expect(config).toMatchObject({
      modelType: "deepseek_v3",
      hiddenSize: 128,
      numLayers: 2,
      qLoraRank: 128,
      fp8: true,
      moeLayers: [false, true],
      eosTokenIds: [1],
      rope: { type: "default", theta: 10000, interleaved: true },
      notes: [],
    });
    expect(config.routing).toEqual({
      scoring: "sigmoid",
      method: "noaux_tc",
      experts: 8,
      expertsPerToken: 2,
      groups: 4,
      groupsPerToken: 2,
      normalise: true,
      scale: 2.5,
      scaleNormalised: true,
    });
  });

  it("reads the keys of newer transformers versions", () => {
    const { rope_theta, rope_scaling, torch_dtype, topk_method, scoring_func, ...rest } = base;
    const config = parseConfig({
      ...rest,
      dtype: "bfloat16",
      head_dim: 16,
      qk_head_dim: 64,
      rope_interleave: false,
      num_nextn_predict_layers: 0,
      mlp_layer_types: ["sparse", "dense"],
      rope_parameters: {
        rope_type: "yarn",
        rope_theta: 50000,
        factor: 40,
        mscale: 0.8,
        mscale_all_dim: 1,
        original_max_position_embeddings: 1024,
      },
    });
    expect(config.rope).toMatchObject({ type: "yarn", theta: 50000, interleaved: false });
    expect(config.rope.yarn).toMatchObject({ betaFast: 32, betaSlow: 1, mscale: 0.8 });
    expect(config.moeLayers).toEqual([true, false]);
    expect(config.routing).toMatchObject({ scoring: "sigmoid", method: "noaux_tc" });
    expect(config.notes).toEqual([]);
  });

  it("gives V2 its own defaults and rules", () => {
    const { topk_method, scoring_func, norm_topk_prob, n_group, topk_group, ...rest } = base;
    const v2 = parseConfig({ ...rest, model_type: "deepseek_v2", n_group: null, topk_group: null });
    expect(v2.routing).toMatchObject({
      scoring: "softmax",
      method: "greedy",
      normalise: false,
      groups: 1,
      scaleNormalised: false,
    });
    expect(parseConfig({ ...base, q_lora_rank: null }).qLoraRank).toBeUndefined();
    expect(parseConfig({ ...base, moe_layer_freq: 2, first_k_dense_replace: 0 }).moeLayers).toEqual(
      [true, false],
    );
    expect(parseConfig({ ...base, n_routed_experts: null }).moeLayers).toEqual([false, false]);
    expect(parseConfig({ ...base, eos_token_id: [1, 7] }).eosTokenIds).toEqual([1, 7]);
    expect(parseConfig({ ...without("model_type") }).modelType).toBe("deepseek_v3");
  });

  it("notes what it ignores", () => {
    const config = parseConfig({ ...base, num_nextn_predict_layers: 1, quux: 3 });
    expect(config.notes.join()).toMatch(/num_nextn_predict_layers 1/);
    expect(config.notes.join()).toMatch(/quux/);
  });

  it.each([
    ["model_type", "llama", /"llama".*only the DeepSeek-V2 and V3/],
    ["model_type", "deepseek_v32", /sparse attention indexer/],
    ["index_topk", 2048, /2048.*sparse attention indexer/],
    ["attention_bias", true, /true.*biases/],
    ["hidden_act", "gelu", /"gelu".*"silu"/],
    ["rope_scaling", { type: "llama3", factor: 8 }, /rope_scaling\.type.*"llama3".*"yarn"/],
    ["rope_scaling", { type: "yarn" }, /rope_scaling\.factor is missing/],
    ["rope_scaling", "yarn", /expected an object/],
    ["scoring_func", "sqrtsoftplus", /"sqrtsoftplus".*"softmax", "sigmoid"/],
    ["topk_method", "random", /"random".*"greedy"/],
    ["hidden_size", "128", /"128".*integer/],
    ["hidden_size", -1, /-1.*integer of at least 1/],
    ["hidden_size", 1.5, /1\.5/],
    ["rms_norm_eps", 0, /above 0/],
    ["qk_rope_head_dim", 15, /even/],
    ["head_dim", 99, /99, in conflict with qk_rope_head_dim 16/],
    ["n_group", 3, /does not divide the 8 experts/],
    ["topk_group", 5, /more than the 4 groups/],
    ["num_experts_per_tok", 9, /more than the 8 experts/],
    ["num_experts_per_tok", 5, /cannot give the 5/, "topk_group"],
    ["eos_token_id", "end", /token id/],
    ["tie_word_embeddings", "no", /true or false/],
    ["mlp_layer_types", ["dense"], /must list 2 layers/],
    ["quantization_config", { quant_method: "awq" }, /quant_method.*"awq".*native FP8/],
    [
      "quantization_config",
      { quant_method: "fp8", weight_block_size: [64, 64] },
      /weight_block_size.*\[64,64\].*\[128, 128\]/,
    ],
    ["quantization_config", { quant_method: "fp8" }, /weight_block_size is missing/],
  ] as [string, unknown, RegExp, string?][])("refuses %s = %j", (key, value, message, at) => {
    const attempt = () => parseConfig({ ...base, [key]: value });
    expect(attempt).toThrow(ConfigError);
    expect(attempt).toThrow(message);
    expect(attempt).toThrow(at ?? key);
  });

  it.each([
    "hidden_size",
    "vocab_size",
    "num_hidden_layers",
    "num_attention_heads",
    "kv_lora_rank",
    "q_lora_rank",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "v_head_dim",
    "intermediate_size",
    "moe_intermediate_size",
    "num_experts_per_tok",
    "max_position_embeddings",
  ])("names %s when it is missing", (key) => {
    expect(() => parseConfig(without(key))).toThrow(new RegExp(`${key} is missing`));
  });

  it("refuses what is not an object", () => {
    for (const text of ["[1]", "nul", '"x"', ""]) {
      expect(() => parseJsonObject(text, "config.json")).toThrow(/config\.json/);
    }
  });

  it("accepts every preset of make-model without a note", () => {
    for (const [name, { config }] of Object.entries(modelPresets)) {
      expect(parseConfig(config).notes, name).toEqual([]);
    }
  });
});

describe("rope", () => {
  const plain = parseConfig(base).rope;
  const yarn = parseConfig({
    ...base,
    rope_scaling: {
      type: "yarn",
      factor: 40,
      mscale: 0.8,
      mscale_all_dim: 1,
      original_max_position_embeddings: 4096,
    },
  }).rope;

  it("turns the first pair one radian a position, and slower ones after it", () => {
    const frequencies = inverseFrequencies(plain, 16);
    expect(frequencies[0]).toBe(1);
    expect(frequencies[4]).toBeCloseTo(0.01, 8);
  });

  it("keeps fast pairs and stretches slow ones under YaRN", () => {
    const [before, after] = [inverseFrequencies(plain, 64), inverseFrequencies(yarn, 64)];
    expect(after[0]).toBe(before[0]);
    expect(after[31]! / before[31]!).toBeCloseTo(1 / 40, 6);
  });

  it("puts mscale on the tables and mscale_all_dim on the softmax", () => {
    const ratio = yarnMscale(40, 0.8) / yarnMscale(40, 1);
    expect(ropeTables(yarn, 16, 1).cos.raw()[0]).toBeCloseTo(ratio, 6);
    expect(softmaxScale(yarn, 64)).toBeCloseTo((0.1 * Math.log(40) + 1) ** 2 / 8, 12);
    expect(softmaxScale(plain, 64)).toBe(1 / 8);
  });

  it("divides positions by a linear factor", () => {
    const linear = parseConfig({ ...base, rope_scaling: { type: "linear", factor: 4 } }).rope;
    expect(inverseFrequencies(linear, 16)[0]).toBe(0.25);
  });
});
