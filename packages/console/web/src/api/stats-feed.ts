// Keeps a connection to the statistics stream: reconnects with growing pauses, notices a stream
// that has gone silent, and says which of these is the case. Does not keep history and draws
// nothing.

import type { ApiClient } from "./client.ts";
import { ApiError } from "./errors.ts";
import type { StatsMessage } from "./wire.ts";

/** How the app and the server stand to each other. */
export type FeedState =
  | { readonly phase: "connecting" }
  | { readonly phase: "live" }
  /** The server answers, but not with statistics yet. */
  | { readonly phase: "loading"; readonly message: string }
  | { readonly phase: "unauthorized" }
  /** The server has no statistics to give; tried again only after `reconnect`. */
  | { readonly phase: "unsupported"; readonly message: string }
  | { readonly phase: "away"; readonly message: string; readonly retrySeconds: number };

export interface StatsFeedOptions {
  readonly client: Pick<ApiClient, "statsStream">;
  readonly onState: (state: FeedState) => void;
  readonly onMessage: (message: StatsMessage) => void;
  /** Pause after the first failure; doubled up to `retryMsMax`. @default 1000 */
  readonly retryMs?: number;
  /** @default 10000 */
  readonly retryMsMax?: number;
  /** A stream silent for this long counts as lost. @default 10000 */
  readonly silenceMs?: number;
}

/** A running connection; `close` ends it for good. */
export class StatsFeed implements Disposable {
  readonly #options: StatsFeedOptions;
  readonly #closed = new AbortController();
  /** Ends the present connection or pause. */
  #attempt = new AbortController();

  constructor(options: StatsFeedOptions) {
    this.#options = options;
    void this.#run();
  }

  /** Tries again at once, for example with another key. */
  reconnect(): void {
    this.#attempt.abort();
  }

  close(): void {
    this.#closed.abort();
    this.#attempt.abort();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  async #run(): Promise<void> {
    const retryMs = this.#options.retryMs ?? 1000;
    let pauseMs = retryMs;
    this.#options.onState({ phase: "connecting" });
    while (!this.#closed.signal.aborted) {
      this.#attempt = new AbortController();
      const { signal } = this.#attempt;
      const { error, messages } = await this.#listen();
      if (this.#closed.signal.aborted) return;
      if (messages > 0 || signal.aborted) pauseMs = retryMs;
      if (signal.aborted && error === undefined) continue;
      const state = stateOf(error, pauseMs / 1000);
      this.#options.onState(state);
      const waiting = state.phase === "unauthorized" || state.phase === "unsupported";
      // `reconnect` ends the pause through the same signal that it ends a connection with.
      if (!signal.aborted) await pause(waiting ? undefined : pauseMs, signal);
      pauseMs =
        state.phase === "loading"
          ? retryMs
          : Math.min(pauseMs * 2, this.#options.retryMsMax ?? 10_000);
    }
  }

  /** One connection, to its end; `error` is undefined when `reconnect` or `close` ended it. */
  async #listen(): Promise<{ readonly error: unknown; readonly messages: number }> {
    const silence = new AbortController();
    const signal = AbortSignal.any([this.#attempt.signal, silence.signal]);
    const silenceMs = this.#options.silenceMs ?? 10_000;
    let watchdog = setTimeout(() => silence.abort(), silenceMs);
    let messages = 0;
    try {
      for await (const message of this.#options.client.statsStream(signal)) {
        clearTimeout(watchdog);
        watchdog = setTimeout(() => silence.abort(), silenceMs);
        if (messages++ === 0) this.#options.onState({ phase: "live" });
        this.#options.onMessage(message);
      }
      return { error: new ApiError("The server closed the connection.", closed), messages };
    } catch (error) {
      if (silence.signal.aborted) {
        return { error: new ApiError("The server has gone silent.", closed), messages };
      }
      return { error: this.#attempt.signal.aborted ? undefined : error, messages };
    } finally {
      clearTimeout(watchdog);
    }
  }
}

const closed = { kind: "interrupted" } as const;

function stateOf(error: unknown, retrySeconds: number): FeedState {
  const message = error instanceof Error ? error.message : String(error);
  if (!(error instanceof ApiError)) return { phase: "away", message, retrySeconds };
  if (error.kind === "unavailable") return { phase: "loading", message };
  if (error.kind === "unauthorized") return { phase: "unauthorized" };
  if (error.kind === "rejected") return { phase: "unsupported", message };
  return { phase: "away", message, retrySeconds };
}

/** Waits `ms` (for ever when undefined), or until the signal aborts. */
function pause(ms: number | undefined, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = ms === undefined ? undefined : setTimeout(resolve, ms);
    signal.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });
}
