// Cases of the low-latency mode and what must come out of them.

import { bf16FromNumber, bf16ToNumber, Tensor } from "@open-infra/tensor";
import { seededRandom } from "@open-infra/testing";

/** One dispatch and combine. */
export interface LowLatencyCase {
  readonly seed: number;
  readonly tokens: readonly number[];
  readonly most: number;
  readonly hidden: number;
  readonly topk: number;
  readonly numExperts: number;
  readonly useFp8: boolean;
  readonly roundScale: boolean;
  readonly useUe8m0: boolean;
  readonly hook: boolean;
  readonly async: boolean;
  readonly zeroCopy: boolean;
  readonly useLogfmt: boolean;
  readonly maskedRatio: number;
  readonly onlyExpert?: number;
}

/** One rank's input. */
export interface LowLatencyInput {
  readonly topk: readonly (readonly number[])[];
  readonly topkIdx: Tensor<"i64">;
  readonly topkWeights: Tensor<"f32">;
  readonly x: Tensor<"bf16">;
}

/** Every rank makes every rank's input. */
export function makeLowLatencyInput(c: LowLatencyCase, rank: number): LowLatencyInput {
  const random = seededRandom(c.seed * 1000 + rank);
  const tokens = c.tokens[rank] as number;
  const topk = Array.from({ length: tokens }, () => {
    const pool = Array.from({ length: c.numExperts }, (_, e) => e);
    return Array.from({ length: c.topk }, (_, k) => {
      if (c.onlyExpert !== undefined) return k === 0 ? c.onlyExpert : -1;
      const [expert = -1] = pool.splice(random.int(0, pool.length), 1);
      return random.next() < c.maskedRatio ? -1 : expert;
    });
  });
  const topkWeights = Tensor.empty([tokens, c.topk], "f32");
  topkWeights.raw().forEach((_, i, all) => {
    all[i] = Math.fround(random.next());
  });
  const x = Tensor.empty([tokens, c.hidden], "bf16");
  const scale = c.useLogfmt && rank % 2 ? 0.2 : 3;
  x.raw().forEach((_, i, all) => {
    all[i] = bf16FromNumber(random.normal() * scale);
  });
  return { topk, topkIdx: Tensor.from(topk.flat(), [tokens, c.topk], "i64"), topkWeights, x };
}

/** The tokens of a rank that go to an expert, in order. */
export function tokensFor(input: LowLatencyInput, expert: number): number[] {
  return input.topk.flatMap((choice, token) => (choice.includes(expert) ? [token] : []));
}

/** Identity experts: x times the sum of its valid weights, in float64. */
export function identitySum(
  c: LowLatencyCase,
  input: LowLatencyInput,
  values: ArrayLike<number>,
  alive: (expert: number) => boolean,
): Float64Array {
  return Float64Array.from({ length: values.length }, (_, i) => {
    const token = Math.floor(i / c.hidden);
    let factor = 0;
    input.topk[token]?.forEach((e, k) => {
      if (e >= 0 && alive(e)) factor += input.topkWeights.raw()[token * c.topk + k] as number;
    });
    return (values[i] as number) * factor;
  });
}

export const toNumbers = (x: Tensor<"bf16">): Float64Array =>
  Float64Array.from(x.raw(), bf16ToNumber);

/** The originals' distance with one added to all values. */
export function shiftedDiff(x: ArrayLike<number>, y: ArrayLike<number>): number {
  let dot = 0;
  let norm = 0;
  for (let i = 0; i < x.length; i++) {
    const a = (x[i] as number) + 1;
    const b = (y[i] as number) + 1;
    dot += a * b;
    norm += a * a + b * b;
  }
  return norm === 0 ? 0 : 1 - (2 * dot) / norm;
}
