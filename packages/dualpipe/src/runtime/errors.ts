// Errors of the executor, and which of them cross a thread as themselves.

import {
  deserializeError as deserialize,
  InfraError,
  InputError,
  type SerializedError,
} from "@open-infra/errors";

/** Where in a step something happened. */
export interface OpPlace {
  readonly rank: number;
  /** `F`, `B`, `I`, `W`, `FB`, or what was done around the operations: `load`, `call …`. */
  readonly op: string;
  readonly direction: number;
  readonly stage: number;
  readonly microBatch: number;
}

/** `F of direction 0, stage 2, micro-batch 5 on rank 2`. */
function describePlace({ rank, op, direction, stage, microBatch }: OpPlace): string {
  const batch = microBatch < 0 ? "" : `, micro-batch ${microBatch}`;
  return `${op} of direction ${direction}, stage ${stage}${batch} on rank ${rank}`;
}

/**
 * A stage or the criterion threw, or gave something that cannot be used; `cause` is what it threw.
 */
export class StageError extends InfraError implements OpPlace {
  readonly rank: number;
  readonly op: string;
  readonly direction: number;
  readonly stage: number;
  /** −1 where no micro-batch was at hand. */
  readonly microBatch: number;

  constructor(place: OpPlace, cause: unknown) {
    const what = cause instanceof Error ? cause.message : String(cause);
    super("stage", `${describePlace(place)} failed: ${what}`, { cause });
    this.rank = place.rank;
    this.op = place.op;
    this.direction = place.direction;
    this.stage = place.stage;
    this.microBatch = place.microBatch;
  }
}

/** A rank is gone: its thread ended or its process was lost while it was needed. */
export class RankLostError extends InfraError {
  readonly rank: number;

  constructor(rank: number, how: string, options?: ErrorOptions) {
    super("rank-lost", `rank ${rank} is lost: ${how}`, options);
    this.rank = rank;
  }
}

/** Something did not happen in the time allowed. */
export class WaitTimeoutError extends InfraError {
  /** The rank that waited; −1 for the host. */
  readonly rank: number;
  /** The rank waited for. */
  readonly from: number;
  readonly awaited: string;
  readonly timeoutMs: number;

  constructor(rank: number, from: number, awaited: string, timeoutMs: number) {
    const who = rank < 0 ? "the host" : `rank ${rank}`;
    super("timeout", `${who} waited ${timeoutMs} ms for ${awaited} from rank ${from}`);
    this.rank = rank;
    this.from = from;
    this.awaited = awaited;
    this.timeoutMs = timeoutMs;
  }
}

/** This rank is fine, but another ended the pipeline; `cause` is the other's error where known. */
export class PipelineAbortedError extends InfraError {
  /** The rank that ended it; −1 for the host. */
  readonly abortedBy: number;

  constructor(abortedBy: number, options?: ErrorOptions) {
    const cause = options?.cause;
    const why = cause instanceof Error ? `: ${cause.message}` : "";
    super(
      "aborted",
      `${abortedBy < 0 ? "the host" : `rank ${abortedBy}`} ended the pipeline${why}`,
      {
        ...options,
      },
    );
    this.abortedBy = abortedBy;
  }
}

/** The pipeline was closed, or failed before this call; `cause` is why. */
export class PipelineClosedError extends InfraError {
  constructor(message: string, options?: ErrorOptions) {
    super("closed", message, options);
  }
}

/** A schedule left something undone, or asks for what a rank has not; its builder is at fault. */
export class ScheduleExecutionError extends InfraError {
  readonly rank: number;

  constructor(rank: number, message: string) {
    super("schedule", `rank ${rank}: ${message}`);
    this.rank = rank;
  }
}

const classes = [
  InputError,
  StageError,
  RankLostError,
  WaitTimeoutError,
  PipelineAbortedError,
  PipelineClosedError,
  ScheduleExecutionError,
] as const;

/** The error again, with its class where this package knows it, else an InfraError of its name. */
export function deserializeError(data: SerializedError): InfraError {
  return deserialize(data, classes);
}
