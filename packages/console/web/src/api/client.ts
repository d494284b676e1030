// The server's HTTP API as the app uses it: one place that knows addresses, headers and how an
// error looks. Holds no state but the key it is given; what a page shows is the page's business.

import { ApiError, errorBody, errorOfResponse, toApiError } from "./errors.ts";
import { type SseEvent, sseEvents } from "./sse.ts";
import {
  type CompletionChunk,
  parseChunk,
  parseModels,
  parseStatsMessage,
  type StatsMessage,
  WireError,
} from "./wire.ts";

export interface ClientOptions {
  /** Where the app was loaded from; API paths are relative to it. */
  readonly baseUrl: string;
  /** The bearer key, or "" for none; asked anew for every request. */
  readonly apiKey: () => string;
}

/** A body for /v1/completions or /v1/chat/completions, without `stream`. */
export type CompletionBody = Readonly<Record<string, unknown>>;

export type CompletionPath = "v1/completions" | "v1/chat/completions";

/** Typed requests to one server. */
export class ApiClient {
  readonly #options: ClientOptions;

  constructor(options: ClientOptions) {
    this.#options = options;
  }

  /** Ids of the served models. @throws ApiError */
  async models(signal?: AbortSignal): Promise<string[]> {
    const response = await this.#fetch("v1/models", signal ? { signal } : {});
    return wired(() => response.text().then(parseModels));
  }

  /**
   * The statistics as they come, about one a second, until the server closes the stream.
   * @throws ApiError
   */
  async *statsStream(signal: AbortSignal): AsyncGenerator<StatsMessage, void, void> {
    const response = await this.#fetch("api/stats/stream", { signal });
    for await (const event of eventsOf(response))
      yield wiredSync(() => parseStatsMessage(event.data));
  }

  /**
   * Streams a completion. The last chunk with text is not the end: usage follows, then `[DONE]`.
   *
   * @throws ApiError; kind `interrupted` when the stream ends without `[DONE]`.
   */
  async *complete(
    path: CompletionPath,
    body: CompletionBody,
    signal: AbortSignal,
  ): AsyncGenerator<CompletionChunk, void, void> {
    const response = await this.#fetch(path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
      signal,
    });
    for await (const event of eventsOf(response)) {
      if (event.data === "[DONE]") return;
      const failure = errorBody(event.data);
      if (failure !== undefined) throw new ApiError(failure.message, { kind: "failed" });
      yield wiredSync(() => parseChunk(event.data));
    }
    throw toApiError(undefined, "interrupted");
  }

  async #fetch(path: string, init: RequestInit): Promise<Response> {
    const headers = new Headers(init.headers);
    const key = this.#options.apiKey();
    if (key !== "") headers.set("authorization", `Bearer ${key}`);
    let response: Response;
    try {
      response = await fetch(new URL(path, this.#options.baseUrl), { ...init, headers });
    } catch (error) {
      throw toApiError(error, "unreachable");
    }
    if (!response.ok) throw await errorOfResponse(response);
    return response;
  }
}

async function* eventsOf(response: Response): AsyncGenerator<SseEvent, void, void> {
  const type = response.headers.get("content-type") ?? "no content type";
  if (response.body === null || !type.startsWith("text/event-stream")) {
    throw new ApiError(`The server sent ${type} where an event stream was due.`, {
      kind: "failed",
      status: response.status,
    });
  }
  try {
    yield* sseEvents(response.body);
  } catch (error) {
    throw toApiError(error, "interrupted");
  }
}

function wiredSync<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw unreadable(error);
  }
}

async function wired<T>(read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    throw unreadable(error);
  }
}

function unreadable(error: unknown): unknown {
  if (!(error instanceof WireError)) return toApiError(error, "interrupted");
  return new ApiError(`The server's answer cannot be read: ${error.message}`, {
    kind: "failed",
    cause: error,
  });
}
