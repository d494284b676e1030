// The trace that is open, kept while other pages are shown: how it came, how far it is, and the
// worker that answers for it.

import { type ReadonlySignal, type Signal, signal } from "@preact/signals";
import { TimelineState } from "./view/state.ts";
import { TraceClient } from "./worker/client.ts";
import type { LoadState, TraceSpec } from "./worker/messages.ts";

/** What the page shows. */
export type TracePhase =
  | { readonly kind: "empty" }
  | { readonly kind: "loading"; readonly title: string; readonly state: LoadState }
  | {
      readonly kind: "failed";
      readonly title: string;
      readonly message: string;
      /** What to open tolerantly, where that would show something. */
      readonly mendable: TraceSpec | undefined;
    }
  | {
      readonly kind: "open";
      readonly state: TimelineState;
      readonly client: TraceClient;
      /** Where to get the trace as a file. */
      readonly file: Blob | { readonly url: string };
      /** From the choice to the picture, without waiting for a person. */
      readonly loadMs: number;
    };

/** One open trace at most. */
export class TraceSession {
  readonly #phase: Signal<TracePhase> = signal({ kind: "empty" });
  #client: TraceClient | undefined;
  /** Address opened last, so that coming back to the page does not load it again. */
  #url: string | undefined;

  get phase(): ReadonlySignal<TracePhase> {
    return this.#phase;
  }

  /** Opens the trace at an address of this origin, unless it is the one that is open. */
  openUrl(url: string): void {
    if (url !== this.#url) this.open({ kind: "url", url });
  }

  /**
   * Opens a trace; the one before is let go. Tolerantly, what a damaged file has is shown, with a
   * note of what it lacks.
   */
  open(source: TraceSpec, { tolerant = false }: { readonly tolerant?: boolean } = {}): void {
    this.#client?.dispose();
    this.#url = source.kind === "url" ? source.url : undefined;
    const title = titleOf(source);
    const startedMs = performance.now();
    const waiting: LoadState = { phase: "reading", bytes: 0, totalBytes: 0 };
    this.#phase.value = { kind: "loading", title, state: waiting };
    const client = new TraceClient(source, tolerant, {
      onProgress: (state) => {
        this.#phase.value = { kind: "loading", title, state };
      },
      onLoaded: ({ data, file }) => {
        this.#phase.value = {
          kind: "open",
          state: new TimelineState(data),
          client,
          file: file ?? { url: source.kind === "url" ? source.url : "" },
          loadMs: performance.now() - startedMs,
        };
      },
      onFailed: (message, mendable) => {
        client.dispose();
        const again = mendable ? source : undefined;
        this.#phase.value = { kind: "failed", title, message, mendable: again };
      },
    });
    this.#client = client;
  }

  /** Back to the start. */
  close(): void {
    this.#client?.dispose();
    this.#client = undefined;
    this.#url = undefined;
    this.#phase.value = { kind: "empty" };
  }
}

function titleOf(source: TraceSpec): string {
  if (source.kind === "file") return source.file.name;
  return source.kind === "url" ? source.url : "the example";
}
