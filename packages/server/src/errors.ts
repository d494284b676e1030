// Everything that can go wrong on the way to an answer, as one class that knows its HTTP status and
// OpenAI's error object. What a thrown value means to a client is decided here and nowhere else; no
// stack and no path of this machine leaves through it.

import {
  EngineOverloadedError,
  EngineStoppedError,
  InfraError,
  RequestError,
} from "@open-infra/engine";
import { ChatTemplateError } from "@open-infra/model";

/** OpenAI's error object, the body of every answer that is not a success. */
export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    /** The field of the request at fault, e.g. `messages[0].role`. */
    readonly param: string | null;
    /** Stable, for programs; null where the status says it all. */
    readonly code: string | null;
  };
}

export interface ApiErrorOptions extends ErrorOptions {
  readonly param?: string;
  readonly code?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** An error a client is meant to see. */
export class ApiError extends InfraError {
  readonly status: number;
  readonly param: string | null;
  /** The `code` of the body; `InfraError.code` is the class's own. */
  readonly bodyCode: string | null;
  readonly headers: Readonly<Record<string, string>>;

  constructor(status: number, message: string, options: ApiErrorOptions = {}) {
    super("api", message, options);
    this.status = status;
    this.param = options.param ?? null;
    this.bodyCode = options.code ?? null;
    this.headers = options.headers ?? {};
  }

  get body(): ErrorBody {
    const { message, param } = this;
    return { error: { message, type: typeOf(this.status), param, code: this.bodyCode } };
  }
}

function typeOf(status: number): string {
  if (status === 401) return "authentication_error";
  if (status === 403) return "permission_error";
  if (status === 429) return "rate_limit_error";
  if (status === 503) return "service_unavailable";
  return status >= 500 ? "server_error" : "invalid_request_error";
}

/** A 400 that names the field. */
export function badRequest(param: string, message: string, code?: string): ApiError {
  return new ApiError(400, message, { param, ...(code !== undefined && { code }) });
}

/** A 503 that says when to come back. */
export function unavailable(message: string, code: string, retryAfterSeconds: number): ApiError {
  return new ApiError(503, message, {
    code,
    headers: { "retry-after": String(retryAfterSeconds) },
  });
}

/** The client has closed the connection; nobody reads this answer, but the log does. */
export class ClientGoneError extends ApiError {
  constructor() {
    super(499, "the client closed the connection", { code: "client_closed_request" });
  }
}

/** The address is taken. */
export class PortInUseError extends InfraError {
  readonly host: string;
  readonly port: number;

  constructor(host: string, port: number, options?: ErrorOptions) {
    super(
      "port-in-use",
      `port ${port} on ${host} is in use by another program; stop it, or choose another port ` +
        "with --port N (0 takes a free one)",
      options,
    );
    this.host = host;
    this.port = port;
  }
}

/** The address cannot be listened on for another reason than being taken. */
export class ListenError extends InfraError {
  readonly host: string;
  readonly port: number;

  constructor(host: string, port: number, reason: string, options?: ErrorOptions) {
    super("listen", `cannot listen on ${host} port ${port}: ${reason}`, options);
    this.host = host;
    this.port = port;
  }
}

/** An option of the server is not what it may be. */
export class ServerOptionError extends InfraError {
  readonly option: string;

  constructor(option: string, problem: string) {
    super("server-option", `option ${option}: ${problem}`);
    this.option = option;
  }
}

/** `sampling.topP` as the request spells it: `top_p`. */
function requestField(parameter: string): string {
  const field = parameter.replace(/^sampling\./, "");
  if (/^promptTokenIds\b/.test(field)) return field.replace("promptTokenIds", "prompt");
  return field.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/**
 * What a client is told about a thrown value. Errors that nobody expected become a bare 500; the
 * caller logs them.
 */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof RequestError) {
    const param = requestField(error.parameter);
    const message = `${param} is ${error.got}; expected ${error.allowed}`;
    return new ApiError(400, message, { param, cause: error });
  }
  if (error instanceof EngineOverloadedError) {
    return new ApiError(429, error.message, {
      code: "queue_full",
      headers: { "retry-after": String(error.retryAfterSeconds) },
      cause: error,
    });
  }
  if (error instanceof EngineStoppedError) {
    return new ApiError(503, "the engine has stopped; the server's log says why", {
      code: "engine_stopped",
      headers: { "retry-after": "60" },
      cause: error,
    });
  }
  if (error instanceof ChatTemplateError) {
    return new ApiError(400, error.message, {
      param: "messages",
      code: "chat_template",
      cause: error,
    });
  }
  return new ApiError(500, "the server failed at this request; its log says why", {
    code: "internal_error",
    cause: error,
  });
}
