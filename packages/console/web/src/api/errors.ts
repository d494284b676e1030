// What can go wrong between the app and the server, as one error type whose `kind` the pages
// switch on. Wording for people is here too, so that every page says the same thing.

/** Why a request failed; each asks something else of the user. */
export type ApiErrorKind =
  /** Nothing answered. */
  | "unreachable"
  /** 503: the model is still loading, or the server is going away. */
  | "unavailable"
  /** 401. */
  | "unauthorized"
  /** 429. */
  | "overloaded"
  /** Any other 4xx: the request itself is at fault. */
  | "rejected"
  /** 5xx, or an answer that is not what the API promises. */
  | "failed"
  /** The stream stopped before the server said that it was complete. */
  | "interrupted";

export interface ApiErrorOptions {
  readonly kind: ApiErrorKind;
  readonly status?: number;
  /** The request field the server names as the culprit. */
  readonly param?: string;
  readonly retryAfterSeconds?: number;
  readonly cause?: unknown;
}

/** A failed request; `message` is the server's own wording where it gave one. */
export class ApiError extends Error {
  override readonly name: string = "ApiError";
  readonly kind: ApiErrorKind;
  readonly status: number | undefined;
  readonly param: string | undefined;
  readonly retryAfterSeconds: number | undefined;

  constructor(message: string, options: ApiErrorOptions) {
    super(message, { cause: options.cause });
    this.kind = options.kind;
    this.status = options.status;
    this.param = options.param;
    this.retryAfterSeconds = options.retryAfterSeconds;
  }
}

function kindOf(status: number): ApiErrorKind {
  if (status === 401) return "unauthorized";
  if (status === 429) return "overloaded";
  if (status === 503) return "unavailable";
  return status >= 500 ? "failed" : "rejected";
}

/** Reads the error of a response that is not ok; never throws, whatever the body holds. */
export async function errorOfResponse(response: Response): Promise<ApiError> {
  const text = await response.text().catch(() => "");
  const body = errorBody(text);
  const retryAfter = Number(response.headers.get("retry-after") ?? Number.NaN);
  const status = response.status;
  return new ApiError(body?.message ?? `The server answered ${status} ${response.statusText}.`, {
    kind: kindOf(status),
    status,
    ...(body?.param === undefined ? {} : { param: body.param }),
    ...(Number.isFinite(retryAfter) && retryAfter >= 0 ? { retryAfterSeconds: retryAfter } : {}),
  });
}

/** The error object in OpenAI's shape, `{"error": {"message", "param"}}`, if the text is one. */
export function errorBody(text: string): { message: string; param?: string } | undefined {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof json !== "object" || json === null || !("error" in json)) return undefined;
  const { error } = json;
  if (typeof error === "string") return { message: error };
  if (typeof error !== "object" || error === null || !("message" in error)) return undefined;
  if (typeof error.message !== "string") return undefined;
  const param = "param" in error && typeof error.param === "string" ? error.param : undefined;
  return { message: error.message, ...(param === undefined ? {} : { param }) };
}

/** What fetch or a body reader threw, as an ApiError; an abort is passed through as it is. */
export function toApiError(error: unknown, kind: "unreachable" | "interrupted"): unknown {
  if (error instanceof ApiError || isAbort(error)) return error;
  const message =
    kind === "unreachable"
      ? "The server does not answer. Is it still running?"
      : "The connection closed before the answer was complete.";
  return new ApiError(message, { kind, cause: error });
}

/** Whether the error is the user's own stop. */
export function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === "AbortError";
}

/** A short headline for the error, to stand above its message. */
export function errorTitle(error: ApiError): string {
  const titles: Record<ApiErrorKind, string> = {
    unreachable: "No connection",
    unavailable: "Not ready",
    unauthorized: "API key needed",
    overloaded: "The queue is full",
    rejected: "The request was refused",
    failed: "The server failed",
    interrupted: "Cut off",
  };
  return titles[error.kind];
}
