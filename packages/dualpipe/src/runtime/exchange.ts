// Where the tensors of one step on one rank come from and go to: other stages of the rank, or
// messages. Sends and receives are posted where the schedule has them; only a use waits.

import { ScheduleExecutionError } from "./errors.ts";
import type { MicroBatch } from "./micro-batches.ts";
import type { RankParts, StepStats } from "./parts.ts";
import { holderOf, type RankProgram } from "./program.ts";
import { describeKey, type Message, MessageKind, messageKey, type Receive } from "./transport.ts";

/** A cell of the schedule. */
export interface CellPlace {
  readonly direction: number;
  readonly stage: number;
  readonly microBatch: number;
}

/** Tensors that are nobody else's, so that there is nothing to give back. */
export function ownMessage(tensors: MicroBatch): Message {
  return { tensors, release: () => {} };
}

const kindName = (kind: MessageKind): string => (kind === MessageKind.F ? "F" : "B");

/** The stage that makes what a cell takes: the one before for F, the one after for B. */
const sourceOf = (kind: MessageKind, stage: number): number =>
  kind === MessageKind.F ? stage - 1 : stage + 1;

/** The transfers of one step; messages are named by the cell that uses them. */
export class Exchange {
  readonly #parts: RankParts;
  readonly #program: RankProgram;
  readonly #step: number;
  readonly #stats: StepStats;
  readonly #lane: string;
  /** Receives posted and not used yet. */
  readonly #posted = new Map<number, Receive>();
  /** Made here for another stage of this rank. */
  readonly #local = new Map<number, Message>();
  /** Made here and not sent yet. */
  readonly #outbox = new Map<number, MicroBatch>();

  constructor(parts: RankParts, program: RankProgram, step: number, stats: StepStats) {
    this.#parts = parts;
    this.#program = program;
    this.#step = step;
    this.#stats = stats;
    this.#lane = `rank ${program.rank}`;
  }

  /** What another stage made for this cell, when it is there. */
  async take(kind: MessageKind, user: CellPlace): Promise<Message> {
    const key = this.#key(kind, user);
    const local = this.#local.get(key);
    if (local !== undefined) {
      this.#local.delete(key);
      return local;
    }
    const receive = this.#posted.get(key);
    if (receive === undefined) {
      throw this.#error(`${describeKey(key)} is used, but neither made here nor received`);
    }
    this.#posted.delete(key);
    this.#stats.messagesReceived++;
    const there = receive.poll();
    if (there === undefined) return this.#wait(receive, kind, user);
    this.#stats.readyOnUse++;
    return there;
  }

  async #wait(receive: Receive, kind: MessageKind, user: CellPlace): Promise<Message> {
    const { recorder, timeoutMs } = this.#parts;
    if (!recorder.enabled) return receive.wait(timeoutMs);
    const startUs = recorder.now();
    const message = await receive.wait(timeoutMs);
    const { direction, stage, microBatch } = user;
    const args = { direction, stage, microBatch };
    recorder.span(this.#lane, `wait ${kindName(kind)}`, startUs, args);
    return message;
  }

  /** Hands over what was made for a cell: to this rank now, to another when its send comes. */
  give(kind: MessageKind, user: CellPlace, tensors: MicroBatch): void {
    const key = this.#key(kind, user);
    const holder = holderOf(this.#program, user.direction, user.stage);
    if (holder === this.#program.rank) this.#local.set(key, ownMessage(tensors));
    else this.#outbox.set(key, tensors);
  }

  /** @returns what the rank awaits before its next cell, if the receiver is too far behind. */
  send(kind: MessageKind, user: CellPlace): Promise<void> | undefined {
    const key = this.#key(kind, user);
    const tensors = this.#outbox.get(key);
    if (tensors === undefined) throw this.#error(`${describeKey(key)} is sent before it is made`);
    this.#outbox.delete(key);
    const { transport, recorder, timeoutMs } = this.#parts;
    const { direction, stage, microBatch } = user;
    const peer = this.#parts.transportRank(holderOf(this.#program, direction, stage));
    const startUs = recorder.enabled ? recorder.now() : 0;
    if (recorder.enabled) recorder.flow(this.#lane, `transfer ${kindName(kind)}`, key, "start");
    const room = transport.send(peer, key, tensors, timeoutMs);
    let bytes = 0;
    for (const tensor of tensors) bytes += tensor.byteLength;
    this.#stats.messagesSent++;
    this.#stats.bytesSent += bytes;
    if (!recorder.enabled) return room;
    const args = { direction, stage, microBatch, bytes };
    recorder.span(this.#lane, `send ${kindName(kind)}`, startUs, args);
    return room;
  }

  post(kind: MessageKind, user: CellPlace): void {
    const key = this.#key(kind, user);
    const holder = this.#sender(kind, user);
    const peer = this.#parts.transportRank(holder);
    this.#posted.set(key, this.#parts.transport.receive(peer, key));
  }

  /** The end of the arrow from where the cell's tensors came; call it inside the cell's span. */
  recordArrival(kind: MessageKind, user: CellPlace): void {
    const holder = this.#sender(kind, user);
    if (holder < 0 || holder === this.#program.rank) return;
    const { recorder } = this.#parts;
    recorder.flow(this.#lane, `transfer ${kindName(kind)}`, this.#key(kind, user), "end");
  }

  /** What is left over, in words; nothing after a complete schedule. */
  leftOver(): readonly string[] {
    const left: [string, number][] = [
      ["receives without a use", this.#posted.size],
      ["results without a send", this.#outbox.size],
      ["results without a use", this.#local.size],
    ];
    return left.filter(([, count]) => count > 0).map(([what, count]) => `${count} ${what}`);
  }

  #sender(kind: MessageKind, { direction, stage }: CellPlace): number {
    return holderOf(this.#program, direction, sourceOf(kind, stage));
  }

  #key(kind: MessageKind, { direction, stage, microBatch }: CellPlace): number {
    return messageKey(kind, direction, stage, microBatch, this.#step);
  }

  #error(message: string): ScheduleExecutionError {
    return new ScheduleExecutionError(this.#program.rank, message);
  }
}
