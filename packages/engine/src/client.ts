// The engine as the rest of the house holds it: starts the worker, passes requests in and events
// out, and turns every way the worker can end into an error somebody sees. It computes nothing.

import type { Worker } from "node:worker_threads";
import { type InfraError, serializeError } from "@open-infra/errors";
import type {
  EngineClient,
  EngineStats,
  GenerateEvent,
  GenerateRequest,
  ModelInfo,
} from "./api.ts";
import { nowMs } from "./clock.ts";
import {
  deserializeError,
  EngineOverloadedError,
  EngineStoppedError,
  RequestError,
} from "./errors.ts";
import { type CheckedOptions, checkOptions, type EngineOptions } from "./options.ts";
import type { FromWorker, ToWorker, WorkerOutput } from "./protocol.ts";
import { RequestStream } from "./request-stream.ts";
import { resolveRequest } from "./sampling-params.ts";
import { retryAfterSeconds, StatsBoard } from "./stats.ts";
import { type ReadyMessage, untilReady, WorkerLink } from "./worker-link.ts";

/** How long the worker may take to end after it was told to, before it is ended by force. */
const CLOSE_TIMEOUT_MS = 10_000;

type State = "open" | "draining" | "closing" | "closed" | "failed";

/**
 * Loads a model in a worker thread.
 *
 * @throws the loader's typed errors (as classes of this package or InfraError with `code`),
 * EngineOptionError, or the signal's reason.
 */
export async function startEngine(options: EngineOptions): Promise<EngineClient> {
  return await WorkerEngineClient.start(options);
}

export class WorkerEngineClient implements EngineClient {
  readonly model: ModelInfo;
  readonly failed: Promise<InfraError>;
  readonly worker: Worker;
  readonly #options: CheckedOptions;
  readonly #board: StatsBoard;
  readonly #streams = new Map<number, RequestStream>();
  readonly #ids = new Set<string>();
  readonly #idle: (() => void)[] = [];
  /** Aborts requests whose iterator was dropped without being read to its end. */
  readonly #dropped = new FinalizationRegistry<number>((key) => this.#leave(key));
  readonly #exited: Promise<void>;
  #state: State = "open";
  #nextKey = 1;
  #closing: Promise<void> | undefined;
  #closeError: InfraError | undefined;
  #settleFailed: { readonly resolve: (e: InfraError) => void; readonly reject: (e: Error) => void };

  private constructor(link: WorkerLink, options: CheckedOptions, ready: ReadyMessage) {
    this.worker = link.worker;
    this.model = ready.model;
    this.#options = options;
    this.#board = new StatsBoard(ready.stats);
    const { promise, resolve, reject } = Promise.withResolvers<InfraError>();
    this.failed = promise;
    this.#settleFailed = { resolve, reject };
    // Whoever does not look at `failed` learns of it from the next request.
    promise.catch(() => {});
    const exited = Promise.withResolvers<void>();
    this.#exited = exited.promise;
    link.handler = {
      message: (message) => this.#receive(message),
      error: (error) => this.#fail(deserializeError(serializeError(error))),
      exit: (code) => {
        this.#fail(new EngineStoppedError(`the engine's thread ended with code ${code}`));
        exited.resolve();
      },
    };
  }

  static async start(options: EngineOptions): Promise<WorkerEngineClient> {
    options.signal?.throwIfAborted();
    const checked = checkOptions(options);
    const link = new WorkerLink(checked);
    const ready = await untilReady(link, options);
    return new WorkerEngineClient(link, checked, ready);
  }

