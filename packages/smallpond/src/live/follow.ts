// Reads a job's log into a view, once or as it grows. The job may run in another process, on
// another host of the shared file system, or be over.

import { open } from "node:fs/promises";
import { join } from "node:path";
import type { JobView } from "./job-view.ts";
import { LogFeed } from "./log-feed.ts";

const chunkBytes = 1 << 20;

/** Follows one job. */
export class JobFollower {
  readonly root: string;
  readonly #feed = new LogFeed();
  #turn: Promise<unknown> = Promise.resolve();

  /** @param root The job's folder. */
  constructor(root: string) {
    this.root = root;
  }

  get view(): JobView {
    return this.#feed.view;
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
        const { bytesRead } = await file.read(buffer, 0, chunkBytes, this.#feed.bytes);
        if (bytesRead === 0) return got;
        got = true;
        this.#feed.take(buffer.subarray(0, bytesRead));
      }
    } finally {
      await file.close();
    }
  }
}
