// The forward pass of one decoder layer as a sequence of operations: MLA with absorbed weights,
// then a dense MLP or a mixture of experts. The residual stream is f32 throughout; what enters a
// GEMM is in the activation dtype, or FP8 with a scale per token and 128 columns (w8a8).
//
// Every operation computes a row from that row alone, in a fixed order of additions, so that a
// token's result does not depend on what else is in the step.

import {
  gemmNt,
  gemmNtBatched,
  gemmNtGrouped,
  perTokenCastToFp8,
  type ScaledTensor,
} from "@open-infra/deep-gemm";
import { flashMlaVarlen } from "@open-infra/flash-mla";
import type { Device } from "@open-infra/jit";
import type { Tensor } from "@open-infra/tensor";
import { fp8Block, type ModelConfig } from "./config.ts";
import type { LatentKvCache } from "./kv-cache.ts";
import type { ActDType } from "./ops/common.ts";
import { gatherRows } from "./ops/gather-rows.ts";
import { mlaPrepare } from "./ops/mla-prepare.ts";
import { type ExpertRows, residualNorm } from "./ops/residual-norm.ts";
import { route } from "./ops/route.ts";
import { siluMul } from "./ops/silu-mul.ts";
import type { RopeTables } from "./rope.ts";
import type { StepInputs } from "./step-inputs.ts";
import type { LayerWeights, LinearWeight, MlpWeights, MoeWeights } from "./weights.ts";
import type { Workspace } from "./workspace.ts";

/** Dtypes of what flows between the operations; see the README's table. */
export interface Numerics {
  /** Inputs of linear layers. */
  readonly act: ActDType;
  /** Queries, latents and the cache. */
  readonly attention: ActDType;
  /** FP8 layers whose inputs are quantised, as DeepSeek's code does for all of them. */
  readonly fp8Inputs: "none" | "mlp" | "all";
}

/** What a step has at hand. */
export interface Step {
  readonly device: Device;
  readonly config: ModelConfig;
  readonly workspace: Workspace;
  readonly numerics: Numerics;
  readonly inputs: StepInputs;
  readonly cache: LatentKvCache;
  readonly rope: RopeTables;
  readonly softmaxScale: number;
}

/** The eps of the norms inside attention; DeepSeek's code leaves it at its default there. */
const latentNormEps = 1e-6;

/** What a layer leaves to be added to the residual stream, by the next norm. */
export interface Pending {
  readonly delta?: Tensor<"f32"> | undefined;
  readonly experts?: ExpertRows | undefined;
}

/** An input of linear layers, quantised at most once, when the first FP8 layer asks. */
class Activation {
  readonly act: Tensor<ActDType>;
  readonly #part: "attention" | "mlp";
  #scaled: ScaledTensor | undefined;

  constructor(act: Tensor<ActDType>, part: "attention" | "mlp") {
    this.act = act;
    this.#part = part;
  }

  scaled(step: Step): ScaledTensor {
    if (this.#scaled === undefined) {
      const [rows, columns] = [this.act.dim(0), this.act.dim(1)];
      const out = scaledBuffer(step, this.act.label, rows, columns);
      perTokenCastToFp8(step.device, { x: this.act, out });
      this.#scaled = out;
    }
    return this.#scaled;
  }

  /** The left operand for a weight. */
  operand(step: Step, weight: LinearWeight): Tensor | ScaledTensor {
    const { fp8Inputs } = step.numerics;
    const quantise = fp8Inputs === "all" || fp8Inputs === this.#part;
    return quantise && weight.scales !== undefined ? this.scaled(step) : this.act;
  }
}

function scaledBuffer(step: Step, name: string, rows: number, columns: number): ScaledTensor {
  const blocks = Math.ceil(columns / fp8Block);
  return {
    data: step.workspace.tensor(`${name} fp8`, [rows, columns], "e4m3fn"),
    scales: step.workspace.tensor(`${name} scales`, [rows, blocks], "f32"),
  };
}

function operandOf(weight: LinearWeight): Tensor | ScaledTensor {
  const { data, scales } = weight;
  return scales === undefined ? data : { data, scales };
}

/** d = x · Wᵀ */
function linear(step: Step, x: Activation, weight: LinearWeight, d: Tensor): void {
  gemmNt(step.device, { a: x.operand(step, weight), b: operandOf(weight), d });
}

