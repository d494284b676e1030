// Tokenising without holding up the event loop: short texts here, long ones in a worker thread that
// is started when the first one comes, and token lists decoded in slices. Texts that no context
// could hold are refused before they are looked at.

import { Worker } from "node:worker_threads";
import type { Tokenizer } from "@open-infra/model";
import type { EncodeJob, EncodeResult, EncodeWorkerData } from "./encode-worker.ts";
import { ApiError } from "./errors.ts";

/** Tokens decoded between two looks at the event loop. */
const DECODE_SLICE = 4096;
/**
 * A token covers at most the vocabulary's longest entry in bytes, but a normaliser may shrink a
 * text before it is cut into tokens (ẹ + ̂ becomes ệ, Ａ becomes A: a third of the bytes). With four
 * times as many bytes a text is too long under any of them.
 */
const NORMALISER_MARGIN = 4;

export interface EncoderOptions {
  readonly tokenizer: Tokenizer;
  /** The model folder, for the worker's own tokenizer. */
  readonly dir: string;
  /** Longer texts go to the worker. */
  readonly inlineChars: number;
}

interface Pending {
  readonly job: EncodeJob;
  readonly signal: AbortSignal;
  readonly resolve: (ids: number[]) => void;
  readonly reject: (error: unknown) => void;
}

export class Encoder {
  readonly tokenizer: Tokenizer;
  readonly #dir: string;
  readonly #inlineChars: number;
  readonly #longestTokenBytes: number;
  readonly #queue: Pending[] = [];
  #worker: Worker | undefined;
  #running: Pending | undefined;
  #closed = false;

  constructor(options: EncoderOptions) {
    this.tokenizer = options.tokenizer;
    this.#dir = options.dir;
    this.#inlineChars = options.inlineChars;
    // Takes a while for large vocabularies; now nobody waits for an answer.
    this.#longestTokenBytes = longestTokenBytes(options.tokenizer);
  }

  /** The number of tokens that a text has at least, whatever it says. */
  leastTokens(text: string): number {
    return Math.ceil(Buffer.byteLength(text) / (this.#longestTokenBytes * NORMALISER_MARGIN));
  }

  async encode(
    text: string,
    options: { readonly addSpecialTokens: boolean; readonly signal: AbortSignal },
  ): Promise<number[]> {
    const { addSpecialTokens, signal } = options;
    if (text.length <= this.#inlineChars) return this.tokenizer.encode(text, { addSpecialTokens });
    signal.throwIfAborted();
    return await new Promise((resolve, reject) => {
      this.#queue.push({ job: { text, addSpecialTokens }, signal, resolve, reject });
      this.#next();
    });
  }

  /** The text of a token list; special tokens are part of it. */
  async decode(ids: readonly number[]): Promise<string> {
    const detokenizer = this.tokenizer.createDetokenizer({ skipSpecialTokens: false });
    const parts: string[] = [];
    for (let i = 0; i < ids.length; i++) {
      parts.push(detokenizer.push(ids[i] as number));
      if (i % DECODE_SLICE === DECODE_SLICE - 1) await new Promise(setImmediate);
    }
    parts.push(detokenizer.flush());
    return parts.join("");
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#fail(new ApiError(503, "the server is shutting down", { code: "shutting_down" }));
    await this.#worker?.terminate();
  }

  #next(): void {
    while (this.#running === undefined) {
      const pending = this.#queue.shift();
      if (pending === undefined) return;
      // Whoever has left meanwhile costs nothing.
      if (pending.signal.aborted) pending.reject(pending.signal.reason);
      else if (this.#closed) pending.reject(new Error("the tokenizer's thread is closed"));
      else this.#start(pending);
    }
  }

  #start(pending: Pending): void {
    this.#running = pending;
    this.#worker ??= this.#spawn();
    this.#worker.ref();
    this.#worker.postMessage(pending.job);
  }

  #spawn(): Worker {
    // From source the worker is TypeScript too, and finds the other packages' sources.
    const fromSource = import.meta.url.endsWith(".ts");
    const file = fromSource ? "./encode-worker.ts" : "./encode-worker.js";
    const workerData: EncodeWorkerData = { dir: this.#dir };
    const worker = new Worker(new URL(file, import.meta.url), {
      name: "open-infra-tokenizer",
      workerData,
      execArgv: fromSource ? ["--conditions=@open-infra/source"] : [],
    });
    worker.on("message", (result: EncodeResult) => this.#settle(worker, result));
    worker.on("error", (error: Error) => this.#lose(worker, error));
    worker.on("exit", (code) =>
      this.#lose(worker, new Error(`the tokenizer's thread ended with code ${code}`)),
    );
    return worker;
  }

  #settle(worker: Worker, result: EncodeResult): void {
    const pending = this.#running;
    this.#running = undefined;
    // An idle thread must not keep the process alive.
    worker.unref();
    if ("ids" in result) pending?.resolve(Array.from(result.ids));
    else pending?.reject(new Error(`the text cannot be tokenised: ${result.message}`));
    this.#next();
  }

  /** The thread is gone; the next long text starts another. */
  #lose(worker: Worker, error: Error): void {
    if (this.#worker !== worker) return;
    this.#worker = undefined;
    this.#fail(error);
  }

  #fail(error: Error): void {
    const lost = this.#running;
    this.#running = undefined;
    lost?.reject(error);
    for (const pending of this.#queue.splice(0)) pending.reject(error);
  }
}

function longestTokenBytes(tokenizer: Tokenizer): number {
  let longest = 1;
  for (let id = 0; id < tokenizer.vocabSize; id++) {
    longest = Math.max(longest, tokenizer.tokenBytes(id).length);
  }
  return longest;
}
