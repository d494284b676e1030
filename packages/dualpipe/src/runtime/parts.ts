// The vocabulary of a rank's run, shared by the files that carry it out.

import type { Recorder } from "@open-infra/profile";
import type { MicroBatch } from "./micro-batches.ts";
import type { Criterion, Stage } from "./stage.ts";
import type { Transport } from "./transport.ts";

/**
 * What a rank is asked to do in a step, by direction; only the ends of a direction need tensors.
 */
export interface StepWork {
  readonly inputs: ReadonlyMap<number, readonly MicroBatch[]>;
  readonly labels: ReadonlyMap<number, readonly MicroBatch[]>;
  readonly criterion?: Criterion | undefined;
  readonly returnOutputs: boolean;
}

/** What was counted in a step of one rank. */
export interface StepStats {
  /** Operations done, transfers included. */
  operations: number;
  /** Most micro-batches, over the rank's stages, between their forward and their B or I. */
  peakActivations: number;
  /** The same until B or W: what is really kept, since a W still needs it. */
  peakHeld: number;
  messagesSent: number;
  bytesSent: number;
  messagesReceived: number;
  /** Of those, how many were there when a cell came to use them. */
  readyOnUse: number;
}

/** What a step gave on one rank, by direction. */
export interface StepOutcome {
  readonly losses: ReadonlyMap<number, Float64Array>;
  readonly outputs: ReadonlyMap<number, readonly MicroBatch[]>;
  readonly stats: StepStats;
}

/** What a rank is made of; it stays the same from step to step. */
export interface RankParts {
  readonly transport: Transport;
  /** The stage of a direction that this rank holds. */
  stageAt(direction: number, stage: number): Stage | undefined;
  /** The transport's rank of a pipeline's rank. */
  transportRank(rank: number): number;
  readonly timeoutMs: number;
  readonly recorder: Recorder;
  /** Called with the index of each operation that begins, and at last with their number. */
  readonly onOperation?: ((index: number) => void) | undefined;
}

/** No counts yet. */
export function zeroStats(): StepStats {
  return {
    operations: 0,
    peakActivations: 0,
    peakHeld: 0,
    messagesSent: 0,
    bytesSent: 0,
    messagesReceived: 0,
    readyOnUse: 0,
  };
}