/**
 * One layer over h f32 [T, H]. Adds what the layer before left pending; returns what this one
 * leaves.
 */
export function runLayer(
  step: Step,
  layer: LayerWeights,
  index: number,
  h: Tensor<"f32">,
  pending: Pending,
): Pending {
  const { device, config, workspace } = step;
  const { act } = step.numerics;
  const [tokens, hidden] = [h.dim(0), h.dim(1)];
  const x = workspace.tensor("x", [tokens, hidden], act);
  const eps = config.rmsNormEps;
  device.run(residualNorm, { h, ...pending, weight: layer.inputNorm, eps, out: x });
  const delta = attention(step, layer, index, new Activation(x, "attention"));
  const exact =
    layer.moe && act !== "f32" ? workspace.tensor("x exact", h.shape, "f32") : undefined;
  device.run(residualNorm, {
    h,
    delta,
    weight: layer.postNorm,
    eps,
    out: x,
    outF32: exact,
  });
  const normed = new Activation(x, "mlp");
  if (layer.moe !== undefined) return moe(step, layer.moe, normed, exact ?? (x as Tensor<"f32">));
  return { delta: mlp(step, layer.mlp as MlpWeights, normed, "mlp") };
}

/** Multi-head latent attention with absorbed weights; returns its output f32 [T, H]. */
function attention(step: Step, layer: LayerWeights, index: number, x: Activation): Tensor<"f32"> {
  const { device, config, workspace, inputs } = step;
  const { act, attention: dtype } = step.numerics;
  const { numHeads, kvLoraRank, qkNopeHeadDim, qkRopeHeadDim, vHeadDim } = config;
  const tokens = x.act.dim(0);
  const latent = kvLoraRank + qkRopeHeadDim;
  const queryWidth = numHeads * (qkNopeHeadDim + qkRopeHeadDim);
  const qkv = workspace.tensor("qkv", [tokens, layer.qkv.rows], "f32");
  linear(step, x, layer.qkv, qkv);
  const kvOffset = layer.qkv.offsets[1] as number;
  const q = layer.qB === undefined ? qkv.slice(1, 0, queryWidth) : decompress(step, layer, qkv);
  const qNope = workspace.tensor("q nope", [tokens, numHeads, qkNopeHeadDim], dtype);
  const qLatent = workspace.tensor("q latent", [tokens, numHeads, latent], dtype);
  const cache = step.cache.layers[index] as Tensor<ActDType>;
  device.run(mlaPrepare, {
    q,
    kv: qkv.slice(1, kvOffset, kvOffset + latent),
    kvNorm: layer.kvNorm,
    eps: latentNormEps,
    ...step.rope,
    positions: inputs.positions,
    slots: inputs.slots,
    cache,
    qNope,
    qLatent,
    interleaved: config.rope.interleaved,
  });
  gemmNtBatched(device, { a: qNope, b: layer.wUk, d: qLatent.slice(2, 0, kvLoraRank) });
  const oLatent = workspace.tensor("o latent", [tokens, numHeads, kvLoraRank], dtype);
  flashMlaVarlen(device, {
    q: qLatent,
    kCache: cache,
    blockTable: inputs.blockTable,
    cuSeqlensQ: inputs.cuSeqlensQ,
    contextLens: inputs.contextLens,
    headDimV: kvLoraRank,
    softmaxScale: step.softmaxScale,
    out: oLatent,
  });
  const heads = workspace.tensor("heads", [tokens, numHeads, vHeadDim], act);
  gemmNtBatched(device, { a: oLatent, b: layer.wUv, d: heads });
  const delta = workspace.tensor("attention out", [tokens, config.hiddenSize], "f32");
  const joined = heads.reshape([tokens, numHeads * vHeadDim]);
  linear(step, new Activation(joined, "attention"), layer.o, delta);
  return delta;
}

