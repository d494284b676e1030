// The unpipelined model: every micro-batch runs through all stages, one after another. It is what
// the pipeline must equal.

import { nullRecorder } from "@open-infra/profile";
import { type DType, Tensor } from "@open-infra/tensor";
import { calcDiff, type Random } from "@open-infra/testing";
import { expect } from "vitest";
import { type MlpOptions, MlpStage, mseLoss } from "../../src/runtime/reference/mlp-stage.ts";
import type { StageContext } from "../../src/runtime/stage.ts";
import { WeightGradStore } from "../../src/runtime/weight-grad-store.ts";

export interface Expected {
  readonly losses: Float64Array;
  readonly outputs: readonly Tensor[];
  /** Of every stage. */
  readonly gradients: readonly (readonly Tensor[])[];
}

/** Standard normal numbers. */
export function randomTensor(random: Random, shape: readonly number[], dtype: DType): Tensor {
  const count = shape.reduce((a, b) => a * b, 1);
  return Tensor.from(
    Float64Array.from({ length: count }, () => random.normal()),
    shape,
    dtype,
  );
}

export function contextOf(stage: number, numStages: number): StageContext {
  return {
    rank: 0,
    direction: 0,
    stage,
    numStages,
    microBatch: 0,
    training: true,
    needsInputGrads: stage > 0,
    weightGrads: new WeightGradStore(),
    recorder: nullRecorder,
  };
}

/** Losses, outputs and summed gradients of `numStages` stages over a batch cut in `numChunks`. */
export async function unpipelined(
  numStages: number,
  options: MlpOptions,
  inputs: Tensor,
  labels: Tensor,
  numChunks: number,
): Promise<Expected> {
  const stages = Array.from({ length: numStages }, (_, i) => new MlpStage(options, i));
  const rows = inputs.dim(0) / numChunks;
  const losses = new Float64Array(numChunks);
  const outputs: Tensor[] = [];
  for (let m = 0; m < numChunks; m++) {
    let x: readonly Tensor[] = [inputs.slice(0, m * rows, (m + 1) * rows)];
    const saved = stages.map((stage, i) => {
      const done = stage.forward(x, contextOf(i, numStages));
      x = done.outputs;
      return done.saved;
    });
    outputs.push(x[0] as Tensor);
    const label = labels.slice(0, m * rows, (m + 1) * rows);
    const context = contextOf(numStages - 1, numStages);
    const { loss, gradOutputs } = await mseLoss.forward(x, [label], context);
    losses[m] = loss;
    let gradients = gradOutputs as readonly Tensor[];
    for (let i = numStages - 1; i >= 0; i--) {
      const kept = saved[i] as (typeof saved)[number];
      const stage = stages[i] as MlpStage;
      const next = stage.backwardInput(kept, gradients, contextOf(i, numStages));
      stage.backwardWeight(kept, gradients);
      gradients = next;
    }
  }
  return { losses, outputs, gradients: stages.map((stage) => stage.gradients()) };
}

/** Gradients agree as the original asks: cos_diff below 1e-13 in double. */
export function expectClose(got: readonly Tensor[], wanted: readonly Tensor[], hint: string): void {
  expect(got.length, hint).toBe(wanted.length);
  got.forEach((tensor, i) => {
    const other = (wanted[i] as Tensor).toFloat64();
    expect(
      other.some((x) => x !== 0),
      `${hint}: gradient ${i} is not zero`,
    ).toBe(true);
    expect(calcDiff(tensor.toFloat64(), other), `${hint}: gradient ${i}`).toBeLessThan(1e-13);
  });
}

/** The bits of a tensor, for `toEqual`. */
export function bitsOf(tensor: Tensor): string {
  return Buffer.from(tensor.contiguous().bytes()).toString("hex");
}

/** Bits of micro-batch outputs and of a joined output. */
export function expectSameBits(
  got: readonly Tensor[],
  wanted: readonly Tensor[],
  hint: string,
): void {
  expect(got.map(bitsOf), hint).toEqual(wanted.map(bitsOf));
}
