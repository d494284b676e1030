// What belongs to one HTTP request: its id, its line in the log, and the signal that tells its work
// to stop. Answers that stream end their scope when the stream ends, others when they are returned.

import { randomUUID } from "node:crypto";
import type { Context, MiddlewareHandler } from "hono";
import type { Logger } from "pino";
import { type ApiError, ClientGoneError, toApiError } from "./errors.ts";
import type { ServerState } from "./state.ts";

/** Hono's context of this server. */
export interface ServerEnv {
  Variables: { readonly scope: RequestScope };
}

export type ServerContext = Context<ServerEnv>;

/** Ids that clients send along are taken over when they can do no harm in a header or a log. */
const SAFE_ID = /^[\w.-]{1,128}$/;

export class RequestScope {
  readonly id: string;
  /** Child of the server's log that names this request. */
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly #startedMs: number = performance.now();
  readonly #gone = new AbortController();
  readonly #facts: Record<string, unknown> = {};
  #streaming = false;
  #ended = false;

  constructor(state: ServerState, request: Request) {
    const given = request.headers.get("x-request-id") ?? "";
    this.id = SAFE_ID.test(given) ? given : `req-${randomUUID()}`;
    this.log = state.log.child({ requestId: this.id });
    request.signal.addEventListener("abort", () => this.leave(), { once: true });
    if (request.signal.aborted) this.leave();
    this.signal = AbortSignal.any([this.#gone.signal, state.abortSignal]);
  }

  /** The client is gone. */
  leave(): void {
    this.#gone.abort(new ClientGoneError());
  }

  /** Adds to this request's line in the log; never texts of users. */
  note(facts: Readonly<Record<string, unknown>>): void {
    Object.assign(this.#facts, facts);
  }

  /** The answer goes on after the handler returns; `end` must be called when it is complete. */
  stream(): void {
    this.#streaming = true;
  }

  get streaming(): boolean {
    return this.#streaming;
  }

  /** Writes the log line, once. */
  end(status: number, failure?: ApiError): void {
    if (this.#ended) return;
    this.#ended = true;
    const ms = Math.round((performance.now() - this.#startedMs) * 10) / 10;
    const gone = this.#gone.signal.aborted;
    const facts = { ...this.#facts, status, ms, ...(gone && { clientGone: true }) };
    if (failure !== undefined && failure.status >= 500 && failure.status !== 503) {
      this.log.error({ ...facts, err: failure.cause ?? failure }, "request failed");
    } else if (failure !== undefined) {
      this.log.info({ ...facts, error: failure.message }, "request refused");
    } else this.log.info(facts, "request");
  }
}

/** Opens a scope around every request and answers with its id. */
export function requestScope(state: ServerState): MiddlewareHandler<ServerEnv> {
  return async (c, next) => {
    const scope = new RequestScope(state, c.req.raw);
    c.set("scope", scope);
    scope.note({ method: c.req.method, path: c.req.path });
    await next();
    c.res.headers.set("x-request-id", scope.id);
    if (state.draining) c.res.headers.set("connection", "close");
    const { status } = c.res;
    state.counters.count(routeOf(c), c.req.method, status);
    if (!scope.streaming || status >= 400) {
      scope.end(status, c.error === undefined ? undefined : toApiError(c.error));
    }
  };
}

/** The pattern of the handler that answered; `*` is the console's files, and what is not there. */
function routeOf(c: ServerContext): string {
  return c.req.routePath === "/*" ? "*" : c.req.routePath;
}
