// The page's side of the worker: opens one trace, tells how it goes, and asks for args later. One
// worker a trace, so that opening another, or leaving, simply ends it.

import type { TraceData } from "../timeline/trace-data.ts";
import type { FromWorker, LoadState, ToWorker, TraceSpec } from "./messages.ts";

export interface LoadedTrace {
  readonly data: TraceData;
  /** The trace as a file, to be saved; undefined for one that came by address. */
  readonly file: Blob | undefined;
}

export interface TraceWorkerHandlers {
  readonly onProgress: (state: LoadState) => void;
  readonly onLoaded: (trace: LoadedTrace) => void;
  /** `mendable`: opened tolerantly, some of it could be shown. */
  readonly onFailed: (message: string, mendable: boolean) => void;
}

/** A worker that opens one trace. */
export class TraceClient {
  readonly #worker: Worker;
  readonly #source: TraceSpec;
  readonly #handlers: TraceWorkerHandlers;
  readonly #waiting: Map<number, ((text: string | undefined) => void)[]> = new Map();

  constructor(source: TraceSpec, tolerant: boolean, handlers: TraceWorkerHandlers) {
    this.#source = source;
    this.#handlers = handlers;
    this.#worker = new Worker(new URL("./trace-worker.ts", import.meta.url), { type: "module" });
    this.#worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.#receive(data);
    this.#worker.onerror = (event) => {
      event.preventDefault();
      const unknown = "The code that reads traces cannot be loaded.";
      handlers.onFailed(event.message || unknown, false);
    };
    this.#worker.onmessageerror = () => {
      handlers.onFailed("The trace is too large to hand over.", false);
    };
    this.#send({ kind: "open", source, tolerant });
  }

  /** The JSON text of an event's args, if it has any. */
  args(event: number): Promise<string | undefined> {
    return new Promise((resolve) => {
      const waiting = this.#waiting.get(event);
      if (waiting !== undefined) waiting.push(resolve);
      else {
        this.#waiting.set(event, [resolve]);
        this.#send({ kind: "args", event });
      }
    });
  }

  dispose(): void {
    this.#worker.terminate();
  }

  #send(message: ToWorker): void {
    this.#worker.postMessage(message);
  }

  #receive(message: FromWorker): void {
    if (message.kind === "progress") this.#handlers.onProgress(message);
    else if (message.kind === "failed") {
      this.#handlers.onFailed(message.message, message.mendable);
    } else if (message.kind === "loaded") {
      const file = this.#source.kind === "file" ? this.#source.file : message.file;
      this.#handlers.onLoaded({ data: message.data, file });
    } else {
      for (const resolve of this.#waiting.get(message.event) ?? []) resolve(message.text);
      this.#waiting.delete(message.event);
    }
  }
}
