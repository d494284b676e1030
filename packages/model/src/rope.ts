// Cosine and sine tables of the rotary embedding, and the softmax scale that goes with them.
// Follows DeepseekV2YarnRotaryEmbedding of the original modeling code: frequencies and angles are
// rounded to float32 as there (models were trained with these angles), the rest is float64.

import { Tensor } from "@open-infra/tensor";
import type { RopeConfig, YarnConfig } from "./rope-config.ts";

/** YaRN's attention temperature for a length `factor`: 0.1·mscale·ln(factor) + 1. */
export function yarnMscale(factor: number, mscale: number): number {
  return factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1;
}

/** Radians per position of each pair, [dim / 2]. */
export function inverseFrequencies(rope: RopeConfig, dim: number): Float32Array {
  const out = new Float32Array(dim / 2);
  const { yarn, theta } = rope;
  const [low, high] = yarn === undefined ? [0, 0] : correctionRange(yarn, theta, dim);
  for (let i = 0; i < out.length; i++) {
    const plain = theta ** (-(2 * i) / dim);
    if (yarn === undefined) out[i] = plain / rope.linearFactor;
    else {
      // Fast pairs (small i) keep their frequency, slow ones are stretched, a ramp between.
      const stretched = Math.min(1, Math.max(0, (i - low) / (high - low)));
      out[i] = (plain / yarn.factor) * stretched + plain * (1 - stretched);
    }
  }
  return out;
}

/** The pairs between which YaRN ramps from kept to stretched frequencies. */
function correctionRange(yarn: YarnConfig, theta: number, dim: number): [number, number] {
  const pairThatTurns = (rotations: number): number =>
    (dim * Math.log(yarn.originalMaxPositions / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
  let low = pairThatTurns(yarn.betaFast);
  let high = pairThatTurns(yarn.betaSlow);
  if (yarn.truncate) [low, high] = [Math.floor(low), Math.ceil(high)];
  low = Math.max(low, 0);
  high = Math.min(high, dim - 1);
  return [low, low === high ? high + 0.001 : high];
}

/** 1/√d of the whole query head, times YaRN's squared temperature. */
export function softmaxScale(rope: RopeConfig, qkHeadDim: number): number {
  const scale = 1 / Math.sqrt(qkHeadDim);
  if (rope.yarn === undefined || rope.yarn.mscaleAllDim === 0) return scale;
  return scale * yarnMscale(rope.yarn.factor, rope.yarn.mscaleAllDim) ** 2;
}

/** Tables for positions 0 … length − 1, f32 [length, dim / 2] each. */
export interface RopeTables {
  readonly cos: Tensor<"f32">;
  readonly sin: Tensor<"f32">;
}

export function ropeTables(rope: RopeConfig, dim: number, length: number): RopeTables {
  const frequencies = inverseFrequencies(rope, dim);
  const { yarn } = rope;
  const magnitude =
    yarn === undefined
      ? 1
      : yarnMscale(yarn.factor, yarn.mscale) / yarnMscale(yarn.factor, yarn.mscaleAllDim);
  const cos = Tensor.empty([length, dim / 2], "f32", "rope.cos");
  const sin = Tensor.empty([length, dim / 2], "f32", "rope.sin");
  const [c, s] = [cos.raw(), sin.raw()];
  for (let at = 0, position = 0; position < length; position++) {
    for (const frequency of frequencies) {
      const angle = Math.fround(position * frequency);
      c[at] = Math.cos(angle) * magnitude;
      s[at++] = Math.sin(angle) * magnitude;
    }
  }
  return { cos, sin };
}
