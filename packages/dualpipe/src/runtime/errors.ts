// Errors of the executor, and how they cross a thread: as plain objects with code, fields and
// cause, made into the same classes on the other side, so that `instanceof` works on both.

import { InfraError, InputError } from "@open-infra/errors";

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
export function describePlace({ rank, op, direction, stage, microBatch }: OpPlace): string {
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

/** An error as it crosses a thread. */
export interface SerializedError {
  readonly name: string;
  readonly code: string;
  readonly message: string;
  readonly fields: Readonly<Record<string, string | number | boolean>>;
  readonly stack: string;
  readonly cause?: SerializedError;
}

/** Any thrown value as plain data; scalar fields and the chain of causes are kept. */
export function serializeError(error: unknown): SerializedError {
  if (!(error instanceof Error)) {
    return { name: "Error", code: "internal", message: String(error), fields: {}, stack: "" };
  }
  const fields: Record<string, string | number | boolean> = {};
  for (const [key, value] of Object.entries(error)) {
    if (key === "code" || key === "name") continue;
    if (["string", "number", "boolean"].includes(typeof value)) fields[key] = value;
  }
  return {
    name: error.name,
    code: error instanceof InfraError ? error.code : "internal",
    message: error.message,
    fields,
    stack: error.stack ?? "",
    ...(error.cause !== undefined && { cause: serializeError(error.cause) }),
  };
}

const prototypes: Readonly<Record<string, object>> = {
  InputError: InputError.prototype,
  StageError: StageError.prototype,
  RankLostError: RankLostError.prototype,
  WaitTimeoutError: WaitTimeoutError.prototype,
  PipelineAbortedError: PipelineAbortedError.prototype,
  PipelineClosedError: PipelineClosedError.prototype,
  ScheduleExecutionError: ScheduleExecutionError.prototype,
};

/** The error again: its class where this package knows it, an Error of its name otherwise. */
export function deserializeError(data: SerializedError): Error {
  const options = data.cause === undefined ? {} : { cause: deserializeError(data.cause) };
  const error =
    data.code === "internal"
      ? new Error(data.message, options)
      : new InfraError(data.code, data.message, options);
  Object.assign(error, data.fields);
  error.name = data.name;
  if (data.stack !== "") error.stack = data.stack;
  const prototype = prototypes[data.name];
  if (prototype !== undefined) Object.setPrototypeOf(error, prototype);
  return error;
}
