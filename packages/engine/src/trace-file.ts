// Writes a recorder's events as a Chrome trace. The file is opened when the engine starts, so that
// a path that cannot be written is known before hours of recording are lost.

import { closeSync, openSync, writeSync } from "node:fs";
import type { TraceRecorder } from "@open-infra/profile";
import { EngineOptionError } from "./errors.ts";

/** Events turned into text at once; a whole trace may be longer than a string can be. */
const EVENTS_PER_WRITE = 10_000;

export class TraceFile {
  readonly #fd: number;

  /** @throws EngineOptionError when the file cannot be created. */
  constructor(path: string) {
    try {
      this.#fd = openSync(path, "w");
    } catch (error) {
      const { message } = error as Error;
      throw new EngineOptionError("tracePath", `'${path}' (${message})`, "a file I can create");
    }
  }

  /** Writes everything recorded, and closes the file. */
  write(recorder: TraceRecorder): void {
    try {
      const { events } = recorder;
      writeSync(this.#fd, '{"displayTimeUnit":"ms","traceEvents":[\n');
      for (let at = 0; at < events.length; at += EVENTS_PER_WRITE) {
        const lines = events.slice(at, at + EVENTS_PER_WRITE).map((e) => JSON.stringify(e));
        writeSync(this.#fd, `${at === 0 ? "" : ",\n"}${lines.join(",\n")}`);
      }
      writeSync(this.#fd, `\n],"droppedEvents":${recorder.dropped}}\n`);
    } finally {
      closeSync(this.#fd);
    }
  }
}
