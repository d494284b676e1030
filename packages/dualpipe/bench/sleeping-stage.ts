// Stages for the executor's bench: ones that do nothing, that only hand over a tensor of a given
// size, or that sleep for given times instead of computing, so that more ranks than cores can be
// measured.

import type { Criterion, Stage } from "@open-infra/dualpipe/runtime";
import { Tensor } from "@open-infra/tensor";

const flag = new Int32Array(new SharedArrayBuffer(4));

/** Holds the thread as a computation would, without the core. */
function sleep(ms: number): void {
  const end = performance.now() + ms;
  for (let left = ms; left > 0; left = end - performance.now()) Atomics.wait(flag, 0, 0, left);
}

export interface SleepOptions {
  readonly F: number;
  readonly I: number;
  readonly W: number;
  readonly FB: number;
}

/** Times in milliseconds. */
export class SleepingStage implements Stage<null> {
  readonly #times: SleepOptions;

  constructor(times: SleepOptions) {
    this.#times = times;
  }

  forward(inputs: readonly Tensor[]): { outputs: readonly Tensor[]; saved: null } {
    sleep(this.#times.F);
    return { outputs: inputs, saved: null };
  }

  backwardInput(_: null, grads: readonly Tensor[]): readonly Tensor[] {
    sleep(this.#times.I);
    return grads;
  }

  backwardWeight(): void {
    sleep(this.#times.W);
  }

  overlappedForwardBackward(
    forward: { readonly inputs: readonly Tensor[] },
    backward: { readonly gradOutputs: readonly Tensor[] },
  ): { outputs: readonly Tensor[]; saved: null; gradInputs: readonly Tensor[] } {
    sleep(this.#times.FB);
    return { outputs: forward.inputs, saved: null, gradInputs: backward.gradOutputs };
  }
}

export const createSleeping = (times: SleepOptions): SleepingStage => new SleepingStage(times);

/** Does nothing; its results are always the same two tensors. */
export function createEmpty(): Stage {
  const outputs = [Tensor.empty([1], "f32")];
  const gradients = [Tensor.empty([1], "f32")];
  const forward = { outputs, saved: null };
  return { forward: () => forward, backwardInput: () => gradients, backwardWeight: () => {} };
}

/** Gives the same tensor each time, so that only its transfer costs. */
export function createSource(options: { bytes: number }): Stage {
  const tensor = Tensor.empty([options.bytes], "u8").fill(1);
  const nothing = Tensor.empty([1], "u8");
  return {
    forward: (_, { stage }) => ({ outputs: [stage === 0 ? tensor : nothing], saved: null }),
    backwardInput: (_, grads) => grads,
  };
}

/** No loss; the output's gradient is of its shape. */
export const criterion: Criterion = {
  forward: (outputs) => ({ loss: 0, gradOutputs: outputs.map((y) => y.clone()) }),
};
