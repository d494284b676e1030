// One request to the model, from sending to its end: its text as a signal that changes once a
// frame, its state, its measurements. Both modes of the page are built on it; where the text goes
// on the page is theirs.

import { type ReadonlySignal, type Signal, signal } from "@preact/signals";
import type { ApiClient, CompletionBody, CompletionPath } from "../../api/client.ts";
import { ApiError, isAbort } from "../../api/errors.ts";
import type { CompletionChunk, TokenUsage } from "../../api/wire.ts";
import { type Scheduler, TextBatcher } from "../../ui/frames.ts";
import { type GenerationMetrics, metricsOf } from "./metrics.ts";

export type GenerationState =
  /** Sent; no text yet. */
  | { readonly phase: "waiting" }
  | { readonly phase: "streaming" }
  /** `reason` is the server's: stop, length, … */
  | { readonly phase: "finished"; readonly reason: string }
  /** The user's own stop. */
  | { readonly phase: "stopped" }
  | { readonly phase: "failed"; readonly error: ApiError };

export interface GenerationOptions {
  readonly client: Pick<ApiClient, "complete">;
  readonly path: CompletionPath;
  /** Makes the body; what it fails with becomes the generation's own failure. */
  readonly body: (signal: AbortSignal) => CompletionBody | Promise<CompletionBody>;
  readonly schedule: Scheduler;
  /** Milliseconds of a steady clock. */
  readonly now: () => number;
}

/** A running or ended request; `stop` aborts it, which frees its place in the server's batch. */
export class Generation {
  readonly #text: Signal<string> = signal("");
  readonly #state: Signal<GenerationState> = signal({ phase: "waiting" });
  readonly #metrics: Signal<GenerationMetrics>;
  readonly #options: GenerationOptions;
  readonly #abort = new AbortController();
  readonly #batcher: TextBatcher;
  readonly #sentAt: number;
  #firstTextAt: number | null = null;
  #lastTextAt: number | null = null;
  #textChunks = 0;
  #usage: TokenUsage | undefined;
  #reason: string | undefined;
  /** Settles when the state is final; never rejects. */
  readonly ended: Promise<void>;

  constructor(options: GenerationOptions) {
    this.#options = options;
    this.#sentAt = options.now();
    this.#metrics = signal(this.#measure());
    this.#batcher = new TextBatcher(options.schedule, (text) => this.#show(text));
    this.ended = this.#run();
  }

  get text(): ReadonlySignal<string> {
    return this.#text;
  }

  get state(): ReadonlySignal<GenerationState> {
    return this.#state;
  }

  get metrics(): ReadonlySignal<GenerationMetrics> {
    return this.#metrics;
  }

  /** True until the state is final. */
  get running(): boolean {
    const { phase } = this.#state.value;
    return phase === "waiting" || phase === "streaming";
  }

  /** There is something to show numbers about: it runs, or it brought text. */
  get measured(): boolean {
    return this.running || this.#metrics.value.completionTokens > 0;
  }

  stop(): void {
    this.#abort.abort();
  }

  async #run(): Promise<void> {
    const { client, path } = this.#options;
    const { signal } = this.#abort;
    let end: GenerationState;
    try {
      const body = await this.#options.body(signal);
      for await (const chunk of client.complete(path, body, signal)) this.#take(chunk);
      end = { phase: "finished", reason: this.#reason ?? "unknown" };
    } catch (error) {
      end = isAbort(error) ? { phase: "stopped" } : { phase: "failed", error: asApiError(error) };
    }
    this.#batcher.flush();
    this.#metrics.value = this.#measure();
    this.#state.value = end;
  }

  #take(chunk: CompletionChunk): void {
    if (chunk.usage !== undefined) this.#usage = chunk.usage;
    if (chunk.finishReason !== undefined) this.#reason = chunk.finishReason;
    if (chunk.text === "") return;
    this.#lastTextAt = this.#options.now();
    this.#firstTextAt ??= this.#lastTextAt;
    this.#textChunks++;
    this.#batcher.push(chunk.text);
  }

  #show(text: string): void {
    this.#text.value += text;
    this.#metrics.value = this.#measure();
    if (this.#state.value.phase === "waiting") this.#state.value = { phase: "streaming" };
  }

  #measure(): GenerationMetrics {
    const times = {
      sentAt: this.#sentAt,
      firstTextAt: this.#firstTextAt,
      lastTextAt: this.#lastTextAt,
      textChunks: this.#textChunks,
    };
    return metricsOf(times, this.#usage);
  }
}

/** A fault of the app itself must show as well, not vanish in a promise. */
function asApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new ApiError(`The console failed: ${message}`, { kind: "failed", cause: error });
}
