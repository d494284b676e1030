// Notices a rank that is stuck in one operation: a stage that never returns is waited for by nobody
// who could say so. It reads how far the ranks are from shared memory and costs them nothing.

import { opAt } from "../schedule/schedule.ts";
import type { ControlBlock } from "./control-block.ts";
import { WaitTimeoutError } from "./errors.ts";
import type { RankProgram } from "./program.ts";

/** How often it looks, of the time allowed. */
const looksPerTimeout = 8;

/** The operation a rank is in, in words. */
function describeOperation(program: RankProgram | undefined, index: number): string {
  if (program === undefined || index >= program.ops.length) return "its answer";
  const { kind, direction, stage, microBatch } = opAt(program.ops, index);
  return `the end of ${kind} of direction ${direction}, stage ${stage}, micro-batch ${microBatch}`;
}

/** Watches ranks that have been asked for something, until it is disposed. */
export class Watchdog implements Disposable {
  readonly #timer: NodeJS.Timeout;

  /**
   * @param isBusy Whether a rank's answer is still to come.
   * @param onStuck Called once, for the first rank that made no progress in `timeoutMs`.
   */
  constructor(
    control: ControlBlock,
    programs: readonly RankProgram[] | undefined,
    timeoutMs: number,
    isBusy: (rank: number) => boolean,
    onStuck: (rank: number, error: Error) => void,
  ) {
    const now = performance.now();
    const seen = Array.from({ length: control.numRanks }, (_, rank) => ({
      at: control.progressOf(rank),
      sinceMs: now,
    }));
    const look = (): void => {
      const nowMs = performance.now();
      for (const [rank, last] of seen.entries()) {
        const at = control.progressOf(rank);
        if (!isBusy(rank) || at.step !== last.at.step || at.index !== last.at.index) {
          seen[rank] = { at, sinceMs: nowMs };
        } else if (nowMs - last.sinceMs > timeoutMs) {
          clearInterval(this.#timer);
          const what = describeOperation(programs?.[rank], at.index);
          onStuck(rank, new WaitTimeoutError(-1, rank, what, timeoutMs));
          return;
        }
      }
    };
    this.#timer = setInterval(look, Math.max(10, timeoutMs / looksPerTimeout));
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}
