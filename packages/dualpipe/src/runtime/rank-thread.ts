// The host's end of one rank's thread: requests and their answers by number, and the one event that
// matters besides, that the rank is over.

import { Worker } from "node:worker_threads";
import { deserializeError, RankLostError } from "./errors.ts";
import type { FromRank, RankRequest, RankStart, ToRank } from "./protocol.ts";
import { portsOf } from "./worker-transport.ts";

interface Pending {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/** The flags a thread needs to find the other packages' sources, when this one runs from source. */
function threadFlags(): { execArgv?: string[] } {
  const flag = "--conditions=@open-infra/source";
  if (!import.meta.url.endsWith(".ts") || process.execArgv.includes(flag)) return {};
  return { execArgv: [flag] };
}

/** One thread. */
export class RankThread {
  readonly rank: number;
  readonly worker: Worker;
  /** Resolves when the stages are loaded. */
  readonly ready: Promise<void>;
  readonly #onFailure: (error: Error) => void;
  readonly #pending = new Map<number, Pending>();
  readonly #started = Promise.withResolvers<void>();
  #nextId = 0;
  #loaded = false;
  #ended = false;

  /** @param onFailure Called once, when the rank fails or its thread ends unasked. */
  constructor(start: RankStart, onFailure: (error: Error) => void) {
    this.rank = start.seat.rank;
    this.#onFailure = onFailure;
    this.ready = this.#started.promise;
    this.ready.catch(() => {});
    const file = import.meta.url.endsWith(".ts") ? "./rank-worker.ts" : "./rank-worker.js";
    this.worker = new Worker(new URL(file, import.meta.url), {
      name: `open-infra-rank-${this.rank}`,
      workerData: start,
      transferList: [...portsOf(start.seat)],
      ...threadFlags(),
    });
    this.worker.on("message", (message: FromRank) => this.#take(message));
    this.worker.on("error", (cause) => {
      const what = cause instanceof Error ? cause.message : String(cause);
      this.#fail(new RankLostError(this.rank, `its thread threw: ${what}`, { cause }));
    });
    this.worker.on("exit", (code) => {
      this.#fail(new RankLostError(this.rank, `its thread ended with code ${code}`));
    });
  }

  /** Whether an answer is still to come, or the stages are still being loaded. */
  get busy(): boolean {
    return this.#pending.size > 0 || !this.#loaded;
  }

  /** Asks for something; rejects if that alone is refused, or after `reject`. */
  ask(request: RankRequest): Promise<unknown> {
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const id = this.#nextId++;
    this.#pending.set(id, { resolve, reject });
    const message: ToRank = { id, request };
    this.worker.postMessage(message);
    return promise;
  }

  /** Ends the thread, whatever it does. What waits for it goes on waiting until `reject`. */
  async terminate(): Promise<void> {
    this.#ended = true;
    await this.worker.terminate();
  }

  /** Everything that waits for an answer fails. */
  reject(error: Error): void {
    this.#started.reject(error);
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
  }

  #take(message: FromRank): void {
    if (message.type === "ready") {
      this.#loaded = true;
      this.#started.resolve();
      return;
    }
    if (message.type === "failed") {
      this.#fail(deserializeError(message.error));
      return;
    }
    const pending = this.#pending.get(message.id);
    this.#pending.delete(message.id);
    if (message.type === "reply") pending?.resolve(message.value);
    else pending?.reject(deserializeError(message.error));
  }

  #fail(error: Error): void {
    if (!this.#ended) this.#onFailure(error);
  }
}
