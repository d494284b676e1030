// Reads a job's log into a view, once or as it grows. The job may run in another process, on
// another host of the shared file system, or be over.

import { open } from "node:fs/promises";
import { join } from "node:path";
import { JobView } from "./job-view.ts";
import type { LogLine } from "./log-lines.ts";

const chunkBytes = 1 << 20;

/** Follows one job. */
export class JobFollower {
  readonly view: JobView = new JobView();
  readonly root: string;
  #at = 0;
  #rest = "";
  readonly #decoder = new TextDecoder();
  #turn: Promise<unknown> = Promise.resolve();

  /** @param root The job's folder. */
  constructor(root: string) {
    this.root = root;
  }

  /** Takes what was written since; false if there was nothing, or no log yet. */
  async read(): Promise<boolean> {
    // One at a time: two side by side would take the same lines twice.
    const read = this.#turn.then(async () => await this.#readOn());
    this.#turn = read.catch(() => {});
    return await read;
  }

  async #readOn(): Promise<boolean> {
    const file = await open(join(this.root, "log", "events.jsonl")).catch(() => undefined);
    if (file === undefined) return false;
    let got = false;
    try {
      const buffer = new Uint8Array(chunkBytes);
      for (;;) {
        const { bytesRead } = await file.read(buffer, 0, chunkBytes, this.#at);
        if (bytesRead === 0) return got;
        got = true;
        this.#at += bytesRead;
        this.#feed(this.#decoder.decode(buffer.subarray(0, bytesRead), { stream: true }));
      }
    } finally {
      await file.close();
    }
  }

  #feed(text: string): void {
    const lines = (this.#rest + text).split("\n");
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
