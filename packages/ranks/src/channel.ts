// The two ways that messages pass between whoever starts ranks and a rank: to a worker thread, or
// to a child process. And a store that is asked over them.

import type { ChildProcess } from "node:child_process";
import { parentPort, type Worker } from "node:worker_threads";
import { type Store, StoreFailedError, StoreTimeoutError } from "./store.ts";

/** One end. */
export interface Channel {
  post(message: object): void;
  listen(listener: (message: unknown) => void): void;
  /** Nothing is heard any more, and it keeps no event loop alive. */
  close(): void;
}

export function workerChannel(worker: Worker): Channel {
  return {
    post: (message) => worker.postMessage(message),
    listen: (listener) => void worker.on("message", listener),
    close: () => void worker.removeAllListeners("message"),
  };
}

/** A worker's own end. */
export function portChannel(): Channel {
  const port = parentPort as NonNullable<typeof parentPort>;
  return {
    post: (message) => port.postMessage(message),
    listen: (listener) => void port.on("message", listener),
    close: () => port.unref(),
  };
}

export function childChannel(child: ChildProcess): Channel {
  return {
    // Whoever is gone has its exit reported elsewhere.
    post: (message) => void (child.connected && child.send(message, () => {})),
    listen: (listener) => void child.on("message", listener),
    close: () => void child.removeAllListeners("message"),
  };
}

/** A child process's own end. */
export function parentChannel(): Channel {
  return {
    post: (message) => void process.send?.(message, undefined, {}, () => {}),
    listen: (listener) => void process.on("message", listener),
    close: () => process.channel?.unref(),
  };
}

interface Question {
  readonly store: number;
  readonly call: "set" | "get" | "add";
  readonly key: string;
  readonly value: string | number | undefined;
  readonly timeoutMs: number | undefined;
}

interface Answer {
  readonly storeAnswer: number;
  readonly value?: string | number;
  readonly timedOut?: number;
  readonly failed?: { readonly culprit: number; readonly message: string };
}

/** Answers the questions that come over a channel from a store that others hold. */
export function serveStore(channel: Channel, store: Store): void {
  channel.listen(async (message) => {
    const question = message as Question;
    if (typeof question?.store !== "number") return;
    channel.post(await answer(question, store));
  });
}

async function answer(question: Question, store: Store): Promise<Answer> {
  const { store: storeAnswer, call, key, value, timeoutMs } = question;
  try {
    if (call === "add") return { storeAnswer, value: await store.add(key, Number(value)) };
    if (call === "get") {
      const options = timeoutMs === undefined ? {} : { timeoutMs };
      return { storeAnswer, value: await store.get(key, options) };
    }
    await store.set(key, String(value));
    return { storeAnswer };
  } catch (error) {
    if (error instanceof StoreTimeoutError) return { storeAnswer, timedOut: timeoutMs ?? 0 };
    const culprit = error instanceof StoreFailedError ? error.culprit : -1;
    return { storeAnswer, failed: { culprit, message: (error as Error).message } };
  }
}

/** A store at the other end of a channel. */
export class ChannelStore implements Store {
  readonly #channel: Channel;
  readonly #waiting = new Map<number, (answer: Answer) => void>();
  #next = 0;

  constructor(channel: Channel) {
    this.#channel = channel;
    channel.listen((message) => {
      const answer = message as Answer;
      this.#waiting.get(answer?.storeAnswer)?.(answer);
      this.#waiting.delete(answer?.storeAnswer);
    });
  }

  async set(key: string, value: string): Promise<void> {
    await this.#ask(key, "set", value);
  }

  async get(key: string, options: { readonly timeoutMs?: number } = {}): Promise<string> {
    const { value } = await this.#ask(key, "get", undefined, options.timeoutMs);
    return String(value);
  }

  async add(key: string, amount: number): Promise<number> {
    return Number((await this.#ask(key, "add", amount)).value);
  }

  close(): void {}

  async #ask(
    key: string,
    call: Question["call"],
    value?: string | number,
    timeoutMs?: number,
  ): Promise<Answer> {
    const store = this.#next++;
    const { promise, resolve } = Promise.withResolvers<Answer>();
    this.#waiting.set(store, resolve);
    this.#channel.post({ store, call, key, value, timeoutMs } satisfies Question);
    const answer = await promise;
    const { timedOut, failed } = answer;
    if (timedOut !== undefined) throw new StoreTimeoutError(key, timedOut);
    if (failed !== undefined) throw new StoreFailedError(failed.culprit, failed.message);
    return answer;
  }
}
