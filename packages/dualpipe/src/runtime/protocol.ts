// What the host and a rank's thread say to each other. Tensors go as references to shared memory.

import type { SerializedError } from "@open-infra/errors";
import type { TraceEvent } from "@open-infra/profile";
import type { StepStats } from "./parts.ts";
import type { RankProgram } from "./program.ts";
import type { SharedBatches } from "./values.ts";
import type { WorkerSeat } from "./worker-transport.ts";

/** Given to a rank's thread when it is made. */
export interface RankStart {
  readonly seat: WorkerSeat;
  readonly numStages: number;
  /** Which stages it holds. */
  readonly stages: readonly { readonly direction: number; readonly stage: number }[];
  readonly stageModule: string;
  readonly stageExport: string;
  readonly criterionExport: string | undefined;
  /** Packed; see values.ts. */
  readonly stageOptions: unknown;
  readonly timeoutMs: number;
  readonly trace: boolean;
}

/** A step of one rank. */
export interface StepRequest {
  readonly type: "step";
  /** Names the program for later steps. */
  readonly programKey: string;
  /** Left out where the rank has it already. */
  readonly program?: RankProgram;
  readonly inputs: SharedBatches;
  readonly labels: SharedBatches;
  readonly returnOutputs: boolean;
}

/** A method of some of a rank's stages, in the order of the list. */
export interface CallRequest {
  readonly type: "call";
  readonly method: string;
  readonly args: readonly unknown[];
  readonly stages: readonly { readonly direction: number; readonly stage: number }[];
}

/** What a rank can be asked; requests are done one after another, and each gets one answer. */
export type RankRequest =
  | StepRequest
  | CallRequest
  | { readonly type: "sync" }
  | { readonly type: "trace" }
  | { readonly type: "close" };

/** What a step gives. */
export interface StepReply {
  readonly losses: readonly (readonly [number, Float64Array])[];
  readonly outputs: SharedBatches;
  readonly stats: StepStats;
  /** Shared memory that the rank's messages have needed so far. */
  readonly messageBufferBytes: number;
}

/** What a trace request gives. */
export interface TraceReply {
  readonly events: readonly TraceEvent[];
  readonly dropped: number;
}

export interface ToRank {
  readonly id: number;
  readonly request: RankRequest;
}

export type FromRank =
  | { readonly type: "ready" }
  | { readonly type: "reply"; readonly id: number; readonly value: unknown }
  /** A call failed, and nothing else: the pipeline goes on. */
  | { readonly type: "refused"; readonly id: number; readonly error: SerializedError }
  /** The rank is over, and with it the pipeline. */
  | { readonly type: "failed"; readonly error: SerializedError };
