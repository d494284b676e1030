// The scheduler's end of an executor that is reached through a channel, wherever it runs.

import type { Channel } from "../channel/channel.ts";
import type { Capacity, FromExecutor, ToExecutor } from "./protocol.ts";

/** The scheduler's end of one executor. */
export interface ExecutorHandle {
  readonly id: string;
  readonly capacity: Capacity;
  readonly pid: number;
  send(message: ToExecutor): void;
  onMessage(take: (message: FromExecutor) => void): void;
  /** Called once, when it is gone for good. */
  onExit(take: (reason: string) => void): void;
  /** Ends it, whatever it does. */
  kill(): void;
  /** Lets it end. */
  close(): Promise<void>;
  /** The last lines it wrote to its error stream, for the error that it did not come up. */
  stderrTail?(): string;
}

/** What is known of an executor's process, where the driver is its parent. */
export interface ProcessEnd {
  readonly pid: number;
  /** Resolves with the reason when the process is gone. */
  readonly exited: Promise<string>;
  kill(): void;
  stderrTail(): string;
}

/** Who an executor is. */
export interface ExecutorIdentity {
  readonly id: string;
  readonly capacity: Capacity;
  readonly pid: number;
  readonly host: string;
}

/** A process that was told to end and does not is killed after this. */
const closeGraceMs = 3_000;

/** The queue of what an executor is told. */
export function queueOf(id: string): string {
  return `to-${id}`;
}

/** See the head of this file. */
export class RemoteExecutor implements ExecutorHandle {
  readonly id: string;
  readonly capacity: Capacity;
  readonly pid: number;
  readonly host: string;
  readonly #channel: Channel;
  readonly #process: ProcessEnd | undefined;
  readonly #gone = Promise.withResolvers<string>();
  readonly #takers = new Set<(message: FromExecutor) => void>();
  #sent = 0;
  #over = false;

  constructor(channel: Channel, identity: ExecutorIdentity, process?: ProcessEnd) {
    this.id = identity.id;
    this.capacity = identity.capacity;
    this.pid = identity.pid;
    this.host = identity.host;
    this.#channel = channel;
    this.#process = process;
    process?.exited.then((reason) => this.end(reason));
  }

  /** It is gone, or told to go: what it says counts no more. */
  get over(): boolean {
    return this.#over;
  }

  send(message: ToExecutor): void {
    if (this.#over) return;
    // An executor that cannot be told anything is lost by its silence or its channel's.
    void this.#tell(message).catch((error: Error) => {
      if (!this.#over) this.end(error.message);
    });
  }

  onMessage(take: (message: FromExecutor) => void): void {
    this.#takers.add(take);
  }

  onExit(take: (reason: string) => void): void {
    void this.#gone.promise.then(take);
  }

  /** What the executor said. */
  hear(message: FromExecutor): void {
    if (this.#over) return;
    for (const take of this.#takers) take(message);
  }

  /** Without a process of ours, it is told to end and to come back as a new one. */
  kill(): void {
    if (this.#process !== undefined) this.#process.kill();
    else if (!this.#over) void this.#leave().catch(() => {});
    this.end("killed");
  }

  end(reason: string): void {
    if (this.#over) return;
    this.#over = true;
    this.#gone.resolve(reason);
    if (this.#process !== undefined) void this.#channel.drop(queueOf(this.id)).catch(() => {});
  }

  async close(): Promise<void> {
    if (this.#over) {
      await this.#process?.exited;
      return;
    }
    const told = this.#tell({ shutdown: true }).catch(() => {});
    if (this.#process === undefined) {
      await told;
      this.end("closed");
      return;
    }
    const timer = setTimeout(() => this.#process?.kill(), closeGraceMs);
    await this.#process.exited;
    clearTimeout(timer);
  }

  stderrTail(): string {
    return this.#process?.stderrTail() ?? "";
  }

  async #leave(): Promise<void> {
    await this.#channel.drop(queueOf(this.id));
    await this.#tell({ rejoin: true });
  }

  async #tell(message: ToExecutor): Promise<void> {
    await this.#channel.send(
      queueOf(this.id),
      `${this.id}-m${this.#sent++}`,
      JSON.stringify(message),
    );
  }
}
