// What a model costs, by layer or as one rank's share, and how it is cut into stages. Times and
// bytes are of one micro-batch; nothing here knows schedules.

import { InputError } from "@open-infra/errors";
import type { StageMemory } from "../simulate/memory.ts";
import { checkDuration, type StageTimes } from "../simulate/times.ts";

/** Costs of a layer, or of any part of the model, for one micro-batch. */
export interface LayerCost {
  /** Forward. */
  readonly F: number;
  /** Full backward. */
  readonly B: number;
  /** Of it, the gradients of the weights. @default B / 2 */
  readonly W?: number;
  /** Weights, gradients and optimizer state. @default 0 */
  readonly parameterBytes?: number;
  /** What the forward leaves for the backward. @default 0 */
  readonly activationBytes?: number;
  /** What of that stays until the W where the backward is split. @default activationBytes */
  readonly weightGradBytes?: number;
}

/** All costs, defaults filled in. */
export type FullCost = Required<LayerCost>;

const fields = ["F", "B", "W", "parameterBytes", "activationBytes", "weightGradBytes"] as const;

/** Checks a cost and fills in what it leaves out. */
export function fullCost(name: string, cost: LayerCost): FullCost {
  const filled: FullCost = {
    F: cost.F,
    B: cost.B,
    W: cost.W ?? cost.B / 2,
    parameterBytes: cost.parameterBytes ?? 0,
    activationBytes: cost.activationBytes ?? 0,
    weightGradBytes: cost.weightGradBytes ?? cost.activationBytes ?? 0,
  };
  for (const field of fields) checkDuration(`${name}.${field}`, filled[field]);
  if (filled.W > filled.B) {
    throw new InputError(`${name}.W`, String(filled.W), `at most ${name}.B, ${filled.B}`);
  }
  const { activationBytes, weightGradBytes } = filled;
  if (weightGradBytes > activationBytes) {
    const allowed = `at most ${name}.activationBytes, ${activationBytes}`;
    throw new InputError(`${name}.weightGradBytes`, String(weightGradBytes), allowed);
  }
  return filled;
}

function sum(costs: readonly FullCost[]): FullCost {
  const total = { F: 0, B: 0, W: 0, parameterBytes: 0, activationBytes: 0, weightGradBytes: 0 };
  for (const cost of costs) for (const field of fields) total[field] += cost[field];
  return total;
}

/**
 * Least possible largest sum when `weights` are cut into `parts` runs, none of them empty.
 */
function leastLargest(weights: readonly number[], parts: number): number {
  const fits = (limit: number): boolean => {
    let used = 1;
    let load = 0;
    for (let i = 0; i < weights.length; i++) {
      const weight = weights[i] as number;
      if (load > 0 && load + weight > limit) {
        used++;
        load = 0;
      }
      load += weight;
    }
    return used <= parts;
  };
  // The answer is the sum of a run, so halving ends at it once the interval holds one sum only.
  let low = Math.max(...weights);
  let high = weights.reduce((total, weight) => total + weight, 0);
  if (fits(low)) return low;
  for (let i = 0; i < 100 && high - low > high * 1e-14; i++) {
    const middle = (low + high) / 2;
    if (fits(middle)) high = middle;
    else low = middle;
  }
  return high;
}

/**
 * Cuts layers into `parts` stages of consecutive layers, none empty, so that the slowest stage is
 * as fast as possible and, among such cuts, the sum of squares is least. Gives the first layer of
 * each stage, and the number of layers at the end.
 *
 * @throws InputError with fewer layers than stages.
 */
export function cutLayers(weights: readonly number[], parts: number): readonly number[] {
  const n = weights.length;
  if (n < parts) throw new InputError("layers", String(n), `at least ${parts}, one a stage`);
  const limit = leastLargest(weights, parts) * (1 + 1e-12);
  const prefix = new Float64Array(n + 1);
  for (let i = 0; i < n; i++) prefix[i + 1] = (prefix[i] as number) + (weights[i] as number);
  // best[i]: least sum of squares of the first i layers in the parts so far; from[part][i]: its
  // cut.
  let best = new Float64Array(n + 1).fill(Number.POSITIVE_INFINITY);
  best[0] = 0;
  const from: Int32Array[] = [];
  for (let part = 1; part <= parts; part++) {
    const next = new Float64Array(n + 1).fill(Number.POSITIVE_INFINITY);
    const cuts = new Int32Array(n + 1);
    for (let to = part; to <= n - (parts - part); to++) {
      for (let cut = to - 1; cut >= part - 1; cut--) {
        const load = (prefix[to] as number) - (prefix[cut] as number);
        if (load > limit) break;
        const cost = (best[cut] as number) + load * load;
        if (cost < (next[to] as number)) {
          next[to] = cost;
          cuts[to] = cut;
        }
      }
    }
    best = next;
    from.push(cuts);
  }
  const bounds = [n];
  for (let part = parts - 1; part >= 0; part--) {
    bounds.push((from[part] as Int32Array)[bounds.at(-1) as number] as number);
  }
  return bounds.reverse();
}

/** A model cut into stages. */
export interface CutModel {
  readonly stages: readonly FullCost[];
  /** First layer of each stage and the number of layers; absent where the model is one share. */
  readonly layerBounds?: readonly number[];
}

/** Layers into `numStages` stages by F + B. */
export function cutByLayers(layers: readonly FullCost[], numStages: number): CutModel {
  const weights = layers.map(({ F, B }) => F + B);
  const layerBounds = cutLayers(weights, numStages);
  const stages = Array.from({ length: numStages }, (_, stage) =>
    sum(layers.slice(layerBounds[stage], layerBounds[stage + 1])),
  );
  return { stages, layerBounds };
}

/** `1 / shares` of a model into `numStages` equal stages. */
export function cutEvenly(share: FullCost, shares: number, numStages: number): CutModel {
  const factor = shares / numStages;
  const stage = { ...share };
  for (const field of fields) stage[field] *= factor;
  return { stages: Array.from({ length: numStages }, () => stage) };
}

/** How a micro-batch differs from the one costs were given for. */
export interface Scaling {
  /** Its tokens over those of the given costs. */
  readonly size: number;
  /** Time of each computation that does not grow with tokens. */
  readonly overhead: number;
  /** Time of an overlapped pair over the sum of its halves. */
  readonly overlapShare: number;
}

/** Durations of a cut model's stages. */
export function timesOf(
  { stages }: CutModel,
  { size, overhead, overlapShare }: Scaling,
): StageTimes {
  const of = (value: (cost: FullCost) => number): readonly number[] =>
    stages.map((cost) => value(cost) * size + overhead);
  const pair = (f: number, b: number): number => {
    const sumOfHalves = (stages[f] as FullCost).F + (stages[b] as FullCost).B;
    return sumOfHalves * size * overlapShare + 2 * overhead;
  };
  return {
    F: of(({ F }) => F),
    B: of(({ B }) => B),
    I: of(({ B, W }) => B - W),
    W: of(({ W }) => W),
    FB: pair,
  };
}

/** Bytes of a cut model's stages; activations grow with tokens, parameters do not. */
export function memoryOf({ stages }: CutModel, size: number): StageMemory {
  return {
    activationBytes: stages.map(({ activationBytes }) => activationBytes * size),
    weightGradBytes: stages.map(({ weightGradBytes }) => weightGradBytes * size),
    parameterBytes: stages.map(({ parameterBytes }) => parameterBytes),
  };
}
