// What a group is made of, as types: how ranks join, what they tell each other, what is counted.

import type { RankName } from "./errors.ts";
import type { Store } from "./store.ts";

/** How bytes reach a peer: the same memory, another process's memory, or over a link. */
export type LinkKind = "self" | "heap" | "shm" | "ucx" | "tcp";

/** What the end of one rank means to the others. */
export type RankExitPolicy = "abort" | "continue";

/** What a rank needs to join. */
export interface JoinOptions {
  readonly rank: number;
  readonly size: number;
  readonly store: Store;
  /**
   * Ranks of a node, for algorithms with two levels; consecutive ranks share a node. @default the
   * ranks of a host
   */
  readonly ranksPerNode?: number;
  /** `auto`: memory where it is shared, else UCX where it is installed, else TCP. */
  readonly transport?: "auto" | "heap" | "shm" | "ucx" | "tcp";
  /** How long any wait for another rank may take. @default 100 s, as DeepEP */
  readonly timeoutMs?: number;
  /** Threads of the communication stream. @default 1 */
  readonly commThreads?: number;
  /**
   * How long a wait stays awake, at most, before it sleeps; less where that did not help the last
   * times. @default 20 µs; 0.5 µs with more ranks than cores
   */
  readonly spinUs?: number;
  /**
   * `abort`: a rank that dies or fails ends the group for all. `continue`: the others go on; a dead
   * rank is masked by whoever notices, and barriers do without it. Equal on all ranks.
   * @default "abort"
   */
  readonly onRankExit?: RankExitPolicy;
  /** What links between ranks are proved by. @default the store's, or one made up for the group */
  readonly secret?: string;
  /** The address that ranks of other hosts reach this one by. @default found by way of the store */
  readonly linkHost?: string;
}

/** Bytes, puts and signals that a rank has sent, by where they went. */
export interface Traffic {
  readonly bytes: number;
  readonly puts: number;
  readonly signals: number;
}

/** One rank's part of what all publish to each other when they join. */
export interface Card extends RankName {
  /** Ranks of equal machines see each other's processes and share memory. */
  readonly machine: string;
  readonly startTime: number;
  readonly onRankExit: RankExitPolicy;
}

/** How a kernel is run. */
export interface KernelRun {
  /** For errors. @default the kernel's name */
  readonly operation?: string;
  /** @default the stream's */
  readonly threads?: number;
  /** Of each thread; 64-byte aligned, uninitialised. */
  readonly scratchBytes?: number;
  /** Kept referenced until the kernel is done, besides its values. */
  readonly keep?: unknown;
}

/** How long this rank has waited for another. */
export interface RankWait {
  readonly rank: number;
  readonly name: string;
  readonly waitedMs: number;
}

/** Who keeps this rank waiting. */
export interface SlowRankReport {
  /** Every other rank, the one waited for longest first. */
  readonly waits: readonly RankWait[];
  /** Those waited for at least twice as long as the median, and 1 ms. */
  readonly slow: readonly RankWait[];
  /** A sentence for people. */
  readonly text: string;
}
