// Who may talk to this server: the Host header (DNS rebinding), the bearer key, and which origins a
// browser may read answers from. Runs before any route.

import { createHash, timingSafeEqual } from "node:crypto";
import { isIP } from "node:net";
import type { MiddlewareHandler } from "hono";
import { cors } from "hono/cors";
import { ApiError } from "./errors.ts";
import type { ServerEnv } from "./scope.ts";
import type { ServerState } from "./state.ts";

/** Addresses that only this machine can reach. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}

/**
 * Refuses requests whose Host is a name that is neither `localhost` nor allowed. A page on
 * evil.example can make its own name point to 127.0.0.1 and would then be of the same origin as
 * this server; the Host header gives it away. Addresses cannot be rebound.
 */
export function hostGuard(allowed: readonly string[]): MiddlewareHandler<ServerEnv> {
  const names = new Set(allowed.map((name) => name.toLowerCase()));
  return async (c, next) => {
    const host = new URL(c.req.url).hostname.toLowerCase().replace(/^\[(.*)\]$/, "$1");
    const known =
      isIP(host) !== 0 || host === "localhost" || host.endsWith(".localhost") || names.has(host);
    if (!known && !names.has("*")) {
      throw new ApiError(
        403,
        `host '${host}' is not allowed; use localhost, or allow it with the server's option ` +
          "allowedHosts (--allowed-host)",
        { code: "host_not_allowed" },
      );
    }
    await next();
  };
}

const digest = (text: string): Buffer => createHash("sha256").update(text).digest();

/** Takes the same time whichever key is wrong, and however much of it. */
export function authGuard(state: ServerState): MiddlewareHandler<ServerEnv> {
  const expected = state.options.apiKeys.map(digest);
  return async (c, next) => {
    if (expected.length > 0) {
      const header = c.req.header("authorization") ?? "";
      const given = digest(/^bearer +(.*)$/i.exec(header)?.[1] ?? "");
      // No early end: every key is compared.
      const matches = expected.filter((key) => timingSafeEqual(key, given)).length;
      if (matches === 0) throw unauthorized(header === "");
    }
    await next();
  };
}

function unauthorized(missing: boolean): ApiError {
  return new ApiError(
    401,
    missing
      ? "this server needs an API key: send 'Authorization: Bearer KEY'"
      : "the API key is wrong",
    { code: "invalid_api_key", headers: { "www-authenticate": "Bearer" } },
  );
}

/** Off unless origins are named; without it browsers keep answers from pages of other origins. */
export function corsGuard(origins: readonly string[]): MiddlewareHandler<ServerEnv> {
  if (origins.length === 0) return async (_c, next) => await next();
  return cors({
    origin: origins.includes("*") ? "*" : [...origins],
    allowMethods: ["GET", "HEAD", "POST"],
    exposeHeaders: ["x-request-id", "retry-after"],
    maxAge: 600,
  });
}
