// From the bytes of a log, as they come, to a view. Where they come from is the caller's: a file, a
// server.

import { JobView } from "./job-view.ts";
import type { LogLine } from "./log-lines.ts";

/** One log and what it makes. */
export class LogFeed {
  readonly view: JobView = new JobView();
  readonly #decoder = new TextDecoder();
  #bytes = 0;
  #rest = "";

  /** Bytes taken so far: where to go on. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Takes what comes next. */
  take(bytes: Uint8Array): void {
    this.#bytes += bytes.length;
    const lines = (this.#rest + this.#decoder.decode(bytes, { stream: true })).split("\n");
    this.#rest = lines.pop() as string;
    for (const line of lines) {
      if (line === "") continue;
      try {
        this.view.take(JSON.parse(line) as LogLine);
      } catch {
        // A line that a killed writer left half; the next one begins anew.
      }
    }
  }
}
