// The table of routes and what stands before and after them: scope, guards, and errors in OpenAI's
// shape. Handlers are in the files named after them.

import { Hono } from "hono";
import { postChatCompletions } from "./chat.ts";
import { postCompletions } from "./completions.ts";
import { ApiError, toApiError } from "./errors.ts";
import { authGuard, corsGuard, hostGuard } from "./guards.ts";
import {
  getHealth,
  getMetrics,
  getModel,
  getModels,
  getStats,
  getStatsStream,
  getVersion,
} from "./operations.ts";
import { requestScope, type ServerContext, type ServerEnv } from "./scope.ts";
import { type ServerParts, ServerState } from "./state.ts";
import { getStaticFile } from "./static-files.ts";
import { postDetokenize, postTokenize } from "./tokenize.ts";

type Handler = (c: ServerContext) => Response | Promise<Response>;

interface Route {
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly handler: Handler;
}

function routes(state: ServerState): Route[] {
  const get = (path: string, handler: Handler): Route => ({ method: "GET", path, handler });
  const post = (path: string, handler: Handler): Route => ({ method: "POST", path, handler });
  return [
    get("/v1/models", (c) => getModels(state, c)),
    // A model's name may contain slashes.
    get("/v1/models/:model{.+}", (c) => getModel(state, c, c.req.param("model") ?? "")),
    post("/v1/completions", (c) => postCompletions(state, c)),
    post("/v1/chat/completions", (c) => postChatCompletions(state, c)),
    post("/tokenize", (c) => postTokenize(state, c)),
    post("/detokenize", (c) => postDetokenize(state, c)),
    get("/health", (c) => getHealth(state, c)),
    get("/version", (c) => getVersion(c)),
    get("/metrics", (c) => getMetrics(state, c)),
    get("/api/stats", (c) => getStats(state, c)),
    get("/api/stats/stream", (c) => getStatsStream(state, c)),
  ];
}

/** The parts of the address space that an API key locks. */
const locked = ["/v1/*", "/tokenize", "/detokenize", "/api/*"];

export interface AppOptions {
  /** Refuse Host headers with foreign names. */
  readonly checkHost: boolean;
}

/** The application over a state that the caller keeps. */
export function buildApp(state: ServerState, { checkHost }: AppOptions): Hono<ServerEnv> {
  const app = new Hono<ServerEnv>();
  app.use(requestScope(state));
  if (checkHost) app.use(hostGuard(state.options.allowedHosts));
  app.use(corsGuard(state.options.corsOrigins));
  for (const path of locked) app.use(path, authGuard(state));
  for (const { method, path, handler } of routes(state)) {
    app.on(method, path, handler);
    app.all(path, (c) => {
      throw wrongMethod(c, method);
    });
  }
  app.get("*", (c) => getStaticFile(state.options.console(), c));
  app.notFound((c) => errorResponse(unknownRoute(c)));
  app.onError((error) => errorResponse(toApiError(error)));
  return app;
}

/**
 * The HTTP application without a socket: for tests, or to mount in another server. The Host header
 * is not checked; `startServer` does that when it listens on a loopback address.
 */
export function createApp(parts: ServerParts): Hono<ServerEnv> {
  return buildApp(new ServerState(parts), { checkHost: false });
}

function errorResponse(error: ApiError): Response {
  // Nobody reads an answer of 499; the status is for the log.
  return new Response(JSON.stringify(error.body), {
    status: error.status,
    headers: { "content-type": "application/json", ...error.headers },
  });
}

function wrongMethod(c: ServerContext, allowed: string): ApiError {
  const allow = allowed === "GET" ? "GET, HEAD" : allowed;
  return new ApiError(405, `${c.req.path} takes ${allow}, not ${c.req.method}`, {
    code: "method_not_allowed",
    headers: { allow },
  });
}

function unknownRoute(c: ServerContext): ApiError {
  return new ApiError(404, `there is no ${c.req.method} ${c.req.path.slice(0, 200)}`, {
    code: "not_found",
  });
}
