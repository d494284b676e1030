// What the client and the worker say to each other. Plain data only; every request has a number of
// the client's making, so that an id can be used again while an abort is still on its way.

import type { SerializedError } from "@open-infra/errors";
import type { GenerateEvent, GenerateRequest, ModelInfo } from "./api.ts";
import type { CheckedOptions, LoadPhase } from "./options.ts";

/** Given to the worker when it is made. */
export interface WorkerStart {
  readonly options: CheckedOptions;
}

export type ToWorker =
  | {
      readonly type: "add";
      readonly key: number;
      readonly request: GenerateRequest;
      /** On the clock of `nowMs`, when the client got it. */
      readonly arrivalMs: number;
    }
  | { readonly type: "abort"; readonly keys: readonly number[] }
  | { readonly type: "close" };

export interface WorkerOutput {
  readonly key: number;
  readonly events: readonly GenerateEvent[];
  readonly error?: SerializedError;
}

export type FromWorker =
  | {
      readonly type: "progress";
      readonly phase: LoadPhase;
      readonly done: number;
      readonly total: number;
    }
  | { readonly type: "log"; readonly line: string }
  | { readonly type: "ready"; readonly model: ModelInfo; readonly stats: SharedArrayBuffer }
  /** All that one step brought. */
  | { readonly type: "outputs"; readonly outputs: readonly WorkerOutput[] }
  /** Loading failed, or a step did; the worker is gone after it. */
  | { readonly type: "fatal"; readonly error: SerializedError }
  | { readonly type: "closed"; readonly error?: SerializedError };
