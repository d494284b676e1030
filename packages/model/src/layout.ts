// Which tensors a checkpoint of a given config must hold, under which names and in which shapes,
// and the comparison with what it does hold. Reading them is in weights.ts.

import type { CheckpointTensorInfo } from "@open-infra/tensor";
import { fp8Block, type ModelConfig } from "./config.ts";
import { WeightsError } from "./errors.ts";

/** A tensor the model needs. Only linear layers may be stored as FP8 with block scales. */
export interface ExpectedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly linear: boolean;
}

/** Suffix of the scales that belong to an FP8 weight, one per 128×128 block. */
export const scaleSuffix = "_scale_inv";

/** What the loader accepts for a tensor that is not FP8. */
const plainDTypes = ["bf16", "f16", "f32"];

/** Scales of an FP8 [N, K] weight. */
export function scaleShape(shape: readonly number[]): number[] {
  return shape.map((n) => Math.ceil(n / fp8Block));
}

export function layerPrefix(layer: number): string {
  return `model.layers.${layer}.`;
}

/** Every tensor of the model, in the order of the forward pass. */
export function expectedTensors(config: ModelConfig): ExpectedTensor[] {
  const { vocabSize, hiddenSize } = config;
  const all: ExpectedTensor[] = [];
  const plain = (name: string, ...shape: number[]) => all.push({ name, shape, linear: false });
  plain("model.embed_tokens.weight", vocabSize, hiddenSize);
  for (let layer = 0; layer < config.numLayers; layer++) {
    const prefix = layerPrefix(layer);
    plain(`${prefix}input_layernorm.weight`, hiddenSize);
    all.push(...attentionTensors(config, `${prefix}self_attn.`));
    plain(`${prefix}post_attention_layernorm.weight`, hiddenSize);
    all.push(...mlpTensors(config, layer, `${prefix}mlp.`));
  }
  plain("model.norm.weight", hiddenSize);
  if (!config.tieWordEmbeddings) plain("lm_head.weight", vocabSize, hiddenSize);
  return all;
}

/** Elements of the weights, scales not counted. */
export function countParameters(tensors: readonly ExpectedTensor[]): number {
  return tensors.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
}

function attentionTensors(config: ModelConfig, prefix: string): ExpectedTensor[] {
  const { hiddenSize, numHeads, kvLoraRank, qkNopeHeadDim, qkRopeHeadDim, vHeadDim } = config;
  const queries = numHeads * (qkNopeHeadDim + qkRopeHeadDim);
  const linear = (name: string, n: number, k: number): ExpectedTensor => ({
    name: `${prefix}${name}.weight`,
    shape: [n, k],
    linear: true,
  });
  const norm = (name: string, n: number): ExpectedTensor => ({
    name: `${prefix}${name}.weight`,
    shape: [n],
    linear: false,
  });
  const query =
    config.qLoraRank === undefined
      ? [linear("q_proj", queries, hiddenSize)]
      : [
          linear("q_a_proj", config.qLoraRank, hiddenSize),
          norm("q_a_layernorm", config.qLoraRank),
          linear("q_b_proj", queries, config.qLoraRank),
        ];
  return [
    ...query,
    linear("kv_a_proj_with_mqa", kvLoraRank + qkRopeHeadDim, hiddenSize),
    norm("kv_a_layernorm", kvLoraRank),
    linear("kv_b_proj", numHeads * (qkNopeHeadDim + vHeadDim), kvLoraRank),
    linear("o_proj", hiddenSize, numHeads * vHeadDim),
  ];
}

function mlpTensors(config: ModelConfig, layer: number, prefix: string): ExpectedTensor[] {
  const { hiddenSize, routing, moeIntermediateSize, sharedExperts } = config;
  const mlp = (name: string, width: number): ExpectedTensor[] => [
    { name: `${prefix}${name}gate_proj.weight`, shape: [width, hiddenSize], linear: true },
    { name: `${prefix}${name}up_proj.weight`, shape: [width, hiddenSize], linear: true },
    { name: `${prefix}${name}down_proj.weight`, shape: [hiddenSize, width], linear: true },
  ];
  if (!config.moeLayers[layer] || routing === undefined) return mlp("", config.intermediateSize);
  const { experts, method } = routing;
  const all: ExpectedTensor[] = [
    { name: `${prefix}gate.weight`, shape: [experts, hiddenSize], linear: false },
  ];
  if (method === "noaux_tc") {
    all.push({ name: `${prefix}gate.e_score_correction_bias`, shape: [experts], linear: false });
  }
  for (let e = 0; e < experts; e++) all.push(...mlp(`experts.${e}.`, moeIntermediateSize));
  if (sharedExperts > 0) all.push(...mlp("shared_experts.", moeIntermediateSize * sharedExperts));
  return all;
}

