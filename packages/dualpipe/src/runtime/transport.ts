// How ranks exchange tensors: the one interface between the executor and whatever connects ranks.
// Messages are found by key, never by order, so that a transport may deliver them as it likes.
// Implementations: in-process.ts (one event loop), worker-transport.ts (threads, shared memory),
// ranks-transport.ts (a group of ranks: threads, processes, hosts).
//
// What must hold of each (test/transport-contract.ts checks it):
// - `send` has taken the bytes when it returns: the caller may overwrite them. It never blocks; but
//   when the receiver is `sendWindow` messages behind with posting receives, it gives a promise
//   that the caller awaits before it computes more, so that a fast rank does not fill the memory. A
//   schedule free of deadlock in rendezvous order is so with any window.
// - A message arrives once, whole, with dtypes and shapes; it needs no agreement on sizes before.
// - A receive may be posted before or after the message arrives. Delivery goes on while a rank
//   computes, and `poll` sees it without a turn of the event loop.
// - The receiver owns the tensors until it calls `release`; then their memory is used again, and
//   a tensor of it that is touched later throws.
// - After `abort` by anyone, everything pending or later fails on every rank. Nothing waits longer
//   than it was told to.

import type { Tensor } from "@open-infra/tensor";

/** What a message carries. */
export const MessageKind = { F: 0, B: 1, Sync: 2 } as const;
export type MessageKind = (typeof MessageKind)[keyof typeof MessageKind];

/** Largest values that a key holds, each plus one. */
const stages = 2 ** 16;
const microBatches = 2 ** 20;
const steps = 2 ** 13;

/** What identifies a message between two ranks. */
export interface MessageParts {
  readonly kind: MessageKind;
  readonly direction: number;
  /** The stage that uses it. */
  readonly stage: number;
  readonly microBatch: number;
  /** Counts calls of `step`, modulo 2^13: a fast rank's next step is not taken for this one. */
  readonly step: number;
}

/**
 * A message's identity as one number below 2^53. At most 2 directions, 2^16 stages and 2^20
 * micro-batches; `keysFit` tells.
 */
export function messageKey(
  kind: MessageKind,
  direction: number,
  stage: number,
  microBatch: number,
  step: number,
): number {
  const low = (step % steps) * microBatches + microBatch;
  return ((kind * 2 + direction) * stages + stage) * (steps * microBatches) + low;
}

/** The parts of a key again. */
export function parseMessageKey(key: number): MessageParts {
  const microBatch = key % microBatches;
  let rest = Math.floor(key / microBatches);
  const step = rest % steps;
  rest = Math.floor(rest / steps);
  const stage = rest % stages;
  rest = Math.floor(rest / stages);
  return { kind: (rest >> 1) as MessageKind, direction: rest & 1, stage, microBatch, step };
}

const kindNames = ["the input", "the output's gradient", "the gradients"];

/** A key in words, for errors: `the input of direction 0, stage 3, micro-batch 1`. */
export function describeKey(key: number): string {
  const { kind, direction, stage, microBatch } = parseMessageKey(key);
  const batch = kind === MessageKind.Sync ? "" : `, micro-batch ${microBatch}`;
  return `${kindNames[kind]} of direction ${direction}, stage ${stage}${batch}`;
}

/** Whether every key of a pipeline of this size can be written. */
export function keysFit(
  numDirections: number,
  numStages: number,
  microBatchesMax: number,
): boolean {
  return numDirections <= 2 && numStages <= stages && microBatchesMax <= microBatches;
}

/** Messages to one rank that may be on their way without a receive posted for them. */
export const sendWindow = 8;

/** Tensors that arrived. */
export interface Message {
  readonly tensors: readonly Tensor[];
  /** Gives the memory back; the tensors must not be used afterwards. Further calls do nothing. */
  release(): void;
}

/** A message that will be wanted. */
export interface Receive {
  /** The message if it is here. @throws PipelineAbortedError after an abort. */
  poll(): Message | undefined;
  /** @throws WaitTimeoutError naming what was awaited from whom, PipelineAbortedError. */
  wait(timeoutMs: number): Promise<Message>;
}

/** One rank's end of the connections. */
export interface Transport {
  readonly rank: number;
  readonly numRanks: number;
  /**
   * Sends contiguous host tensors to another rank.
   *
   * @param timeoutMs Longest that the promise, if one comes, may take.
   * @returns what to await before computing more (but after all else is posted), if the receiver is
   *   too far behind.
   * @throws PipelineAbortedError; the promise WaitTimeoutError too.
   */
  send(
    to: number,
    key: number,
    tensors: readonly Tensor[],
    timeoutMs: number,
  ): Promise<void> | undefined;
  /** Announces that a message will be wanted, once a message. */
  receive(from: number, key: number): Receive;
  /** Ends everything on all ranks, because of `error`; the first call counts. */
  abort(error: Error): void;
  /**
   * Where it has a faster way than messages: adds up tensors with those that `peer` brings, in
   * place and to the same bits on both. All ranks call it together, each pair for itself.
   */
  addUp?(peer: number, tensors: readonly Tensor[]): Promise<void>;
}
