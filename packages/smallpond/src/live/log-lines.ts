// What a job writes down of itself, one JSON object a line of `log/events.jsonl`: enough for a person
// to watch it from another process, and to look at it when it is over. Only ever appended to, so that
// a reader may follow it; a killed job's log lacks its last tenth of a second at most.

import { appendFileSync, writeSync } from "node:fs";

/** A step of a plan, for people. */
export interface StepLine {
  /** As tasks name it: `partition#3`. */
  readonly node: string;
  readonly kind: string;
  /** What it does: a query, a function's name. */
  readonly text: string;
  /** Steps it reads. */
  readonly inputs: readonly string[];
  /** `file:line` of the user's call. */
  readonly source: string;
  /** Tasks of it in this action. */
  readonly tasks: number;
}

/** A line. */
export type LogLine = { readonly atMs: number } & (
  | {
      readonly type: "job";
      readonly state: "running" | "ended";
      readonly jobId: string;
      readonly pid: number;
      readonly host: string;
    }
  /** An action begins: the steps it needs. */
  | { readonly type: "action"; readonly steps: readonly StepLine[] }
  | {
      readonly type: "task";
      /** As in TaskEvent. */
      readonly event: string;
      readonly key: string;
      readonly node: string;
      readonly attempt: number;
      readonly executor?: string;
      readonly elapsedMs?: number;
      readonly rows?: number;
      readonly bytes?: number;
      readonly maxRssBytes?: number;
      readonly cpuMs?: number;
      readonly error?: string;
    }
  | {
      readonly type: "executor";
      /** As in ExecutorEvent. */
      readonly event: string;
      readonly executor: string;
      readonly reason?: string;
    }
);

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