/** Tensors that may be present and are rightly not read. */
function ignorable(name: string, config: ModelConfig): boolean {
  if (name.endsWith(".rotary_emb.inv_freq")) return true;
  if (name === "lm_head.weight" && config.tieWordEmbeddings) return true;
  // Multi-token-prediction layers follow the last one.
  const layer = /^model\.layers\.(\d+)\./.exec(name)?.[1];
  return layer !== undefined && Number(layer) >= config.numLayers && config.mtpLayers > 0;
}

function list(names: readonly string[]): string {
  const shown = names.slice(0, 5).join(", ");
  return names.length > 5 ? `${shown} and ${names.length - 5} more` : shown;
}

/**
 * Checks all names, shapes and dtypes before anything is read.
 *
 * @returns the expected tensors.
 * @throws WeightsError naming the tensors that are missing or unexpected, or the tensor with its
 *   shape or dtype and the expected one.
 */
export function checkLayout(
  config: ModelConfig,
  tensors: ReadonlyMap<string, CheckpointTensorInfo>,
): ExpectedTensor[] {
  const expected = expectedTensors(config);
  const missing = expected.filter(({ name }) => !tensors.has(name)).map(({ name }) => name);
  if (missing.length > 0) {
    throw new WeightsError(
      missing[0] as string,
      `the checkpoint lacks ${missing.length} of the ${expected.length} tensors that config.json ` +
        `asks for: ${list(missing)}`,
    );
  }
  const known = new Set<string>();
  for (const tensor of expected) {
    known.add(tensor.name);
    const scales = checkTensor(config, tensor, tensors);
    if (scales !== undefined) known.add(scales);
  }
  const unexpected = [...tensors.keys()].filter(
    (name) => !known.has(name) && !ignorable(name, config),
  );
  if (unexpected.length > 0) {
    throw new WeightsError(
      unexpected[0] as string,
      `the checkpoint holds ${unexpected.length} tensors that config.json does not account for: ` +
        list(unexpected),
    );
  }
  return expected;
}

function checkShape(name: string, got: readonly number[], want: readonly number[]): void {
  if (`${got}` === `${want}`) return;
  throw new WeightsError(name, `${name} has shape [${got}]; config.json asks for [${want}]`);
}

/** Checks one tensor; returns the name of its scales if it is FP8. */
function checkTensor(
  config: ModelConfig,
  { name, shape, linear }: ExpectedTensor,
  tensors: ReadonlyMap<string, CheckpointTensorInfo>,
): string | undefined {
  const info = tensors.get(name) as CheckpointTensorInfo;
  checkShape(name, info.shape, shape);
  if (plainDTypes.includes(info.dtype)) return undefined;
  if (!linear || info.dtype !== "e4m3fn") {
    const allowed = linear ? [...plainDTypes, "e4m3fn"] : plainDTypes;
    throw new WeightsError(name, `${name} has dtype ${info.dtype}; expected ${allowed.join(", ")}`);
  }
  if (!config.fp8) {
    throw new WeightsError(
      name,
      `${name} is FP8 (${info.dtype}), but config.json has no quantization_config of method "fp8"`,
    );
  }
  const scales = `${name}${scaleSuffix}`;
  const scaleInfo = tensors.get(scales);
  if (scaleInfo === undefined) {
    throw new WeightsError(scales, `${name} is FP8, but its scales ${scales} are missing`);
  }
  checkShape(scales, scaleInfo.shape, scaleShape(shape));
  if (![...plainDTypes, "ue8m0"].includes(scaleInfo.dtype)) {
    throw new WeightsError(scales, `${scales} has dtype ${scaleInfo.dtype}; expected f32`);
  }
  return scales;
}
