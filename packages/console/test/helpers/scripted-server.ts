// A small HTTP server that plays the part of packages/server in browser tests: it serves the built
// app under the real content policy, and answers the API as each test scripts it. It also records
// what came and whether the client hung up.

import { readFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join, normalize } from "node:path";
import { consoleContentSecurityPolicy } from "@open-infra/console";
import type { StatsMessage } from "../../web/src/api/wire.ts";

/** An answer that is not a stream. */
export interface Refusal {
  readonly status: number;
  readonly message: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** One completion request as a script sees it. */
export interface Call {
  readonly path: string;
  readonly body: Record<string, unknown>;
  readonly authorization: string | undefined;
  /** Becomes true when the client closes the connection before the answer is complete. */
  readonly aborted: Promise<boolean>;
  /** Sends one event of the stream. */
  send(data: unknown): void;
  /** Sends a piece of text in the endpoint's own chunk shape. */
  text(text: string, finishReason?: string): void;
  /** Sends usage and `[DONE]`, and ends. */
  done(usage: Usage): void;
  /** Breaks the connection off without an end. */
  cut(): void;
}

interface Usage {
  readonly prompt: number;
  readonly completion: number;
  readonly cached?: number;
}

/** What the server does; a test changes it while the server runs. */
export interface Script {
  models: readonly string[];
  stats: () => StatsMessage | Refusal;
  statsIntervalMs: number;
  complete: (call: Call) => Refusal | undefined | Promise<undefined>;
  /** Files beside the app's, by path. */
  files?: Readonly<Record<string, Uint8Array>>;
}

const types: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
};

/** A running scripted server. */
export class ScriptedServer implements AsyncDisposable {
  readonly calls: Call[] = [];
  readonly script: Script;
  readonly #server: Server;
  readonly #dir: string;

  private constructor(dir: string, script: Script) {
    this.#dir = dir;
    this.script = script;
    this.#server = createServer((request, response) => {
      this.#handle(request, response).catch((error: unknown) => {
        response.destroy(error instanceof Error ? error : new Error(String(error)));
      });
    });
  }

  static async start(dir: string, script: Script): Promise<ScriptedServer> {
    const server = new ScriptedServer(dir, script);
    await new Promise<void>((resolve) => server.#server.listen(0, "127.0.0.1", resolve));
    return server;
  }

  get url(): string {
    const { port } = this.#server.address() as AddressInfo;
    return `http://127.0.0.1:${port}/`;
  }

  /** Breaks every connection off and listens no longer, as a killed server would. */
  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  /** Comes back on the port it had. */
  async reopen(port: number): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(port, "127.0.0.1", resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#server.listening) await this.close();
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname } = new URL(request.url ?? "/", this.url);
    if (pathname === "/v1/models") {
      const data = this.script.models.map((id) => ({ id, object: "model" }));
      sendJson(response, 200, { object: "list", data });
      return;
    }
    if (pathname === "/api/stats/stream") return this.#streamStats(response);
    if (pathname.startsWith("/v1/")) return this.#complete(pathname, request, response);
    return this.#sendFile(pathname, response);
  }

  #streamStats(response: ServerResponse): void {
    const first = this.script.stats();
    if ("status" in first) {
      refuse(response, first);
      return;
    }
    response.writeHead(200, { "content-type": "text/event-stream" });
    const send = (): void => {
      const message = this.script.stats();
      if ("status" in message) response.end();
      else response.write(`data: ${JSON.stringify(message)}\n\n`);
    };
    send();
    const timer = setInterval(send, this.script.statsIntervalMs);
    response.on("close", () => clearInterval(timer));
  }

  async #complete(path: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    let text = "";
    for await (const chunk of request) text += String(chunk);
    const call = makeCall({ path, text, request, response });
    this.calls.push(call);
    const refusal = await this.script.complete(call);
    if (refusal !== undefined) refuse(response, refusal);
  }

  async #sendFile(pathname: string, response: ServerResponse): Promise<void> {
    const path = normalize(pathname === "/" ? "/index.html" : pathname);
    const extra = this.script.files?.[pathname];
    const content = extra ?? (await readFile(join(this.#dir, path)).catch(() => undefined));
    if (content === undefined) return refuse(response, { status: 404, message: "not found" });
    response.writeHead(200, {
      "content-type": types[extname(path)] ?? "application/octet-stream",
      "content-security-policy": consoleContentSecurityPolicy,
      "x-content-type-options": "nosniff",
    });
    response.end(content);
  }
}

function makeCall(parts: {
  readonly path: string;
  readonly text: string;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
}): Call {
  const { path, request, response } = parts;
  const aborted = new Promise<boolean>((resolve) => {
    response.on("close", () => resolve(!response.writableFinished));
  });
  const send = (data: unknown): void => {
    if (!response.headersSent) response.writeHead(200, { "content-type": "text/event-stream" });
    response.write(`data: ${typeof data === "string" ? data : JSON.stringify(data)}\n\n`);
  };
  const isChat = path.endsWith("chat/completions");
  return {
    path,
    body: JSON.parse(parts.text),
    authorization: request.headers.authorization,
    aborted,
    send,
    text: (text, finishReason) => {
      const piece = isChat ? { delta: { content: text } } : { text };
      send({ choices: [{ index: 0, ...piece, finish_reason: finishReason ?? null }] });
    },
    done: ({ prompt, completion, cached = 0 }) => {
      const prompt_tokens_details = { cached_tokens: cached };
      const usage = { prompt_tokens: prompt, completion_tokens: completion, prompt_tokens_details };
      send({ choices: [], usage });
      send("[DONE]");
      response.end();
    },
    cut: () => response.destroy(),
  };
}

function sendJson(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body));
}

function refuse(response: ServerResponse, refusal: Refusal): void {
  for (const [name, value] of Object.entries(refusal.headers ?? {}))
    response.setHeader(name, value);
  const error = { message: refusal.message, type: "error", param: null, code: refusal.status };
  sendJson(response, refusal.status, { error });
}
