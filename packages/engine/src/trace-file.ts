// Writes a recorder's events as a Chrome trace. The file is opened when the engine starts, so that
// a path that cannot be written is known before hours of recording are lost.

import { closeSync, openSync, writeSync } from "node:fs";
import type { TraceRecorder } from "@open-infra/profile";
import { EngineOptionError } from "./errors.ts";

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
      for (const piece of recorder.text()) writeSync(this.#fd, piece);
    } finally {
      closeSync(this.#fd);
    }
  }
}
