// What can be wrong with a schedule, as data: a kind to act on, a place, and a sentence.

import type { Schedule } from "../schedule.ts";
import { formatOp } from "../text.ts";

/**
 * - `shape`: the schedule's own fields contradict each other.
 * - `range`: an operation of a direction, stage or micro-batch that there is not.
 * - `rank`: an operation of a stage that another rank holds.
 * - `missing`, `duplicate`: work or an end of a transfer that is not done, or done twice.
 * - `split`: a cell has a full backward and a split one.
 * - `order`: an operation stands before one of the same cell that it needs.
 * - `fifo`: a W is not that of the oldest I that waits.
 * - `transfer`: an end where nothing crosses ranks, or in a schedule said to have none.
 * - `deadlock`: ranks wait for each other in a circle.
 * - `memory`: more micro-batches held than allowed.
 */
export type ViolationCode =
  | "shape"
  | "range"
  | "rank"
  | "missing"
  | "duplicate"
  | "split"
  | "order"
  | "fifo"
  | "transfer"
  | "deadlock"
  | "memory";

/** One thing that is wrong. */
export interface Violation {
  readonly code: ViolationCode;
  /** −1 if it is none in particular. */
  readonly rank: number;
  /** Index in the rank's operations; −1 if it is none in particular. */
  readonly position: number;
  /** The operation there, as `formatOp` writes it; "" for none. */
  readonly op: string;
  /** A sentence with rank, position and operation. */
  readonly message: string;
}

/** Collects violations up to a number, and counts the others. */
export class Violations {
  readonly list: Violation[] = [];
  /** Violations beyond those in the list. */
  omitted = 0;
  readonly #schedule: Schedule;
  readonly #most: number;

  constructor(schedule: Schedule, most: number) {
    this.#schedule = schedule;
    this.#most = most;
  }

  /** Whether none was found. */
  get empty(): boolean {
    return this.list.length === 0;
  }

  /** Something wrong at an operation; `what` continues "rank 3, operation 17, 7I1, …". */
  at(code: ViolationCode, rank: number, position: number, what: string): void {
    if (this.#isFull()) return;
    const ops = this.#schedule.ranks[rank];
    const op = ops === undefined ? "" : formatOp(this.#schedule, ops, position);
    const message = `rank ${rank}, operation ${position}, ${op}: ${what}`;
    this.list.push({ code, rank, position, op, message });
  }

  /** Something wrong with a rank, or with none in particular (−1). */
  of(code: ViolationCode, rank: number, what: string): void {
    if (this.#isFull()) return;
    const message = rank < 0 ? what : `rank ${rank}: ${what}`;
    this.list.push({ code, rank, position: -1, op: "", message });
  }

  #isFull(): boolean {
    if (this.list.length < this.#most) return false;
    this.omitted++;
    return true;
  }
}
