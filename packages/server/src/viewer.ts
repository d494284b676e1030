// A small server for one file and the console that shows it: the page of a trace on this machine,
// without an engine. Nothing else of the disk can be reached: the console's built files, and the
// one file at an address that cannot be guessed.

import { randomBytes } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { basename } from "node:path";
import { Readable } from "node:stream";
import { getRequestListener } from "@hono/node-server";
import { InputError } from "@open-infra/errors";
import { Hono } from "hono";
import { ApiError, toApiError } from "./errors.ts";
import { hostGuard } from "./guards.ts";
import { listen, visitUrl } from "./listen.ts";
import type { ConsoleFiles } from "./options.ts";
import type { ServerContext, ServerEnv } from "./scope.ts";
import { getStaticFile } from "./static-files.ts";

export interface ViewerOptions {
  /** The trace: JSON, or JSON in gzip. */
  readonly file: string;
  /** The console's built files. */
  readonly console: ConsoleFiles;
  /** 0 takes a free one. @default 0 */
  readonly port?: number;
}

export interface RunningViewer extends AsyncDisposable {
  /** What to open: the console's trace page with the file. */
  readonly url: string;
  readonly port: number;
  /** Ends every connection. */
  close(): Promise<void>;
}

/** Other machines have no business here: it listens on this one only. */
const HOST = "127.0.0.1";
const GZIP_MAGIC = [0x1f, 0x8b] as const;

/**
 * Serves the console and one trace on a loopback address.
 *
 * @throws InputError if the console is not built, or the file is not a readable file.
 * @throws PortInUseError, ListenError
 */
export async function startViewer(options: ViewerOptions): Promise<RunningViewer> {
  if ("missing" in options.console) {
    throw new InputError("console", "not there", `a built console: ${options.console.missing}`);
  }
  const type = await typeOf(options.file);
  const path = `/trace/${randomBytes(16).toString("hex")}`;
  const app = viewerApp({ ...options, path, type });
  const listener = getRequestListener(app.fetch, { hostname: HOST, overrideGlobalObjects: false });
  const server = createServer((request, response) => void listener(request, response));
  await listen(server, HOST, options.port ?? 0);
  const { port } = server.address() as AddressInfo;
  const close = async (): Promise<void> => {
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    server.closeAllConnections();
    await closed;
  };
  const address = encodeURIComponent(path);
  const url = `${visitUrl(HOST, port)}/#/trace/?url=${address}`;
  return { url, port, close, [Symbol.asyncDispose]: close };
}

interface ViewerParts extends ViewerOptions {
  /** Where the file lies in the address space. */
  readonly path: string;
  readonly type: string;
}

/** The application without a socket. */
function viewerApp({ file, console, path, type }: ViewerParts): Hono<ServerEnv> {
  const app = new Hono<ServerEnv>();
  app.use(hostGuard([]));
  app.get(path, (c) => sendTrace(c, file, type));
  // The console asks for these; there is no engine here, and that is no failure.
  app.get("/api/*", () => errorResponse(new ApiError(404, "this server only shows a trace")));
  app.get("/v1/*", () => errorResponse(new ApiError(404, "this server only shows a trace")));
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

/** The file as it is now, in pieces; opened for every request, since a run may write it again. */
async function sendTrace(c: ServerContext, file: string, type: string): Promise<Response> {
  const handle = await open(file).catch((cause: unknown) => {
    throw new ApiError(404, "the trace is no longer there", { cause });
  });
  const { size } = await handle.stat();
  const headers = {
    "content-type": type,
    "content-length": String(size),
    "content-disposition": `inline; filename*=UTF-8''${encodeName(basename(file))}`,
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    // Another site's page must not even embed it.
    "cross-origin-resource-policy": "same-origin",
  };
  if (c.req.method === "HEAD" || size === 0) {
    await handle.close();
    return new Response(null, { headers });
  }
  // Not beyond the size that was promised, though the file may be growing.
  const stream = handle.createReadStream({ end: size - 1, highWaterMark: 1 << 18 });
  return new Response(Readable.toWeb(stream) as ReadableStream<Uint8Array>, { headers });
}

/** RFC 8187's characters; encodeURIComponent leaves four of the others. */
function encodeName(name: string): string {
  return encodeURIComponent(name).replace(
    /['()*]/g,
    (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

/** Opens the file once before anything is promised. @throws InputError */
async function typeOf(file: string): Promise<string> {
  let handle: FileHandle;
  try {
    handle = await open(file);
  } catch (cause) {
    throw new InputError("file", `${file}, which ${reasonOf(cause)}`, "a trace", { cause });
  }
  try {
    if (!(await handle.stat()).isFile()) {
      throw new InputError("file", `${file}, which is no regular file`, "a trace");
    }
    const { buffer } = await handle.read(Buffer.alloc(2), 0, 2, 0);
    const packed = GZIP_MAGIC.every((byte, index) => buffer[index] === byte);
    return packed ? "application/gzip" : "application/json";
  } finally {
    await handle.close();
  }
}

function reasonOf(cause: unknown): string {
  const { code, message } = cause as NodeJS.ErrnoException;
  const reasons: Readonly<Record<string, string>> = {
    ENOENT: "does not exist",
    EACCES: "may not be read",
    EISDIR: "is a folder",
  };
  return reasons[code ?? ""] ?? message;
}
