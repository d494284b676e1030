// Ranks as threads of one process. A message's bytes go once into shared memory, and its
// description through a port whose queue the receiver can read at any moment, in the middle of a
// computation too; a word of shared memory rings the receiver when it sleeps.

import { MessageChannel, type MessagePort, receiveMessageOnPort } from "node:worker_threads";
import type { Tensor } from "@open-infra/tensor";
import { ControlBlock } from "./control-block.ts";
import { PipelineAbortedError, WaitTimeoutError } from "./errors.ts";
import { Mailbox } from "./mailbox.ts";
import { type PackedMessage, SharedBufferPool, unpackMessage } from "./shared-buffers.ts";
import {
  describeKey,
  type Message,
  type Receive,
  sendWindow,
  type Transport,
} from "./transport.ts";

interface Envelope extends PackedMessage {
  readonly key: number;
}

/** What a thread makes its end from: given to it as `workerData`, with `portsOf` transferred. */
export interface WorkerSeat {
  readonly rank: number;
  /** `ports[r]` leads to rank `r`; undefined for the rank itself. */
  readonly ports: readonly (MessagePort | undefined)[];
  /** See control-block.ts. */
  readonly control: SharedArrayBuffer;
}

/** Seats of a whole pipeline, for threads that the caller starts; `launchPipeline` starts some. */
export interface WorkerSeats {
  readonly seats: readonly WorkerSeat[];
  /** Ends the pipeline on all ranks: for when the caller finds a thread gone. */
  abort(): void;
}

/** Connects `numRanks` threads, pair by pair. */
export function workerSeats(numRanks: number): WorkerSeats {
  const control = new ControlBlock(numRanks);
  const ports = Array.from({ length: numRanks }, () =>
    new Array<MessagePort | undefined>(numRanks).fill(undefined),
  );
  ports.forEach((own, a) => {
    for (let b = a + 1; b < numRanks; b++) {
      const { port1, port2 } = new MessageChannel();
      own[b] = port1;
      (ports[b] as (MessagePort | undefined)[])[a] = port2;
    }
  });
  const seats = ports.map((own, rank) => ({ rank, ports: own, control: control.buffer }));
  return { seats, abort: () => control.end(-1) };
}

/** The ports of a seat, which must be in the `transferList` of the thread that gets it. */
export function portsOf({ ports }: WorkerSeat): readonly MessagePort[] {
  return ports.filter((port) => port !== undefined);
}

/** One thread's end. */
export class WorkerTransport implements Transport {
  readonly rank: number;
  readonly numRanks: number;
  readonly #ports: readonly (MessagePort | undefined)[];
  readonly #control: ControlBlock;
  readonly #mailbox: Mailbox;
  readonly #pool = new SharedBufferPool();
  /** Messages sent to each rank. */
  readonly #sent: number[];
  #cause: Error | undefined;

  constructor({ rank, ports, control }: WorkerSeat) {
    this.rank = rank;
    this.numRanks = ports.length;
    this.#ports = ports;
    this.#control = new ControlBlock(ports.length, control);
    this.#mailbox = new Mailbox(rank, ports.length);
    this.#sent = ports.map(() => 0);
  }

  /** How far the ranks are; shared by all threads. */
  get control(): ControlBlock {
    return this.#control;
  }

  /** Bytes of shared memory this rank's messages have needed. */
  get allocatedBytes(): number {
    return this.#pool.allocatedBytes;
  }

  send(
    to: number,
    key: number,
    tensors: readonly Tensor[],
    timeoutMs: number,
  ): Promise<void> | undefined {
    this.#throwIfEnded();
    const port = this.#ports[to] as MessagePort;
    const envelope: Envelope = { key, ...this.#pool.pack(tensors) };
    port.postMessage(envelope);
    (this.#sent[to] as number)++;
    this.#control.ring(to);
    return this.#hasRoom(to) ? undefined : this.#room(to, key, timeoutMs);
  }

  receive(from: number, key: number): Receive {
    this.#control.countPosted(from, this.rank);
    return {
      poll: () => this.#poll(from, key),
      wait: (timeoutMs) => this.#wait(from, key, timeoutMs),
    };
  }

  abort(error: Error): void {
    this.#cause ??= error;
    this.#control.end(this.rank);
  }

  #poll(from: number, key: number): Message | undefined {
    this.#throwIfEnded();
    const there = this.#mailbox.take(from, key);
    if (there !== undefined) return there;
    this.#drain(from);
    return this.#mailbox.take(from, key);
  }

  #wait(from: number, key: number, timeoutMs: number): Promise<Message> {
    const look = (): Message | undefined => this.#poll(from, key);
    return this.#until(look, from, () => describeKey(key), timeoutMs);
  }

  /** Whether a rank has posted receives for all but a window of what it was sent. */
  #hasRoom(to: number): boolean {
    const behind = ((this.#sent[to] as number) - this.#control.posted(this.rank, to)) | 0;
    return behind <= sendWindow;
  }

  async #room(to: number, key: number, timeoutMs: number): Promise<void> {
    const look = (): true | undefined => {
      this.#throwIfEnded();
      return this.#hasRoom(to) || undefined;
    };
    await this.#until(look, to, () => `a receive, to send ${describeKey(key)},`, timeoutMs);
  }

  /** Looks, sleeps until the rank is rung, and looks again. */
  async #until<T>(
    look: () => T | undefined,
    from: number,
    awaited: () => string,
    timeoutMs: number,
  ): Promise<T> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      // Read before the look, so that what comes in between is not slept through.
      const rings = this.#control.rings(this.rank);
      const found = look();
      if (found !== undefined) return found;
      const leftMs = deadline - performance.now();
      if (leftMs <= 0) throw new WaitTimeoutError(this.rank, from, awaited(), timeoutMs);
      await this.#control.sleep(this.rank, rings, leftMs);
    }
  }

  #drain(from: number): void {
    const port = this.#ports[from] as MessagePort;
    for (let next = receiveMessageOnPort(port); next; next = receiveMessageOnPort(port)) {
      const envelope = next.message as Envelope;
      this.#mailbox.deliver(from, envelope.key, unpackMessage(envelope));
    }
  }

  #throwIfEnded(): void {
    const by = this.#control.endedBy;
    if (by === undefined) return;
    throw new PipelineAbortedError(by, by === this.rank ? { cause: this.#cause } : {});
  }
}
