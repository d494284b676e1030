// A socket for the application, and its life: listening while the model loads, draining, gone. The
// engine is opened and closed by the caller.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { getRequestListener } from "@hono/node-server";
import { buildApp } from "./app.ts";
import { ApiError } from "./errors.ts";
import { isLoopback } from "./guards.ts";
import { listen, visitUrl } from "./listen.ts";
import { type Phase, type ServerParts, ServerState } from "./state.ts";

export interface StartServerOptions extends ServerParts {
  /** @default "127.0.0.1" */
  readonly host?: string;
  /** 0 takes a free one. @default 8000 */
  readonly port?: number;
}

export interface RunningServer extends AsyncDisposable {
  /** For people and clients: `http://127.0.0.1:8000`. */
  readonly url: string;
  readonly host: string;
  readonly port: number;
  /** Resolves when requests are served, rejects when loading failed. */
  readonly ready: Promise<void>;
  readonly phase: Phase;
  /**
   * Takes no more connections and requests, and waits for running ones; those that are not done
   * after `timeoutMs` end with an error.
   *
   * @default options.drainTimeoutMs
   */
  drain(timeoutMs?: number): Promise<void>;
  /** Drains, then closes every connection. The engine stays open. */
  close(): Promise<void>;
}

/** How long clients may take to read the error that ended their request. */
const FAREWELL_MS = 2000;
const IDLE_SWEEP_MS = 50;

/**
 * Listens at once, also while `engine` and `tokenizer` are still promises: until they resolve,
 * `/health` and the API answer 503.
 *
 * @throws PortInUseError, ListenError, ServerOptionError
 */
export async function startServer(options: StartServerOptions): Promise<RunningServer> {
  const host = options.host ?? "127.0.0.1";
  const port = options.port ?? 8000;
  const state = new ServerState(options);
  const app = buildApp(state, { checkHost: isLoopback(host) });
  const listener = getRequestListener(app.fetch, {
    hostname: host,
    overrideGlobalObjects: false,
    errorHandler: badRequestLine,
  });
  /** Connections with an answer on its way. */
  const answering = new WeakSet<Duplex>();
  const server = createServer((request: IncomingMessage, response: ServerResponse) => {
    const { socket } = request;
    answering.add(socket);
    response.once("close", () => answering.delete(socket));
    void listener(request, response);
  });
  server.on("clientError", (error: NodeJS.ErrnoException, socket) => {
    // Whatever is written now would land in the middle of the answer.
    if (answering.has(socket)) socket.destroy();
    else refuseMalformed(error, socket);
  });
  await listen(server, host, port);
  const address = server.address() as AddressInfo;
  return new HttpServer({ server, state, host, port: address.port });
}

/** Requests that never become one for the application: a bad Host header, a bad address. */
function badRequestLine(error: unknown): Response {
  const message = error instanceof Error ? error.message : "malformed request";
  return Response.json(new ApiError(400, message, { code: "bad_request" }).body, { status: 400 });
}

const parserStatus: Readonly<Record<string, readonly [number, string]>> = {
  HPE_HEADER_OVERFLOW: [431, "Request Header Fields Too Large"],
  ERR_HTTP_REQUEST_TIMEOUT: [408, "Request Timeout"],
};

/** What the HTTP parser rejects gets OpenAI's shape too. */
function refuseMalformed(error: NodeJS.ErrnoException, socket: Duplex): void {
  if (!socket.writable || error.code === "ECONNRESET") {
    socket.destroy();
    return;
  }
  const [status, reason] = parserStatus[error.code ?? ""] ?? [400, "Bad Request"];
  const body = JSON.stringify(new ApiError(status, reason, { code: "bad_request" }).body);
  socket.end(
    `HTTP/1.1 ${status} ${reason}\r\nconnection: close\r\ncontent-type: application/json\r\n` +
      `content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
}

interface HttpServerParts {
  readonly server: Server;
  readonly state: ServerState;
  readonly host: string;
  readonly port: number;
}

class HttpServer implements RunningServer {
  readonly url: string;
  readonly host: string;
  readonly port: number;
  readonly #server: Server;
  readonly #state: ServerState;
  #draining: Promise<void> | undefined;

  constructor({ server, state, host, port }: HttpServerParts) {
    this.#server = server;
    this.#state = state;
    this.host = host;
    this.port = port;
    this.url = visitUrl(host, port);
  }

  get ready(): Promise<void> {
    return this.#state.ready;
  }

  get phase(): Phase {
    return this.#state.phase;
  }

  drain(timeoutMs: number = this.#state.options.drainTimeoutMs): Promise<void> {
    this.#draining ??= this.#drain(timeoutMs);
    return this.#draining;
  }

  async close(): Promise<void> {
    await this.drain();
    await this.#state.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #drain(timeoutMs: number): Promise<void> {
    this.#state.beginDrain();
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    // A connection whose answer has just ended waits for the next request; there is none.
    const sweep = setInterval(() => this.#server.closeIdleConnections(), IDLE_SWEEP_MS);
    const timer = setTimeout(() => this.#state.abortRunning(), timeoutMs);
    const end = setTimeout(() => this.#server.closeAllConnections(), timeoutMs + FAREWELL_MS);
    await closed;
    for (const handle of [sweep, timer, end]) clearTimeout(handle);
  }
}
