// Takes messages out of a queue's folder: by renaming them into a folder of its own, which is its
// proof and, should it end, the place where others find what it had. Part of the files channel.

import { mkdir, readdir, readFile, rename, rm, rmdir, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Consumer, type Delivery, SeenIds } from "./channel.ts";

/** What one consumer works with. */
export interface FileConsumerOptions {
  /** The queue's. */
  readonly folder: string;
  /** Unique among all that ever consumed it. */
  readonly name: string;
  readonly take: (delivery: Delivery) => void;
  readonly inFlight: number;
  readonly leaseMs: number;
  readonly pollMs: number;
  readonly onTrouble: (trouble: string | undefined) => void;
}

const busyPollMs = 2;
/** Its beat lies in its folder under this name; no message has it. */
const lifeFile = "alive";

interface Life {
  content: string;
  changedMs: number;
}

/** See the head of this file. */
export class FileConsumer implements Consumer {
  readonly #options: FileConsumerOptions;
  readonly #own: string;
  readonly #inHand = new Set<string>();
  readonly #seen = new SeenIds();
  readonly #lives = new Map<string, Life>();
  #beat: NodeJS.Timeout | undefined;
  #beats = 0;
  #open = true;
  #loop: Promise<void> = Promise.resolve();
  #wake: AbortController = new AbortController();

  constructor(options: FileConsumerOptions) {
    this.#options = options;
    this.#own = join(options.folder, "taken", options.name);
  }

  async start(): Promise<void> {
    await mkdir(this.#own, { recursive: true, mode: 0o700 });
    await this.#live();
    const everyMs = Math.max(20, Math.min(2000, this.#options.leaseMs / 4));
    this.#beat = setInterval(() => {
      void this.#live();
      void this.#takeOver();
    }, everyMs);
    this.#beat.unref();
    this.#loop = this.#run();
  }

  async close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    clearInterval(this.#beat);
    this.#wake.abort();
    await this.#loop;
    for (const name of this.#inHand) await this.#move(this.#own, name);
    this.#inHand.clear();
    await rm(this.#own, { recursive: true, force: true });
  }

  async #run(): Promise<void> {
    let pauseMs = busyPollMs;
    while (this.#open) {
      const took = await this.#look();
      pauseMs = took ? busyPollMs : Math.min(this.#options.pollMs, pauseMs * 1.25);
      if (!this.#open) return;
      await sleep(pauseMs, undefined, { signal: this.#wake.signal, ref: false }).catch(() => {});
    }
  }

  /** Takes what there is room for; true if it took anything. */
  async #look(): Promise<boolean> {
    const { folder, inFlight, onTrouble } = this.#options;
    let names: string[];
    try {
      names = await readdir(join(folder, "new"));
      onTrouble(undefined);
    } catch (error) {
      // A queue that was dropped is empty; anything else may pass.
      const missing = (error as NodeJS.ErrnoException).code === "ENOENT";
      onTrouble(missing ? undefined : String(error));
      return false;
    }
    let took = false;
    for (const name of names.sort()) {
      if (!this.#open || this.#inHand.size >= inFlight) break;
      if (await this.#claim(name)) took = true;
    }
    return took;
  }

  async #claim(name: string): Promise<boolean> {
    const { folder, take } = this.#options;
    const path = join(this.#own, name);
    try {
      await rename(join(folder, "new", name), path);
    } catch {
      // Another was first, unless an NFS server answered a repeated request: then it is here.
      const own: string[] = await readdir(this.#own).catch(() => []);
      if (!own.includes(name) || this.#inHand.has(name)) return false;
    }
    const body = await readFile(path, "utf8").catch(() => undefined);
    if (body === undefined) return false;
    const [, , , marked = ""] = name.split(".");
    const redelivered = name.endsWith(".again");
    if (this.#seen.has(marked)) {
      await unlink(path).catch(() => {});
      return true;
    }
    this.#inHand.add(name);
    const ack = async (): Promise<void> => {
      if (!this.#inHand.delete(name)) return;
      this.#seen.add(marked);
      await unlink(path).catch(() => {});
    };
    take({ id: marked, body, redelivered, ack });
    return true;
  }

  async #live(): Promise<void> {
    const aside = join(this.#own, `.${lifeFile}`);
    try {
      // Whoever took this one for gone has removed it.
      await mkdir(this.#own, { recursive: true, mode: 0o700 });
      await writeFile(aside, String(this.#beats++), { mode: 0o600 });
      await rename(aside, join(this.#own, lifeFile));
    } catch {
      // Tried again with the next beat.
    }
  }

  /** Puts back what consumers have in hand whose beat has stood still for the lease. */
  async #takeOver(): Promise<void> {
    const taken = join(this.#options.folder, "taken");
    for (const other of await readdir(taken).catch(() => [])) {
      if (other === this.#options.name || !this.#open) continue;
      const folder = join(taken, other);
      const content = await readFile(join(folder, lifeFile), "utf8").catch(() => "");
      const life = this.#lives.get(other);
      const nowMs = performance.now();
      if (life === undefined || life.content !== content) {
        this.#lives.set(other, { content, changedMs: nowMs });
        continue;
      }
      if (nowMs - life.changedMs < this.#options.leaseMs) continue;
      for (const name of await readdir(folder).catch(() => [])) {
        if (!name.includes(lifeFile)) await this.#move(folder, name);
      }
      await rm(join(folder, lifeFile), { force: true });
      // It goes only if it is empty; whoever is alive after all keeps its own.
      await rmdir(folder).catch(() => {});
    }
  }

  /** Back into the queue, at the place that its name gives it. */
  async #move(from: string, name: string): Promise<void> {
    const again = name.endsWith(".again") ? name : `${name}.again`;
    await rename(join(from, name), join(this.#options.folder, "new", again)).catch(() => {});
  }
}
