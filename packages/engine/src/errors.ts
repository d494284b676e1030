// Errors of this package, and which of them cross a thread as themselves.

import {
  deserializeError as deserialize,
  InfraError,
  type SerializedError,
} from "@open-infra/errors";

/** The request cannot be served as asked; the caller must change it. */
export class RequestError extends InfraError {
  /** The field of the request, e.g. `sampling.topP`. */
  readonly parameter: string;
  readonly got: string;
  readonly allowed: string;

  constructor(parameter: string, got: string, allowed: string) {
    super("request", `${parameter} is ${got}; expected ${allowed}`);
    this.parameter = parameter;
    this.got = got;
    this.allowed = allowed;
  }
}

/** As many requests as are allowed are queued already; try again later. */
export class EngineOverloadedError extends InfraError {
  /** A guess from how long recent requests took, at least 1. */
  readonly retryAfterSeconds: number;
  readonly pending: number;
  readonly limit: number;

  constructor(pending: number, limit: number, retryAfterSeconds: number) {
    super(
      "overloaded",
      `the engine has ${pending} requests and takes at most ${limit}; ` +
        `try again in ${retryAfterSeconds} s`,
    );
    this.pending = pending;
    this.limit = limit;
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

/** The engine is draining, closed, or has failed. */
export class EngineStoppedError extends InfraError {
  constructor(message: string, options?: ErrorOptions) {
    super("engine-stopped", message, options);
  }
}

/** An option of the engine is out of range, or does not fit the model or the machine. */
export class EngineOptionError extends InfraError {
  readonly option: string;

  constructor(option: string, got: string, allowed: string) {
    super("engine-option", `option ${option} is ${got}; expected ${allowed}`);
    this.option = option;
  }
}

/** The model gave logits that no token can be chosen from; only the request at hand fails. */
export class LogitsError extends InfraError {
  constructor(requestId: string, position: number, what: string) {
    super(
      "logits",
      `request '${requestId}': the logits after token ${position} ${what}; ` +
        "the checkpoint or a kernel is at fault",
    );
  }
}

const classes = [
  RequestError,
  EngineOverloadedError,
  EngineStoppedError,
  EngineOptionError,
  LogitsError,
] as const;

/** The error again, with its class where this package knows it, else an InfraError of its name. */
export function deserializeError(data: SerializedError): InfraError {
  return deserialize(data, classes);
}
