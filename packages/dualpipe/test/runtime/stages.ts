// Stages for the tests with threads: the reference stage, and what makes it fail in all the ways a
// thread can.

import type { Tensor } from "@open-infra/tensor";
import { type MlpOptions, MlpStage, mseLoss } from "../../src/runtime/reference/mlp-stage.ts";
import type { Criterion, Stage, StageContext } from "../../src/runtime/stage.ts";

export { createMlpStage, mseLoss } from "../../src/runtime/reference/mlp-stage.ts";

export type Trouble = "throw" | "exit" | "spin" | "hang" | "uncaught" | "reject" | "slow";

export interface TroubledOptions extends MlpOptions {
  readonly trouble: Trouble;
  /** In which call. */
  readonly at: { readonly op: "F" | "I"; readonly stage: number; readonly microBatch: number };
}

class MyError extends TypeError {
  override readonly name = "MyError";
}

const never = (): Promise<never> => new Promise(() => {});

/** Resolves after a while, throws, ends the thread, or does not come back. */
function cause(trouble: Trouble): Promise<void> | undefined {
  switch (trouble) {
    case "throw":
      throw new MyError("not today");
    case "exit":
      return process.exit(7);
    case "spin":
      for (;;);
    case "hang":
      return never();
    case "uncaught":
      setTimeout(() => {
        throw new MyError("from a timer");
      }, 0);
      return never();
    case "reject":
      Promise.reject(new MyError("nobody catches this"));
      return never();
    case "slow":
      return new Promise((resolve) => setTimeout(resolve, 30));
    default:
      return trouble satisfies never;
  }
}

/** The reference stage, with trouble in one call. */
export function createTroubled({ trouble, at, ...mlp }: TroubledOptions, place: { stage: number }) {
  const stage = new MlpStage(mlp, place.stage);
  const meets = (op: string, { stage: s, microBatch }: StageContext): boolean =>
    op === at.op && s === at.stage && microBatch === at.microBatch;
  const troubled: Stage & { square(x: number): number; gradients(): readonly Tensor[] } = {
    forward: async (inputs, context) => {
      if (meets("F", context)) await cause(trouble);
      return stage.forward(inputs, context);
    },
    backwardInput: async (saved, grads, context) => {
      if (meets("I", context)) await cause(trouble);
      return stage.backwardInput(saved as never, grads, context);
    },
    backwardWeight: (saved, grads) => stage.backwardWeight(saved as never, grads),
    gradients: () => stage.gradients(),
    square: (x) => {
      if (x < 0) throw new MyError(`no square of ${x}`);
      return x * x;
    },
  };
  return troubled;
}

/** Words that two ranks share: how many forwards stage 0 has begun. */
export interface WaitingOptions {
  readonly begun: Int32Array;
  readonly wanted: number;
}

/** Stage 1's first forward does not end before stage 0 has begun `wanted` forwards. */
export function createWaiting({ begun, wanted }: WaitingOptions, place: { stage: number }): Stage {
  return {
    forward: (inputs, { microBatch }) => {
      if (place.stage === 0) {
        Atomics.add(begun, 0, 1);
        Atomics.notify(begun, 0);
      } else if (microBatch === 0) {
        for (let seen = 0; (seen = Atomics.load(begun, 0)) < wanted; ) {
          // A real computation would not look at messages either.
          if (Atomics.wait(begun, 0, seen, 20_000) === "timed-out") throw new Error("no progress");
        }
      }
      return { outputs: inputs, saved: undefined };
    },
    backwardInput: (_, grads) => [...grads],
  };
}

/** Counts in shared memory when it is disposed, or cannot be. */
export function createDisposed({
  gone,
  fails,
}: {
  gone: Int32Array;
  fails: boolean;
}): Stage & Disposable {
  return {
    forward: (inputs) => ({ outputs: inputs, saved: undefined }),
    backwardInput: (_, grads) => [...grads],
    [Symbol.dispose]: () => {
      if (fails) throw new MyError("cannot let go");
      Atomics.add(gone, 0, 1);
    },
  };
}

export function createBroken(): Stage {
  throw new MyError("no weights here");
}

export const createSlowly = (): Promise<never> => never();

export const notAStage = (): object => ({});

export const notAFunction = 3;

export const criterion: Criterion = mseLoss;
