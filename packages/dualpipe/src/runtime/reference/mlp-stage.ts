// The stage that the original is tested with, Linear–GELU–Linear without biases, in plain
// TypeScript: an example of how a stage is written, and the stage of tests and benches. Not fast; a
// real stage calls kernels.

import { InputError } from "@open-infra/errors";
import { byteSize, type DType, HostStorage, Tensor } from "@open-infra/tensor";
import type { Criterion, Stage, StageContext, StageForward } from "../stage.ts";
import { gelu, geluSlope, multiply, type Numbers, rowMajor, transposed } from "./matrix.ts";

/** Sizes and seed of an `MlpStage`. */
export interface MlpOptions {
  /** Of inputs and outputs. @default 512 */
  readonly features?: number;
  /** @default 4 · features */
  readonly hidden?: number;
  /** @default "f32" */
  readonly dtype?: "f32" | "f64";
  /** Weights lie within `gain / √fan-in`; deep models train from √6 (He). @default 1, as torch */
  readonly gain?: number;
  /** Of the weights; each stage of the model draws its own. @default 233 */
  readonly seed?: number;
}

/** What a forward keeps for its backward; the backward leaves what the weights need. */
interface Saved {
  readonly x: Numbers;
  /** Before GELU. */
  readonly h: Numbers;
  /** After it. */
  readonly a: Numbers;
  /** Of the loss by `h`, once the backward for the input has run. */
  gradH?: Numbers;
}

type MlpTensor = Tensor<"f32" | "f64">;

/** Linear(features → hidden) – GELU – Linear(hidden → features), no biases. */
export class MlpStage implements Stage<Saved> {
  readonly features: number;
  readonly hidden: number;
  readonly dtype: "f32" | "f64";
  /** `[hidden, features]` and `[features, hidden]`. */
  readonly weights: readonly [MlpTensor, MlpTensor];
  readonly #gradients: readonly [MlpTensor, MlpTensor];

