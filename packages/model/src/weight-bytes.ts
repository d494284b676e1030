// What decoding one token reads: the roofline of a decode step is this over the memory bandwidth.

import { byteSize, type Tensor } from "@open-infra/tensor";
import type { ModelConfig } from "./config.ts";
import type { LayerWeights, LinearWeight, MlpWeights, ModelWeights } from "./weights.ts";

function bytes(tensor: Tensor | undefined): number {
  return tensor === undefined ? 0 : byteSize(tensor.dtype, tensor.size);
}

function linearBytes(weight: LinearWeight | undefined): number {
  return weight === undefined ? 0 : bytes(weight.data) + bytes(weight.scales);
}

function mlpBytes(mlp: MlpWeights | undefined): number {
  return mlp === undefined ? 0 : linearBytes(mlp.gateUp) + linearBytes(mlp.down);
}

function layerBytes(layer: LayerWeights, chosenShare: number): number {
  const { moe } = layer;
  const norms = [layer.inputNorm, layer.qNorm, layer.kvNorm, layer.postNorm];
  const attention =
    linearBytes(layer.qkv) +
    linearBytes(layer.qB) +
    bytes(layer.wUk) +
    bytes(layer.wUv) +
    linearBytes(layer.o) +
    norms.reduce((sum, norm) => sum + bytes(norm), 0);
  if (moe === undefined) return attention + mlpBytes(layer.mlp);
  const routed = Math.round(mlpBytes(moe.experts) * chosenShare);
  return attention + bytes(moe.gate) + bytes(moe.bias) + mlpBytes(moe.shared) + routed;
}

/**
 * Weight bytes of one decoded token: dense weights, the chosen experts', one row of the embedding.
 */
export function activeWeightBytes(config: ModelConfig, weights: ModelWeights): number {
  const { routing } = config;
  const share = routing === undefined ? 0 : routing.expertsPerToken / routing.experts;
  const layers = weights.layers.reduce((sum, layer) => sum + layerBytes(layer, share), 0);
  const embedRow = bytes(weights.embed) / config.vocabSize;
  return layers + embedRow + bytes(weights.norm) + bytes(weights.lmHead);
}
