// What a user writes: a stage of the model and the loss. The executor owns when they run, where the
// tensors come from and go to, and how long a micro-batch's memory lives; a stage owns its weights
// and its gradients.
//
// Rules of memory. Tensors given to a stage (inputs, output's gradients, labels) are read-only, and
// valid until the backward of their micro-batch, weights included, is done; then their memory is
// used again. Tensors a stage returns are given away: it may keep them in `saved`, not write them.
// They need not lie in shared memory, which `Tensor.empty` gives and V8 is slow to collect.

import type { Recorder } from "@open-infra/profile";
import type { Tensor } from "@open-infra/tensor";
import type { WeightGradStore } from "./weight-grad-store.ts";

/** A value, or a promise of it where a stage works asynchronously. */
export type MaybePromise<T> = T | Promise<T>;

/** Which micro-batch of which stage copy a call is for; the same object in all its calls. */
export interface StageContext {
  readonly rank: number;
  readonly direction: number;
  readonly stage: number;
  readonly numStages: number;
  readonly microBatch: number;
  /** False in inference: no backward will come, nothing needs saving. */
  readonly training: boolean;
  /** False on the first stage: `backwardInput` may return `[]`. */
  readonly needsInputGrads: boolean;
  /** For stages that defer a part of their weight gradients themselves. */
  readonly weightGrads: WeightGradStore;
  /** For spans of a stage's own; test `enabled` first. */
  readonly recorder: Recorder;
}

/** What a forward gives. */
export interface StageForward<Saved = unknown> {
  /** What the next stage, or the criterion, gets. */
  readonly outputs: readonly Tensor[];
  /** What the backward of this micro-batch needs, whatever it is; the executor only keeps it. */
  readonly saved: Saved;
}

/** One half of an overlapped pair: a forward that may be computed beside a backward. */
export interface OverlappedForward {
  readonly inputs: readonly Tensor[];
  readonly context: StageContext;
}

/** The other half; `stage` holds the weights and the gradients. */
export interface OverlappedBackward<Saved = unknown> {
  readonly stage: Stage<Saved>;
  readonly saved: Saved;
  readonly gradOutputs: readonly Tensor[];
  readonly context: StageContext;
}

/**
 * A stage of the model. Gradients are added up in the stage, in the order of the calls, which the
 * schedule fixes: a run repeated gives the same bits.
 */
export interface Stage<Saved = unknown> {
  forward(inputs: readonly Tensor[], context: StageContext): MaybePromise<StageForward<Saved>>;
  /**
   * Gradients of the inputs, one a tensor; `[]` on the first stage. What is left for the weights is
   * either done by `backwardWeight`, or put into `context.weightGrads` here.
   */
  backwardInput(
    saved: Saved,
    gradOutputs: readonly Tensor[],
    context: StageContext,
  ): MaybePromise<readonly Tensor[]>;
  /** Adds this micro-batch to the gradients of the weights. Left out by stages that have none. */
  backwardWeight?(
    saved: Saved,
    gradOutputs: readonly Tensor[],
    context: StageContext,
  ): MaybePromise<void>;
  /** Both at once, where that is cheaper than one after the other. */
  backward?(
    saved: Saved,
    gradOutputs: readonly Tensor[],
    context: StageContext,
  ): MaybePromise<readonly Tensor[]>;
  /**
   * A forward of this stage and the full backward of another, overlapped as the stage sees fit. It
   * is used where both stages are of one class; elsewhere the forward runs first, then the
   * backward.
   */
  overlappedForwardBackward?(
    forward: OverlappedForward,
    backward: OverlappedBackward<Saved>,
  ): MaybePromise<StageForward<Saved> & { readonly gradInputs: readonly Tensor[] }>;
  /** The gradients themselves (not copies), for `syncGradients` and the host. */
  gradients?(): MaybePromise<readonly Tensor[]>;
}

/** What a criterion gives. */
export interface CriterionResult {
  readonly loss: number;
  /** Of the loss by each output; may be left out in inference. */
  readonly gradOutputs?: readonly Tensor[];
}

/** The loss of one micro-batch, and where the backward begins. */
export interface Criterion {
  forward(
    outputs: readonly Tensor[],
    labels: readonly Tensor[],
    context: StageContext,
  ): MaybePromise<CriterionResult>;
}
