// Ranks as threads of one process. A message's bytes go once into shared memory, and its description
// through a port whose queue the receiver can read at any moment, in the middle of a computation
// too; a word of shared memory rings the receiver when it sleeps.

import { type MessagePort, receiveMessageOnPort } from "node:worker_threads";
import type { Tensor } from "@open-infra/tensor";
import type { ControlBlock } from "./control-block.ts";
import { PipelineAbortedError, WaitTimeoutError } from "./errors.ts";
import { Mailbox } from "./mailbox.ts";
import { type PackedMessage, SharedBufferPool, unpackMessage } from "./shared-buffers.ts";
import { describeKey, type Message, type Receive, type Transport } from "./transport.ts";

interface Envelope extends PackedMessage {
  readonly key: number;
}

/** What a rank's end is made of; `ports[r]` leads to rank `r`, undefined for the rank itself. */
export interface WorkerTransportOptions {
  readonly rank: number;
  readonly ports: readonly (MessagePort | undefined)[];
  readonly control: ControlBlock;
}

/** One thread's end. */
export class WorkerTransport implements Transport {
  readonly rank: number;
  readonly numRanks: number;
  readonly #ports: readonly (MessagePort | undefined)[];
  readonly #control: ControlBlock;
  readonly #mailbox: Mailbox;
  readonly #pool = new SharedBufferPool();
  #cause: Error | undefined;

  constructor({ rank, ports, control }: WorkerTransportOptions) {
    this.rank = rank;
    this.numRanks = ports.length;
    this.#ports = ports;
    this.#control = control;
    this.#mailbox = new Mailbox(rank, ports.length);
  }

  /** Bytes of shared memory this rank's messages have needed. */
  get allocatedBytes(): number {
    return this.#pool.allocatedBytes;
  }

  send(to: number, key: number, tensors: readonly Tensor[]): void {
    this.#throwIfEnded();
    const port = this.#ports[to] as MessagePort;
    const envelope: Envelope = { key, ...this.#pool.pack(tensors) };
    port.postMessage(envelope);
    this.#control.countSent(this.rank);
    this.#control.ring(to);
  }

  receive(from: number, key: number): Receive {
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

  async #wait(from: number, key: number, timeoutMs: number): Promise<Message> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      // Read before the look, so that a message that comes in between is not slept through.
      const rings = this.#control.rings(this.rank);
      const message = this.#poll(from, key);
      if (message !== undefined) return message;
      const leftMs = deadline - performance.now();
      if (leftMs <= 0) throw new WaitTimeoutError(this.rank, from, describeKey(key), timeoutMs);
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
