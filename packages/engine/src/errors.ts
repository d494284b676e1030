// Errors of this package, and how they cross a thread: as plain objects with code and fields, made
// into the same classes on the other side. `instanceof` works on both.

import { InfraError } from "@open-infra/tensor";

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

/** An error as it crosses the thread. */
export interface SerializedError {
  readonly name: string;
  readonly code: string;
  readonly message: string;
  readonly fields: Readonly<Record<string, string | number | boolean>>;
  readonly stack: string;
}

/** Any thrown value as plain data; scalar fields of an InfraError are kept. */
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
  };
}

const prototypes: Readonly<Record<string, object>> = {
  RequestError: RequestError.prototype,
  EngineOverloadedError: EngineOverloadedError.prototype,
  EngineStoppedError: EngineStoppedError.prototype,
  EngineOptionError: EngineOptionError.prototype,
  LogitsError: LogitsError.prototype,
};

/** The error again, with its class where this package knows it, else an InfraError of its name. */
export function deserializeError(data: SerializedError): InfraError {
  const error = new InfraError(data.code, data.message);
  Object.assign(error, data.fields);
  error.name = data.name;
  if (data.stack !== "") error.stack = data.stack;
  const prototype = prototypes[data.name];
  if (prototype !== undefined) Object.setPrototypeOf(error, prototype);
  return error;
}
