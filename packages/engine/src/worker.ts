// The thread that computes. It owns the device, the model, the cache and the tokenizer, steps the
// engine back to back while there is work, and looks at its messages between steps. Without work
// it waits for a message and takes no time.

import { parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import { type SerializedError, serializeError } from "@open-infra/errors";
import { TraceRecorder } from "@open-infra/profile";
import { type OpenedEngine, openEngine } from "./open.ts";
import type { FromWorker, ToWorker, WorkerOutput, WorkerStart } from "./protocol.ts";
import { TraceFile } from "./trace-file.ts";

if (parentPort === null) throw new Error("worker.ts runs as a worker thread only");
const port = parentPort;
const { options } = workerData as WorkerStart;

const post = (message: FromWorker): void => port.postMessage(message);

interface Trace {
  readonly recorder: TraceRecorder;
  readonly file: TraceFile;
}

function fatal(error: unknown): void {
  post({ type: "fatal", error: serializeError(error) });
  port.close();
}

class Loop {
  readonly #engine: OpenedEngine;
  readonly #trace: Trace | undefined;
  #scheduled = false;
  #closed = false;

  constructor(engine: OpenedEngine, trace: Trace | undefined) {
    this.#engine = engine;
    this.#trace = trace;
  }

  /** Takes one message, and makes sure that a step follows if there is work. */
  handle(message: ToWorker): void {
    this.#take(message);
    this.#schedule();
  }

  #take(message: ToWorker): void {
    const { core } = this.#engine;
    if (message.type === "close") {
      this.#close();
      return;
    }
    if (message.type === "abort") {
      for (const key of message.keys) core.abort(key);
      return;
    }
    try {
      core.add(message.key, message.request, message.arrivalMs);
    } catch (error) {
      const refused = { key: message.key, events: [], error: serializeError(error) };
      post({ type: "outputs", outputs: [refused] });
    }
  }

  #schedule(): void {
    if (this.#scheduled || this.#closed || !this.#engine.core.hasWork) return;
    this.#scheduled = true;
    setImmediate(() => this.#tick());
  }

  #tick(): void {
    this.#scheduled = false;
    for (let m = receiveMessageOnPort(port); m !== undefined; m = receiveMessageOnPort(port)) {
      this.#take(m.message as ToWorker);
    }
    if (this.#closed) return;
    try {
      this.#step();
    } catch (error) {
      this.#closed = true;
      this.#writeTrace();
      fatal(error);
      this.#engine[Symbol.dispose]();
      return;
    }
    this.#schedule();
  }

  #step(): void {
    const outputs = this.#engine.core.step();
    if (outputs.length === 0) return;
    post({
      type: "outputs",
      outputs: outputs.map(({ key, events, error }): WorkerOutput => {
        return error === undefined
          ? { key, events }
          : { key, events, error: serializeError(error) };
      }),
    });
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const { core } = this.#engine;
    core.abortAll();
    // Nothing is left to compute, so this only takes the last events.
    this.#step();
    const error = this.#writeTrace();
    this.#engine[Symbol.dispose]();
    post(error === undefined ? { type: "closed" } : { type: "closed", error });
    port.close();
  }

  #writeTrace(): SerializedError | undefined {
    try {
      this.#trace?.file.write(this.#trace.recorder);
      return undefined;
    } catch (error) {
      return serializeError(error);
    }
  }
}

async function start(): Promise<void> {
  const trace =
    options.tracePath === undefined
      ? undefined
      : {
          recorder: new TraceRecorder({ processName: "open-infra engine" }),
          file: new TraceFile(options.tracePath),
        };
  const engine = await openEngine(options, {
    onProgress: (phase, done, total) => post({ type: "progress", phase, done, total }),
    onLog: (line) => post({ type: "log", line }),
    ...(trace && { recorder: trace.recorder }),
  });
  const loop = new Loop(engine, trace);
  port.on("message", (message: ToWorker) => loop.handle(message));
  post({ type: "ready", model: engine.info, stats: engine.core.board.buffer });
}

start().catch(fatal);
