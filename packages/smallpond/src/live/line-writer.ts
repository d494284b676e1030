// Appends a job's lines to its log, many at a time.

import { appendFileSync, writeSync } from "node:fs";

const flushMs = 100;
const flushBytes = 1 << 16;

/** Appends lines to a file, many at a time: a write a task would cost more than some tasks. */
export class LineWriter {
  readonly #path: string;
  #text = "";
  #timer: NodeJS.Timeout | undefined;
  #failed = false;

  constructor(path: string) {
    this.#path = path;
  }

  add(value: unknown): void {
    if (this.#failed) return;
    this.#text += `${JSON.stringify(value)}\n`;
    if (this.#text.length > flushBytes) this.flush();
    else this.#timer ??= setTimeout(() => this.flush(), flushMs).unref();
  }

  /** Writes what there is. A log that cannot be written is said once and then done without. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const text = this.#text;
    this.#text = "";
    if (text === "" || this.#failed) return;
    try {
      appendFileSync(this.#path, text);
    } catch (error) {
      this.#failed = true;
      const message = error instanceof Error ? error.message : String(error);
      writeSync(2, `smallpond: no log from here on: ${message}\n`);
    }
  }
}
