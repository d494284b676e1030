// The channel over a shared file system, with no server: a message is a file that is renamed into
// a queue's folder whole and out of it by whoever takes it. A rename succeeds for one process
// only, so nothing needs locks; folders are listed again and again rather than asked for single
// files, whose absence NFS remembers; and who is alive is told by beats whose content changes,
// never by the clocks of two machines.
//
//   queues/<queue>/new/<time>.<serial>.<sender>.<id>   waiting, in the order of their names
//   queues/<queue>/taken/<consumer>/<the same name>    in hand; the file goes when acknowledged
//   beats/<process>                                    latest beat, replaced as a whole

import { randomBytes } from "node:crypto";
import { mkdir, open, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { InputError } from "@open-infra/errors";
import { ChannelError } from "../errors.ts";
import type { Channel, ConsumeOptions, Consumer, Delivery } from "./channel.ts";
import { plainName } from "./channel.ts";
import { FileConsumer } from "./file-consumer.ts";

/** How a files channel works. */
export interface FilesOptions {
  /** Messages reach the disk before `send` resolves: for file servers that may lose power. */
  readonly durable?: boolean;
  /** Longest pause between two looks at a quiet queue; a busy one is looked at every 2 ms. */
  readonly pollMs?: number;
}

const watchMs = 200;

/** See the head of this file. */
export class FilesChannel implements Channel {
  readonly name: string;
  trouble: string | undefined;
  readonly #root: string;
  readonly #options: FilesOptions;
  /** This process, in names of files. */
  readonly #self = randomBytes(6).toString("hex");
  readonly #consumers = new Set<Consumer>();
  readonly #known = new Map<string, Promise<unknown>>();
  readonly #sending = new Map<string, Promise<void>>();
  readonly #ownBeats = new Set<string>();
  readonly #beating = new Map<string, string>();
  #flushing: Promise<void> | undefined;
  #lastMs = 0;
  #serial = 0;
  #open = true;

  /** @param root A folder of the job, on a file system that all its processes share. */
  constructor(root: string, options: FilesOptions = {}) {
    this.name = `files:${root}`;
    this.#root = root;
    this.#options = options;
  }

  async send(queue: string, id: string, body: string): Promise<void> {
    if (!this.#open) throw new ChannelError("closed", this.name, "the channel was closed");
    expectPlain("queue", queue);
    expectPlain("id", id);
    // Not Date.now() alone: a clock may be set back, and names give the order.
    this.#lastMs = Math.max(this.#lastMs, Date.now());
    const serial = String(this.#serial++).padStart(9, "0");
    const name = `${this.#lastMs}.${serial}.${this.#self}.${id}`;
    const earlier = this.#sending.get(queue) ?? Promise.resolve();
    // One after another, so that nobody sees a later one and not an earlier one.
    const sent = earlier.then(() => this.#put(queue, name, body));
    const settled = sent.catch(() => {});
    this.#sending.set(queue, settled);
    await sent;
  }

  async consume(
    queue: string,
    take: (delivery: Delivery) => void,
    { inFlight = 256, leaseMs = 30_000 }: ConsumeOptions = {},
  ): Promise<Consumer> {
    expectPlain("queue", queue);
    await this.#prepare(queue);
    const consumer = new FileConsumer({
      folder: this.#queue(queue),
      name: `${this.#self}-${this.#serial++}`,
      take,
      inFlight,
      leaseMs,
      pollMs: this.#options.pollMs ?? 50,
      onTrouble: (trouble) => {
        this.trouble = trouble;
      },
    });
    await consumer.start();
    this.#consumers.add(consumer);
    return consumer;
  }

  beat(from: string, body: string): void {
    expectPlain("from", from);
    this.#beating.set(from, body);
    this.#flushing ??= this.#flushBeats().finally(() => {
      this.#flushing = undefined;
    });
  }

  async watch(take: (from: string, body: string) => void): Promise<Consumer> {
    const folder = join(this.#root, "beats");
    await mkdir(folder, { recursive: true, mode: 0o700 });
    let watching = true;
    const seen = new Map<string, string>();
    const look = async (): Promise<void> => {
      while (watching) {
        for (const from of await readdir(folder).catch(() => [])) {
          if (!plainName.test(from) || this.#ownBeats.has(from)) continue;
          const text = await readFile(join(folder, from), "utf8").catch(() => undefined);
          // Each beat has a number of its own, so that equal ones are told apart.
          if (text === undefined || seen.get(from) === text || !watching) continue;
          seen.set(from, text);
          take(from, text.slice(text.indexOf("\n") + 1));
        }
        await sleep(watchMs, undefined, { ref: false });
      }
    };
    void look();
    const consumer = {
      close: async () => {
        watching = false;
        this.#consumers.delete(consumer);
      },
    };
    this.#consumers.add(consumer);
    return consumer;
  }

  async drop(queue: string): Promise<void> {
    await rm(this.#queue(queue), { recursive: true, force: true });
    this.#known.delete(queue);
  }

  async close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await Promise.all(this.#sending.values());
    await Promise.all([...this.#consumers].map((consumer) => consumer.close()));
    await this.#flushing;
    for (const from of this.#ownBeats) {
      await rm(join(this.#root, "beats", from), { force: true });
    }
  }

  #queue(name: string): string {
    return join(this.#root, "queues", name);
  }

  #prepare(queue: string): Promise<void> {
    let known = this.#known.get(queue);
    if (known === undefined) {
      const folder = this.#queue(queue);
      const make = (name: string): Promise<unknown> =>
        mkdir(join(folder, name), { recursive: true, mode: 0o700 });
      known = Promise.all([make("new"), make("taken"), make("aside")]);
      this.#known.set(queue, known);
    }
    return known.then(() => {});
  }

  async #put(queue: string, name: string, body: string): Promise<void> {
    const folder = this.#queue(queue);
    const aside = join(folder, "aside", name);
    try {
      await this.#prepare(queue);
      // Another process may have dropped the queue since.
      await this.#write(aside, body).catch(async (error: NodeJS.ErrnoException) => {
        if (error.code !== "ENOENT") throw error;
        this.#known.delete(queue);
        await this.#prepare(queue);
        await this.#write(aside, body);
      });
      await rename(aside, join(folder, "new", name));
      if (this.#options.durable) await syncFolder(join(folder, "new"));
    } catch (error) {
      throw new ChannelError("unreachable", this.name, String(error), { cause: error });
    }
  }

  async #write(path: string, body: string): Promise<void> {
    if (!this.#options.durable) return await writeFile(path, body, { mode: 0o600 });
    const file = await open(path, "w", 0o600);
    try {
      await file.writeFile(body);
      await file.sync();
    } finally {
      await file.close();
    }
  }

  async #flushBeats(): Promise<void> {
    const folder = join(this.#root, "beats");
    await mkdir(folder, { recursive: true, mode: 0o700 }).catch(() => {});
    for (;;) {
      const next = this.#beating.entries().next().value;
      if (next === undefined) return;
      const [from, body] = next;
      this.#beating.delete(from);
      this.#ownBeats.add(from);
      const aside = join(folder, `.${from}.${this.#self}`);
      try {
        await writeFile(aside, `${this.#self}.${this.#serial++}\n${body}`, { mode: 0o600 });
        await rename(aside, join(folder, from));
        this.trouble = undefined;
      } catch (error) {
        this.trouble = String(error);
      }
    }
  }
}

function expectPlain(what: string, name: string): void {
  if (!plainName.test(name)) throw new InputError(what, name, "letters, digits, '_', '+' and '-'");
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
