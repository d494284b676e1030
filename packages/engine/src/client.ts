// The engine as the rest of the house holds it: starts the worker, passes requests in and events
// out, and turns every way the worker can end into an error somebody sees. It computes nothing.

import { Worker } from "node:worker_threads";
import type { InfraError } from "@open-infra/tensor";
import type {
  EngineClient,
  EngineStats,
  GenerateEvent,
  GenerateRequest,
  ModelInfo,
} from "./api.ts";
import { nowMs } from "./core.ts";
import {
  deserializeError,
  EngineOverloadedError,
  EngineStoppedError,
  RequestError,
  serializeError,
} from "./errors.ts";
import { type CheckedOptions, checkOptions, type EngineOptions } from "./options.ts";
import type { FromWorker, ToWorker, WorkerOutput, WorkerStart } from "./protocol.ts";
import { RequestStream } from "./request-stream.ts";
import { resolveRequest } from "./sampling-params.ts";
import { retryAfterSeconds, StatsBoard } from "./stats.ts";

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

function spawnWorker(options: CheckedOptions): Worker {
  // From source the worker is TypeScript too, and finds the other packages' sources.
  const fromSource = import.meta.url.endsWith(".ts");
  const file = fromSource ? "./worker.ts" : "./worker.js";
  const start: WorkerStart = { options };
  return new Worker(new URL(file, import.meta.url), {
    name: "open-infra-engine",
    workerData: start,
    execArgv: fromSource ? ["--conditions=@open-infra/source"] : [],
  });
}

type ReadyMessage = Extract<FromWorker, { readonly type: "ready" }>;

/** Waits until the worker is ready; it is gone if this throws. */
function untilReady(worker: Worker, options: EngineOptions): Promise<ReadyMessage> {
  const onLog = options.onLog ?? ((line: string) => process.stderr.write(`open-infra: ${line}\n`));
  return new Promise((resolve, reject) => {
    const { signal } = options;
    const settle = (): void => {
      signal?.removeEventListener("abort", onAbort);
      worker.removeAllListeners();
    };
    const fail = (error: unknown): void => {
      settle();
      worker.terminate().then(() => reject(error), reject);
    };
    const onAbort = (): void => fail(signal?.reason);
    signal?.addEventListener("abort", onAbort);
    worker.on("message", (message: FromWorker) => {
      if (message.type === "progress") {
        options.onProgress?.(message.phase, message.done, message.total);
      } else if (message.type === "log") onLog(message.line);
      else if (message.type === "fatal") fail(deserializeError(message.error));
      else if (message.type === "ready") {
        settle();
        resolve(message);
      }
    });
    worker.on("error", (cause) =>
      fail(new EngineStoppedError(`the engine's thread failed while loading: ${cause}`, { cause })),
    );
    worker.on("exit", (code) =>
      fail(new EngineStoppedError(`the engine's thread ended with code ${code} while loading`)),
    );
    if (signal?.aborted) onAbort();
  });
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

  private constructor(worker: Worker, options: CheckedOptions, ready: ReadyMessage) {
    this.worker = worker;
    this.model = ready.model;
    this.#options = options;
    this.#board = new StatsBoard(ready.stats);
    const { promise, resolve, reject } = Promise.withResolvers<InfraError>();
    this.failed = promise;
    this.#settleFailed = { resolve, reject };
    // Whoever does not look at `failed` learns of it from the next request.
    promise.catch(() => {});
    worker.on("message", (message: FromWorker) => this.#receive(message));
    worker.on("error", (error) => this.#fail(deserializeError(serializeError(error))));
    this.#exited = new Promise((done) => {
      worker.on("exit", (code) => {
        this.#fail(new EngineStoppedError(`the engine's thread ended with code ${code}`));
        done();
      });
    });
  }

  static async start(options: EngineOptions): Promise<WorkerEngineClient> {
    options.signal?.throwIfAborted();
    const checked = checkOptions(options);
    const worker = spawnWorker(checked);
    const ready = await untilReady(worker, options);
    return new WorkerEngineClient(worker, checked, ready);
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
