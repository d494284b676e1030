// A child's end of the channel over pipes.

import { ChannelError } from "../errors.ts";
import {
  type Channel,
  type ConsumeOptions,
  type Consumer,
  type Delivery,
  SeenIds,
} from "./channel.ts";
import { awakeMs, type Frame, isFrame } from "./ipc-frames.ts";

/** The side of `process` that has a pipe to a parent. */
export interface Pipe {
  readonly connected: boolean;
  send?(message: unknown, sent?: (error: Error | null) => void): boolean;
  on(event: "message", take: (message: unknown) => void): unknown;
  off(event: "message", take: (message: unknown) => void): unknown;
}

/** See the head of this file. */
export class IpcChild implements Channel {
  readonly name = "ipc";
  readonly #pipe: Pipe;
  readonly #consumers = new Map<number, (delivery: Delivery) => void>();
  readonly #watchers = new Set<(from: string, body: string) => void>();
  readonly #inHand = new Set<string>();
  readonly #seen = new SeenIds();
  readonly #timer: NodeJS.Timeout;
  readonly #listen = (message: unknown): void => {
    if (isFrame(message)) this.#take(message);
  };
  #serial = 0;

  /** @throws ChannelError if the process was not started with a pipe */
  constructor(pipe: Pipe = process as Pipe) {
    if (pipe.send === undefined) {
      throw new ChannelError("unreachable", "ipc", "this process has no pipe to its parent");
    }
    this.#pipe = pipe;
    pipe.on("message", this.#listen);
    this.#timer = setInterval(() => {
      if (this.#consumers.size > 0) void this.#tell({ op: "awake" }).catch(() => {});
    }, awakeMs);
    this.#timer.unref();
  }

  get trouble(): string | undefined {
    return this.#pipe.connected ? undefined : "the parent process is gone";
  }

  async send(queue: string, id: string, body: string): Promise<void> {
    await this.#tell({ op: "send", queue, id, body });
  }

  async consume(
    queue: string,
    take: (delivery: Delivery) => void,
    { inFlight = 256, leaseMs = 30_000 }: ConsumeOptions = {},
  ): Promise<Consumer> {
    const consumer = this.#serial++;
    this.#consumers.set(consumer, take);
    await this.#tell({ op: "consume", consumer, queue, inFlight, leaseMs });
    return {
      close: async () => {
        if (this.#consumers.delete(consumer) && this.#pipe.connected) {
          await this.#tell({ op: "cancel", consumer });
        }
      },
    };
  }

  beat(from: string, body: string): void {
    void this.#tell({ op: "beat", from, body }).catch(() => {});
  }

  async watch(take: (from: string, body: string) => void): Promise<Consumer> {
    this.#watchers.add(take);
    await this.#tell({ op: "watch" });
    return { close: async () => void this.#watchers.delete(take) };
  }

  async drop(queue: string): Promise<void> {
    await this.#tell({ op: "drop", queue });
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    for (const consumer of this.#consumers.keys()) {
      if (this.#pipe.connected) await this.#tell({ op: "cancel", consumer }).catch(() => {});
    }
    this.#consumers.clear();
    this.#pipe.off("message", this.#listen);
  }

  #take(frame: Frame): void {
    if (frame.op === "beat") {
      for (const watcher of this.#watchers) watcher(frame.from, frame.body);
      return;
    }
    if (frame.op !== "deliver") return;
    const { consumer, id, body, redelivered } = frame;
    const ack = async (): Promise<void> => {
      this.#inHand.delete(id);
      this.#seen.add(id);
      await this.#tell({ op: "ack", consumer, id });
    };
    // It was silent, and is given again what it is done with or still has.
    if (this.#seen.has(id)) void ack().catch(() => {});
    if (this.#seen.has(id) || this.#inHand.has(id)) return;
    this.#inHand.add(id);
    this.#consumers.get(consumer)?.({ id, body, redelivered, ack });
  }

  #tell(frame: Frame): Promise<void> {
    return new Promise((resolve, reject) => {
      const sent = (error: Error | null): void => {
        if (error === null) resolve();
        else reject(new ChannelError("closed", "ipc", error.message, { cause: error }));
      };
      if (this.#pipe.connected) this.#pipe.send?.(frame, sent);
      else sent(new Error("the parent process is gone"));
    });
  }
}
