// What all routes of one server share: its options, its log, and where it stands between loading
// and gone. The engine belongs to the caller, who opens and closes it.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import type { EngineClient } from "@open-infra/engine";
import type { Tokenizer } from "@open-infra/model";
import { destination, type Logger, pino } from "pino";
import { Encoder } from "./encoder.ts";
import { type ApiError, unavailable } from "./errors.ts";
import { HttpCounters } from "./http-counters.ts";
import { type CheckedOptions, checkOptions, type ServerOptions } from "./options.ts";

const packageJson = new URL("../package.json", import.meta.url);

/** This package's version. */
export const version: string = (
  JSON.parse(readFileSync(packageJson, "utf8")) as { version: string }
).version;

/** Seconds after which a client should ask again while the model loads. */
const LOADING_RETRY_SECONDS = 2;
/** Seconds after which another server may have taken this one's place. */
const GONE_RETRY_SECONDS = 10;

/** What a server is made of; promises while the model loads. */
export interface ServerParts {
  readonly engine: EngineClient | Promise<EngineClient>;
  readonly tokenizer: Tokenizer | Promise<Tokenizer>;
  readonly options?: ServerOptions;
}

/** A loaded model. */
export interface Backend {
  readonly engine: EngineClient;
  readonly encoder: Encoder;
  /** The engine's own id first, then the aliases. */
  readonly names: readonly string[];
  /** Changes with the model and the way it is computed. */
  readonly fingerprint: string;
}

export type Phase = "loading" | "ready" | "failed" | "draining";

export class ServerState {
  readonly options: CheckedOptions;
  readonly log: Logger;
  readonly counters: HttpCounters = new HttpCounters();
  readonly startedAtMs: number = Date.now();
  /** Resolves when the engine is ready, rejects when loading failed. */
  readonly ready: Promise<void>;
  readonly #drain = new AbortController();
  readonly #abort = new AbortController();
  #phase: Exclude<Phase, "draining"> = "loading";
  #backend: Backend | undefined;

  constructor(parts: ServerParts) {
    this.options = checkOptions(parts.options ?? {});
    this.log =
      this.options.logger ??
      pino({ level: this.options.logLevel, base: null }, destination({ dest: 2, sync: true }));
    this.ready = this.#load(parts);
    // Requests and /health tell of a failure too; nobody has to look at `ready`.
    this.ready.catch(() => {});
  }

  get phase(): Phase {
    return this.draining ? "draining" : this.#phase;
  }

  get draining(): boolean {
    return this.#drain.signal.aborted;
  }

  /** Aborts when the server begins to drain. */
  get drainSignal(): AbortSignal {
    return this.#drain.signal;
  }

  /** Aborts when running requests must end; the reason is the error to tell clients. */
  get abortSignal(): AbortSignal {
    return this.#abort.signal;
  }

  /** The model, once it is loaded. */
  get loaded(): Backend | undefined {
    return this.#backend;
  }

  /** @throws ApiError 503 unless requests can be served now. */
  backend(): Backend {
    const { phase } = this;
    if (phase === "draining") throw shuttingDown();
    if (phase === "failed") {
      throw unavailable("the engine has failed; the server's log says why", "engine_stopped", 60);
    }
    if (this.#backend === undefined) {
      throw unavailable("the model is still loading", "model_loading", LOADING_RETRY_SECONDS);
    }
    return this.#backend;
  }

  beginDrain(): void {
    this.#drain.abort();
  }

  abortRunning(): void {
    this.#abort.abort(shuttingDown());
  }

  async close(): Promise<void> {
    await this.#backend?.encoder.close();
  }

  async #load(parts: ServerParts): Promise<void> {
    try {
      const [engine, tokenizer] = await Promise.all([parts.engine, parts.tokenizer]);
      this.#backend = openBackend(engine, tokenizer, this.options);
      this.#phase = "ready";
      engine.failed.catch((error: unknown) => this.#fail(error));
    } catch (error) {
      this.#fail(error);
      throw error;
    }
  }

  #fail(error: unknown): void {
    this.#phase = "failed";
    this.log.error({ err: error }, "the engine has failed");
  }
}

function openBackend(engine: EngineClient, tokenizer: Tokenizer, options: CheckedOptions): Backend {
  const { id, architecture, parameters, dtype, dir } = engine.model;
  const identity = JSON.stringify([id, architecture, parameters, dtype, version]);
  return {
    engine,
    encoder: new Encoder({ tokenizer, dir, inlineChars: options.inlineEncodeChars }),
    names: [...new Set([id, ...options.modelAliases])],
    fingerprint: `fp_${createHash("sha256").update(identity).digest("hex").slice(0, 10)}`,
  };
}

function shuttingDown(): ApiError {
  return unavailable("the server is shutting down", "shutting_down", GONE_RETRY_SECONDS);
}
