// Starts the worker thread and passes its events to whoever holds it: first the one that waits for
// it to be ready, then the client. The listeners are set once: a worker that was without a message
// listener for a moment was seen to deliver nothing to the next one (Node 26.10).

import { Worker } from "node:worker_threads";
import { deserializeError, EngineStoppedError } from "./errors.ts";
import type { CheckedOptions, EngineOptions } from "./options.ts";
import type { FromWorker, WorkerStart } from "./protocol.ts";

export interface WorkerHandler {
  message(message: FromWorker): void;
  error(error: unknown): void;
  exit(code: number): void;
}

export class WorkerLink {
  readonly worker: Worker;
  handler: WorkerHandler | undefined;

  constructor(options: CheckedOptions) {
    // From source the worker is TypeScript too, and finds the other packages' sources.
    const fromSource = import.meta.url.endsWith(".ts");
    const file = fromSource ? "./worker.ts" : "./worker.js";
    const start: WorkerStart = { options };
    this.worker = new Worker(new URL(file, import.meta.url), {
      name: "open-infra-engine",
      workerData: start,
      execArgv: fromSource ? ["--conditions=@open-infra/source"] : [],
    });
    this.worker.on("message", (message: FromWorker) => this.handler?.message(message));
    this.worker.on("error", (error) => this.handler?.error(error));
    this.worker.on("exit", (code) => this.handler?.exit(code));
  }
}

export type ReadyMessage = Extract<FromWorker, { readonly type: "ready" }>;

/** Waits until the worker is ready; it is gone if this throws. */
export function untilReady(link: WorkerLink, options: EngineOptions): Promise<ReadyMessage> {
  const onLog = options.onLog ?? ((line: string) => process.stderr.write(`open-infra: ${line}\n`));
  const { signal } = options;
  return new Promise((resolve, reject) => {
    const settle = (): void => {
      signal?.removeEventListener("abort", onAbort);
      link.handler = undefined;
    };
    const fail = (error: unknown): void => {
      settle();
      link.worker.terminate().then(() => reject(error), reject);
    };
    const onAbort = (): void => fail(signal?.reason);
    signal?.addEventListener("abort", onAbort);
    link.handler = {
      message(message) {
        if (message.type === "progress") {
          options.onProgress?.(message.phase, message.done, message.total);
        } else if (message.type === "log") onLog(message.line);
        else if (message.type === "fatal") fail(deserializeError(message.error));
        else if (message.type === "ready") {
          settle();
          resolve(message);
        }
      },
      error(cause) {
        const message = `the engine's thread failed while loading: ${cause}`;
        fail(new EngineStoppedError(message, { cause }));
      },
      exit(code) {
        fail(new EngineStoppedError(`the engine's thread ended with code ${code} while loading`));
      },
    };
    if (signal?.aborted) onAbort();
  });
}
