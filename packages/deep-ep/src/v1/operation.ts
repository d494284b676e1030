// What the buffer's calls share: the group, its windows, the counters that keep ranks in step, and
// how an operation that moved nothing becomes an error.

import { InputError } from "@open-infra/errors";
import type { CommEvent, Group, Window } from "@open-infra/ranks";
import { Tensor } from "@open-infra/tensor";
import { BufferCapacityError } from "../errors.ts";
import { EventOverlap } from "../event.ts";
import type { Block, SharedMemory } from "./memory.ts";

/** Options of every call. */
export interface CallOptions {
  /** The call waits for this event only, instead of for all the caller did; default: nothing. */
  readonly previousEvent?: EventOverlap | undefined;
  /** Return before it is done; the caller waits for the returned event. @default false */
  readonly asyncFinish?: boolean | undefined;
  /** Accepted as the original does: only with `previousEvent` and `asyncFinish`. */
  readonly allocateOnCommStream?: boolean | undefined;
}

/** The status words of kernels/ep_common.h. */
const noRoom = 1;
const worstTooSmall = 2;

/** One buffer's state as its operations see it. */
export class Operations {
  readonly group: Group;
  readonly window: Window;
  readonly memory: SharedMemory;
  readonly slotBytes: number;
  /** Bytes of tokens by link class, added to by kernels. */
  readonly payload: Tensor<"i64"> = Tensor.empty([3], "i64");
  /** Whether every rank whose memory is mapped is a thread of this process. */
  readonly sameProcess: boolean;
  numWorkers: number;
  readonly #own = new WeakSet<CommEvent>();
  readonly #releases: { readonly event: CommEvent; readonly release: () => void }[] = [];
  #step = 0;
  #sequence = 0;

  constructor(init: {
    group: Group;
    window: Window;
    memory: SharedMemory;
    slotBytes: number;
    numWorkers: number;
  }) {
    this.group = init.group;
    this.window = init.window;
    this.memory = init.memory;
    this.slotBytes = init.slotBytes;
    this.numWorkers = init.numWorkers;
    this.sameProcess = this.ranks().every(
      (peer) => peer === this.group.rank || this.group.linkOf(peer) !== "shm",
    );
  }

  ranks(): number[] {
    return Array.from({ length: this.group.size }, (_, rank) => rank);
  }

  /** The next exchange of messages. */
  nextStep(): number {
    return ++this.#step;
  }

  /** The next operation that moves rows. */
  nextSequence(): number {
    return ++this.#sequence;
  }

  /** Ranks of a node. */
  ranksOfNode(node: number): number[] {
    return this.ranks().filter((rank) => this.group.nodeOf(rank) === node);
  }

  /** Who forwards in `node` for `source`; as ep_forwarder. */
  forwarderOf(node: number, source: number): number {
    const ranks = this.ranksOfNode(node);
    return ranks[(source % this.group.ranksPerNode) % ranks.length] as number;
  }

  /** Sources that this rank works for: itself, then those of other nodes. */
  servedBy(rank: number): number[] {
    const node = this.group.nodeOf(rank);
    const others = this.ranks().filter(
      (source) => this.group.nodeOf(source) !== node && this.forwarderOf(node, source) === rank,
    );
    return [rank, ...others];
  }

  /** Checks the options of a call and waits for an event that is not of this stream. */
  begin({ previousEvent, asyncFinish, allocateOnCommStream }: CallOptions): void {
    if (allocateOnCommStream && !(previousEvent !== undefined && asyncFinish)) {
      throw new InputError("allocateOnCommStream", "true", "with previousEvent and asyncFinish");
    }
    const event = previousEvent?.event;
    if (event !== undefined && !this.#own.has(event) && !event.done) event.wait();
    this.sweep();
  }

  /** Gives back what finished operations worked with. */
  sweep(): void {
    while (this.#releases[0]?.event.done) this.#releases.shift()?.release();
  }

  /** Lets go of what an operation works with once it is done, whether or not anybody waits. */
  releaseAfter(event: CommEvent, blocks: readonly (Block | undefined)[]): void {
    const held = blocks.filter((block) => block !== undefined);
    if (held.length === 0) return;
    const release = (): void => {
      for (const block of held) this.memory.release(block);
    };
    this.#releases.push({ event, release });
  }

  /** The event of a call, waited for unless the caller does. */
  finish(
    event: CommEvent,
    options: CallOptions,
    keep: readonly unknown[],
    check?: () => void,
  ): EventOverlap {
    this.#own.add(event);
    const overlap = new EventOverlap(event, keep, check);
    if (options.asyncFinish) return overlap;
    overlap.currentStreamWait();
    this.sweep();
    return overlap;
  }
}

/** Waits for an operation whose memory is about to be given back, however it ended. */
export function settle({ event }: EventOverlap): void {
  try {
    if (!event.done) event.wait();
  } catch {
    // Whoever waits for its result learns of the failure.
  }
}

/** The record of one operation, `ep_op` of kernels/ep_common.h. */
export class OperationRecord {
  readonly words: Tensor<"i64"> = Tensor.empty([8], "i64");
  readonly #name: string;

  constructor(name: string) {
    this.#name = name;
  }

  /** Throws why nothing was moved, the same on all ranks. */
  check(): void {
    const [status = 0, rank = 0, needed = 0, capacity = 0] = Array.from(this.words.raw(), Number);
    if (status === noRoom) {
      throw new BufferCapacityError({
        operation: this.#name,
        rank,
        neededBytes: needed,
        capacityBytes: capacity,
      });
    }
    if (status === worstTooSmall) {
      const allowed = `at least ${needed}, which rank ${rank} receives or forwards`;
      throw new InputError("numWorstTokens", `${capacity}`, allowed);
    }
  }
}