  generate(
    request: GenerateRequest,
    options: { readonly signal?: AbortSignal } = {},
  ): AsyncIterable<GenerateEvent> {
    const key = this.#nextKey++;
    const { signal } = options;
    const onAbort = (): void => this.#post({ type: "abort", keys: [key] });
    const { id } = request;
    const stream = new RequestStream(id, () => {
      signal?.removeEventListener("abort", onAbort);
      if (this.#streams.delete(key)) this.#ids.delete(id);
      if (this.#streams.size === 0) for (const done of this.#idle.splice(0)) done();
    });
    try {
      signal?.throwIfAborted();
      this.#admit(request);
      this.#streams.set(key, stream);
      this.#ids.add(id);
      signal?.addEventListener("abort", onAbort);
      this.#post({ type: "add", key, request: plainRequest(request), arrivalMs: nowMs() });
    } catch (error) {
      stream.fail(error as Error);
    }
    return this.#iterate(key, stream);
  }

  stats(): EngineStats {
    return this.#board.snapshot();
  }

  async drain(timeoutMs: number): Promise<void> {
    if (this.#state === "open") this.#state = "draining";
    if (await this.#untilIdle(timeoutMs)) return;
    this.#post({ type: "abort", keys: [...this.#streams.keys()] });
    await this.#untilIdle(CLOSE_TIMEOUT_MS);
  }

  close(): Promise<void> {
    this.#closing ??= this.#shutDown();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #shutDown(): Promise<void> {
    if (this.#state === "failed") {
      await this.worker.terminate();
      return;
    }
    this.#state = "closing";
    this.#post({ type: "close" });
    const timer = setTimeout(() => void this.worker.terminate(), CLOSE_TIMEOUT_MS);
    await this.#exited;
    clearTimeout(timer);
    if (this.#closeError !== undefined) throw this.#closeError;
  }

  /** @throws the reason why the request cannot be taken. */
  #admit(request: GenerateRequest): void {
    if (this.#state !== "open") {
      throw new EngineStoppedError(`the engine is ${this.#state}; it takes no more requests`);
    }
    if (this.#ids.has(request.id)) {
      throw new RequestError("id", `'${request.id}'`, "an id that no running request has");
    }
    resolveRequest(request, this.model);
    const limit = this.#options.maxSequences + this.#options.maxQueue;
    if (this.#streams.size < limit) return;
    throw new EngineOverloadedError(this.#streams.size, limit, retryAfterSeconds(this.#board));
  }

  #iterate(key: number, stream: RequestStream): AsyncIterableIterator<GenerateEvent> {
    const iterator: AsyncIterableIterator<GenerateEvent> = {
      next: () => stream.next(),
      return: async () => {
        this.#leave(key);
        stream.abandon();
        return { done: true, value: undefined };
      },
      [Symbol.asyncIterator]: () => iterator,
    };
    if (!stream.ended) this.#dropped.register(iterator, key);
    return iterator;
  }

  /** The reader of a request is gone: stop computing it. */
  #leave(key: number): void {
    const stream = this.#streams.get(key);
    if (stream === undefined) return;
    this.#post({ type: "abort", keys: [key] });
    stream.abandon();
  }

  #post(message: ToWorker): void {
    if (this.#state !== "closed" && this.#state !== "failed") this.worker.postMessage(message);
  }

  #receive(message: FromWorker): void {
    if (message.type === "outputs") for (const output of message.outputs) this.#deliver(output);
    else if (message.type === "fatal") this.#fail(deserializeError(message.error));
    if (message.type !== "fatal" && message.type !== "closed") return;
    if (message.error !== undefined) this.#closeError = deserializeError(message.error);
  }

  #deliver({ key, events, error }: WorkerOutput): void {
    const stream = this.#streams.get(key);
    stream?.push(events);
    if (error !== undefined) stream?.fail(deserializeError(error));
  }

  /** The worker is gone, by its own fault or as it was told. */
  #fail(error: InfraError): void {
    if (this.#state === "closed" || this.#state === "failed") return;
    const asked = this.#state === "closing";
    this.#state = asked ? "closed" : "failed";
    const why = asked ? "the engine was closed" : `the engine has failed: ${error.message}`;
    const stopped = new EngineStoppedError(why, { cause: error });
    for (const stream of [...this.#streams.values()]) stream.fail(stopped);
    // The worker cannot say any more that nothing runs.
    for (const gauge of ["running", "waiting", "kvBlocksUsed"] as const) this.#board.set(gauge, 0);
    if (asked) this.#settleFailed.resolve(stopped);
    else this.#settleFailed.reject(error);
  }

  /** True when no request is left, false when the time is over first. */
  async #untilIdle(timeoutMs: number): Promise<boolean> {
    if (this.#streams.size === 0) return true;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<boolean>((resolve) => {
      timer = setTimeout(() => resolve(false), timeoutMs);
    });
    const idle = new Promise<boolean>((resolve) => {
      this.#idle.push(() => resolve(true));
    });
    const result = await Promise.race([idle, late]);
    clearTimeout(timer);
    return result;
  }
}

/** Only what the seam names, so that nothing a caller attached fails to cross the thread. */
function plainRequest({ id, promptTokenIds, sampling }: GenerateRequest): GenerateRequest {
  return { id, promptTokenIds: Array.from(promptTokenIds), sampling: { ...sampling } };
}
