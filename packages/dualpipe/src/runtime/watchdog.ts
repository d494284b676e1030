// Notices a rank that is stuck in one operation: a stage that never returns is waited for by nobody
// who could say so. It reads how far the ranks are from shared memory and costs them nothing.

import { opAt } from "../schedule/schedule.ts";
import type { ControlBlock } from "./control-block.ts";
import { WaitTimeoutError } from "./errors.ts";
import type { RankProgram } from "./program.ts";

/** How often it looks, of the time allowed. */
const looksPerTimeout = 8;

/** What a rank that begins operation `index` is waited for, in words. */
export function describeOperation(program: RankProgram, index: number): string {
  if (index >= program.ops.length) return "its answer";
  const { kind, direction, stage, microBatch } = opAt(program.ops, index);
  return `the end of ${kind} of direction ${direction}, stage ${stage}, micro-batch ${microBatch}`;
}

/** What is watched. */
export interface WatchdogOptions {
  readonly timeoutMs: number;
  /** Whether a rank's answer is still to come. */
  isBusy(rank: number): boolean;
  /** What a rank at that operation is waited for, in words. */
  awaited(rank: number, index: number): string;
  onStuck(error: Error): void;
}

/** Watches ranks that have been asked for something, until it is disposed. */
export class Watchdog implements Disposable {
  readonly #timer: NodeJS.Timeout;

  /**
   * Calls `onStuck` once, for the first rank that makes no progress in `timeoutMs`.
   */
  constructor(control: ControlBlock, options: WatchdogOptions) {
    const { timeoutMs, isBusy, awaited, onStuck } = options;
    const everyMs = Math.max(10, timeoutMs / looksPerTimeout);
    let lookedMs = performance.now();
    const seen = Array.from({ length: control.numRanks }, (_, rank) => ({
      at: control.progressOf(rank),
      sinceMs: lookedMs,
    }));
    const look = (): void => {
      const nowMs = performance.now();
      // If this thread itself was held up, answers may lie in its queue: the time does not count.
      const heldUpMs = Math.max(0, nowMs - lookedMs - 2 * everyMs);
      lookedMs = nowMs;
      for (const [rank, last] of seen.entries()) {
        const at = control.progressOf(rank);
        if (!isBusy(rank) || at.step !== last.at.step || at.index !== last.at.index) {
          seen[rank] = { at, sinceMs: nowMs };
          continue;
        }
        last.sinceMs += heldUpMs;
        if (nowMs - last.sinceMs > timeoutMs) {
          clearInterval(this.#timer);
          onStuck(new WaitTimeoutError(-1, rank, awaited(rank, at.index), timeoutMs));
          return;
        }
      }
    };
    this.#timer = setInterval(look, everyMs);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}