  /** @param index Of the stage in the model; copies of a stage get equal weights. */
  constructor(options: MlpOptions, index: number) {
    this.features = options.features ?? 512;
    this.hidden = options.hidden ?? 4 * this.features;
    this.dtype = options.dtype ?? "f32";
    const { features, hidden, dtype } = this;
    const draw = uniform((options.seed ?? 233) * 1000 + index);
    const make = (rows: number, columns: number): MlpTensor => {
      const bound = (options.gain ?? 1) / Math.sqrt(columns);
      const values = Float64Array.from({ length: rows * columns }, () => (2 * draw() - 1) * bound);
      return Tensor.from(values, [rows, columns], dtype);
    };
    this.weights = [make(hidden, features), make(features, hidden)];
    this.#gradients = [
      Tensor.empty([hidden, features], dtype),
      Tensor.empty([features, hidden], dtype),
    ];
  }

  forward(inputs: readonly Tensor[], context: StageContext): StageForward<Saved> {
    const { features, hidden } = this;
    const [input] = inputs;
    if (input?.dtype !== this.dtype || input.dim(-1) !== features) {
      const got = input === undefined ? "absent" : `${input.dtype}[${input.shape}]`;
      throw new InputError("inputs[0]", got, `${this.dtype}[..., ${features}]`);
    }
    const x = input.raw() as Numbers;
    const rows = x.length / features;
    const h = this.#numbers(rows * hidden);
    const [w1, w2] = this.weights;
    multiply([rows, hidden, features], rowMajor(x, features), this.#t(w1), h);
    const a = h.map(gelu);
    const y = plainTensor(input.shape, this.dtype);
    multiply([rows, features, hidden], rowMajor(a, hidden), this.#t(w2), y.raw());
    return { outputs: [y], saved: context.training ? { x, h, a } : ({} as Saved) };
  }

  backwardInput(saved: Saved, gradOutputs: readonly Tensor[], context: StageContext): Tensor[] {
    const { features, hidden } = this;
    const { h } = saved;
    const gradOutput = gradOutputs[0] as Tensor;
    const gradY = gradOutput.raw() as Numbers;
    const rows = gradY.length / features;
    const [w1, w2] = this.weights;
    const gradH = this.#numbers(h.length);
    multiply(
      [rows, hidden, features],
      rowMajor(gradY, features),
      rowMajor(w2.raw(), hidden),
      gradH,
    );
    for (let i = 0; i < gradH.length; i++) (gradH[i] as number) *= geluSlope(h[i] as number);
    saved.gradH = gradH;
    if (!context.needsInputGrads) return [];
    const gradX = plainTensor(gradOutput.shape, this.dtype);
    const out = gradX.raw() as Numbers;
    multiply([rows, features, hidden], rowMajor(gradH, hidden), rowMajor(w1.raw(), features), out);
    return [gradX];
  }

  backwardWeight(saved: Saved, gradOutputs: readonly Tensor[]): void {
    const { features, hidden } = this;
    const { x, a, gradH } = saved;
    const gradY = (gradOutputs[0] as Tensor).raw() as Numbers;
    const rows = gradY.length / features;
    const [g1, g2] = this.#gradients;
    const byRow = (data: Numbers, columns: number) => transposed(rowMajor(data, columns));
    multiply(
      [hidden, features, rows],
      byRow(gradH as Numbers, hidden),
      rowMajor(x, features),
      g1.raw(),
      true,
    );
    multiply([features, hidden, rows], byRow(gradY, features), rowMajor(a, hidden), g2.raw(), true);
  }

  gradients(): readonly Tensor[] {
    return this.#gradients;
  }

  /** The weights themselves, not copies. */
  parameters(): readonly Tensor[] {
    return this.weights;
  }

  zeroGradients(): void {
    for (const gradient of this.#gradients) gradient.bytes().fill(0);
  }

  /** Plain gradient descent; then the gradients are zero again. */
  optimizerStep(learningRate: number): void {
    this.weights.forEach((weight, i) => {
      const w = weight.raw();
      const g = (this.#gradients[i] as MlpTensor).raw();
      for (let j = 0; j < w.length; j++) (w[j] as number) -= learningRate * (g[j] as number);
    });
    this.zeroGradients();
  }

  #numbers(length: number): Numbers {
    return this.dtype === "f64" ? new Float64Array(length) : new Float32Array(length);
  }

  /** A weight `[out, in]` as the right-hand factor `in × out`. */
  #t(weight: MlpTensor): ReturnType<typeof transposed> {
    return transposed(rowMajor(weight.raw(), weight.dim(1)));
  }
}

/** For `launchPipeline`: `stageExport: "createMlpStage"`. */
export function createMlpStage(options: MlpOptions, place: { readonly stage: number }): MlpStage {
  return new MlpStage(options, place.stage);
}

/** The mean of the squared differences, and its gradient. */
export const mseLoss: Criterion = {
  forward([output, ...more], [label]) {
    const same = label?.dtype === output?.dtype && `${label?.shape}` === `${output?.shape}`;
    if (output === undefined || label === undefined || more.length > 0 || !same) {
      const wanted = output === undefined ? "one tensor" : `${output.dtype}[${output.shape}]`;
      throw new InputError("labels", label?.describe() ?? "absent", `${wanted}, as the output`);
    }
    const y = output.raw() as Numbers;
    const t = label.raw() as Numbers;
    const gradient = plainTensor(output.shape, output.dtype);
    const g = gradient.raw() as Numbers;
    let sum = 0;
    for (let i = 0; i < y.length; i++) {
      const difference = (y[i] as number) - (t[i] as number);
      sum += difference * difference;
      g[i] = (2 * difference) / y.length;
    }
    return { loss: sum / y.length, gradOutputs: [gradient] };
  },
};

/** Zeros in memory of this thread, which is collected as soon as other objects are. */
function plainTensor<D extends DType>(shape: readonly number[], dtype: D): Tensor<D> {
  const count = shape.reduce((product, size) => product * size, 1);
  const storage = new HostStorage(new Uint8Array(byteSize(dtype, count)));
  return new Tensor({ dtype, shape, storage });
}

/** Numbers in [0, 1) from a seed: a Weyl sequence through a 32-bit mixer. */
function uniform(seed: number): () => number {
  let state = Math.imul(seed, 0x9e3779b1) >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let z = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return ((z ^ (z >>> 15)) >>> 0) / 2 ** 32;
  };
}
