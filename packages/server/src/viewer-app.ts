// A small server for the console without an engine, on this machine only: the built files, and what
// its maker adds at an address that cannot be guessed. Nothing else of the disk can be reached.

import { randomBytes } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { getRequestListener } from "@hono/node-server";
import { InputError } from "@open-infra/errors";
import { Hono } from "hono";
import { ApiError, toApiError } from "./errors.ts";
import { hostGuard } from "./guards.ts";
import { listen, visitUrl } from "./listen.ts";
import type { ConsoleFiles } from "./options.ts";
import type { ServerEnv } from "./scope.ts";
import { getStaticFile } from "./static-files.ts";

export interface ViewerAppOptions {
  /** The console's built files. */
  readonly console: ConsoleFiles;
  /** 0 takes a free one. @default 0 */
  readonly port?: number;
  /** What it is there for, to whoever asks for more: `a trace`. */
  readonly shows: string;
  /** Adds what it shows. */
  readonly routes: (app: Hono<ServerEnv>) => void;
  /** The console's page, from `#/` on. */
  readonly page: string;
}

export interface RunningViewer extends AsyncDisposable {
  /** What to open: the console's page with what is shown. */
  readonly url: string;
  readonly port: number;
  /** Ends every connection. */
  close(): Promise<void>;
}

/** Other machines have no business here: it listens on this one only. */
const HOST = "127.0.0.1";

/** An address that cannot be guessed: `/trace/9f…`. */
export function secretPath(name: string): string {
  return `/${name}/${randomBytes(16).toString("hex")}`;
}

/** Headers of what is shown: not kept, not guessed at, not embedded by another site's page. */
export const privateHeaders: Readonly<Record<string, string>> = {
  "cache-control": "no-store",
  "x-content-type-options": "nosniff",
  "cross-origin-resource-policy": "same-origin",
};

/**
 * Serves it.
 *
 * @throws InputError if the console is not built
 * @throws PortInUseError, ListenError
 */
export async function startViewerApp(options: ViewerAppOptions): Promise<RunningViewer> {
  if ("missing" in options.console) {
    throw new InputError("console", "not there", `a built console: ${options.console.missing}`);
  }
  const app = viewerApp(options);
  const listener = getRequestListener(app.fetch, { hostname: HOST, overrideGlobalObjects: false });
  const server = createServer((request, response) => void listener(request, response));
  await listen(server, HOST, options.port ?? 0);
  const { port } = server.address() as AddressInfo;
  const close = async (): Promise<void> => {
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    server.closeAllConnections();
    await closed;
  };
  const url = `${visitUrl(HOST, port)}/#/${options.page}`;
  return { url, port, close, [Symbol.asyncDispose]: close };
}

/** The application without a socket. */
function viewerApp({ console, shows, routes }: ViewerAppOptions): Hono<ServerEnv> {
  const app = new Hono<ServerEnv>();
  app.use(hostGuard([]));
  routes(app);
  // The console asks for these; there is no engine here, and that is no failure.
  for (const path of ["/api/*", "/v1/*"]) {
    app.get(path, () => errorResponse(new ApiError(404, `this server only shows ${shows}`)));
  }
  app.get("*", (c) => getStaticFile(console, c));
  app.notFound((c) =>
    errorResponse(
      new ApiError(405, `${c.req.method} is not taken`, { headers: { allow: "GET, HEAD" } }),
    ),
  );
  app.onError((error) => errorResponse(toApiError(error)));
  return app;
}

function errorResponse(error: ApiError): Response {
  return Response.json(error.body, { status: error.status, headers: error.headers });
}
