// Ranks as worker threads of this process: the embedded default. The host starts them, answers
// their rendezvous, and ends all when one fails.

import { Worker } from "node:worker_threads";
import { InputError, type serializeError } from "@open-infra/errors";
import { MemoryStore, serveStore } from "./thread-store.ts";

/** How ranks are started. */
export interface ThreadsOptions {
  readonly size: number;
  /** A module whose default export is `(group, data) => result`; it runs on every rank. */
  readonly module: URL;
  /** The export to call. @default "default" */
  readonly export?: string;
  /** Given to every rank; plain data. */
  readonly data?: unknown;
  readonly ranksPerNode?: number;
  readonly timeoutMs?: number;
  readonly commThreads?: number;
  readonly spinUs?: number;
  /** How ranks reach each other. @default memory, which threads share */
  readonly transport?: "auto" | "heap" | "shm" | "ucx" | "tcp";
  readonly signal?: AbortSignal;
}

/** What a worker is started with. */
export interface RankStart {
  readonly module: string;
  readonly export: string;
  readonly data: unknown;
  readonly join: {
    readonly rank: number;
    readonly size: number;
    readonly ranksPerNode?: number;
    readonly timeoutMs?: number;
    readonly commThreads?: number;
    readonly spinUs?: number;
    readonly transport?: "auto" | "heap" | "shm" | "ucx" | "tcp";
  };
}

/**
 * Runs a function on `size` ranks and gives their results by rank. The first failure ends all.
 *
 * @throws what the rank threw
 */
export async function runThreads<T = unknown>(options: ThreadsOptions): Promise<T[]> {
  const { size } = options;
  if (!Number.isInteger(size) || size < 1) {
    throw new InputError("size", `${size}`, "an integer of at least 1");
  }
  const store = new MemoryStore();
  const workers: Worker[] = [];
  try {
    const runs = Array.from({ length: size }, (_, rank) => runRank(options, rank, store, workers));
    return (await Promise.all(runs)) as T[];
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
}

function runRank(
  options: ThreadsOptions,
  rank: number,
  store: MemoryStore,
  workers: Worker[],
): Promise<unknown> {
  const { size, ranksPerNode, timeoutMs, commThreads, spinUs, transport } = options;
  const start: RankStart = {
    module: options.module.href,
    export: options.export ?? "default",
    data: options.data,
    join: {
      rank,
      size,
      ...(ranksPerNode !== undefined && { ranksPerNode }),
      ...(timeoutMs !== undefined && { timeoutMs }),
      ...(commThreads !== undefined && { commThreads }),
      ...(spinUs !== undefined && { spinUs }),
      ...(transport !== undefined && { transport }),
    },
  };
  const source = import.meta.url.endsWith(".ts");
  const flag = "--conditions=@open-infra/source";
  const worker = new Worker(
    new URL(source ? "./rank-thread.ts" : "./rank-thread.js", import.meta.url),
    {
      name: `open-infra-rank-${rank}`,
      workerData: start,
      ...(source && !process.execArgv.includes(flag) && { execArgv: [flag] }),
    },
  );
  workers.push(worker);
  serveStore(worker, store);
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(options.signal?.reason);
    options.signal?.addEventListener("abort", abort, { once: true });
    worker.on(
      "message",
      (message: { result?: unknown; error?: ReturnType<typeof serializeError> }) => {
        if ("result" in message) resolve(message.result);
        else if (message.error !== undefined) {
          reject(
            Object.assign(new Error(message.error.message), message.error.fields, {
              name: message.error.name,
              code: message.error.code,
            }),
          );
        }
      },
    );
    worker.on("error", reject);
    worker.on("exit", (code) => reject(new Error(`rank ${rank}'s thread ended with code ${code}`)));
  });
}