/** q_b_proj(q_a_layernorm(q_a)): f32 [T, h·(dn + dr)]. */
function decompress(step: Step, layer: LayerWeights, qkv: Tensor<"f32">): Tensor<"f32"> {
  const { device, workspace, numerics } = step;
  const weight = layer.qNorm as Tensor<"f32">;
  const qB = layer.qB as LinearWeight;
  const [tokens, rank] = [qkv.dim(0), weight.dim(0)];
  const normed = workspace.tensor("q normed", [tokens, rank], numerics.act);
  device.run(residualNorm, { h: qkv.slice(1, 0, rank), weight, eps: latentNormEps, out: normed });
  const q = workspace.tensor("q", [tokens, qB.data.dim(0)], "f32");
  linear(step, new Activation(normed, "attention"), qB, q);
  return q;
}

/** down(silu(gate(x)) · up(x)): f32 [T, H]. */
function mlp(step: Step, weights: MlpWeights, x: Activation, name: string): Tensor<"f32"> {
  const { device, workspace, numerics } = step;
  const { gateUp, down, width } = weights;
  const rows = x.act.dim(0);
  const both = workspace.tensor(`${name} gate up`, [rows, gateUp.rows], "f32");
  linear(step, x, gateUp, both);
  const inner = workspace.tensor(`${name} inner`, [rows, width], numerics.act);
  device.run(siluMul, { x: both, upOffset: gateUp.offsets[1] as number, out: inner });
  const out = workspace.tensor(`${name} out`, [rows, x.act.dim(1)], "f32");
  linear(step, new Activation(inner, "mlp"), down, out);
  return out;
}

/** Routed experts (rows left to be weighted and added) and shared experts. */
function moe(step: Step, weights: MoeWeights, x: Activation, exact: Tensor<"f32">): Pending {
  const { device, config, workspace } = step;
  const routing = config.routing as NonNullable<ModelConfig["routing"]>;
  const tokens = x.act.dim(0);
  const { experts, expertsPerToken: k } = routing;
  const logits = workspace.tensor("router logits", [tokens, experts], "f32");
  gemmNt(device, { a: exact, b: weights.gate, d: logits });
  const chosen = {
    ids: workspace.tensor("expert ids", [tokens, k], "i32"),
    weights: workspace.tensor("expert weights", [tokens, k], "f32"),
    offsets: workspace.tensor("expert offsets", [experts + 1], "i32"),
    sources: workspace.tensor("expert sources", [tokens * k], "i32"),
    positions: workspace.tensor("expert positions", [tokens, k], "i32"),
  };
  device.run(route, { logits, bias: weights.bias, routing, ...chosen });
  const rows = expertMlp(step, weights.experts, x, chosen.sources, chosen.offsets);
  return {
    delta: weights.shared && mlp(step, weights.shared, x, "shared"),
    experts: { rows, positions: chosen.positions, weights: chosen.weights },
  };
}

/** Every expert's MLP over its own tokens' rows; returns f32 [T·K, H], sorted by expert. */
function expertMlp(
  step: Step,
  weights: MlpWeights,
  x: Activation,
  sources: Tensor<"i32">,
  offsets: Tensor<"i32">,
): Tensor<"f32"> {
  const { device, workspace, numerics } = step;
  const { gateUp, down, width } = weights;
  const [rows, hidden] = [sources.dim(0), x.act.dim(1)];
  const both = workspace.tensor("experts gate up", [rows, gateUp.rows], "f32");
  const a = gathered(step, x.operand(step, gateUp), sources);
  gemmNtGrouped(device, { a, b: operandOf(gateUp), d: both, offsets });
  const inner = workspace.tensor("experts inner", [rows, width], numerics.act);
  device.run(siluMul, { x: both, upOffset: gateUp.offsets[1] as number, out: inner });
  const out = workspace.tensor("experts out", [rows, hidden], "f32");
  const middle = new Activation(inner, "mlp").operand(step, down);
  gemmNtGrouped(device, { a: middle, b: operandOf(down), d: out, offsets });
  return out;
}

function gathered(
  step: Step,
  x: Tensor | ScaledTensor,
  index: Tensor<"i32">,
): Tensor | ScaledTensor {
  const { device, workspace } = step;
  const n = index.dim(0);
  if (!("scales" in x)) {
    const out = workspace.tensor("experts in", [n, x.dim(1)], x.dtype);
    device.run(gatherRows, { index, rows: x, out });
    return out;
  }
  const out = scaledBuffer(step, "experts in", n, x.data.dim(1));
  const second = { rows: x.scales, out: out.scales };
  device.run(gatherRows, { index, rows: x.data, out: out.data, second });
  return out;
}
