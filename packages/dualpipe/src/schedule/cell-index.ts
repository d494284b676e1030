// Numbers for (direction, stage, micro-batch), so that facts about cells lie in flat arrays.

import type { Schedule } from "./schedule.ts";

/** Numbers the cells of a schedule from 0: direction, then stage, then micro-batch. */
export class CellIndex {
  /** How many cells there are. */
  readonly size: number;
  readonly #numStages: number;
  readonly #rankOf: Int32Array;
  /** First cell of each direction. */
  readonly #base: Int32Array;
  /** Micro-batches of each direction. */
  readonly #width: Int32Array;

  constructor(schedule: Pick<Schedule, "numStages" | "microBatchesOf" | "rankOf">) {
    this.#numStages = schedule.numStages;
    this.#rankOf = schedule.rankOf;
    this.#width = Int32Array.from(schedule.microBatchesOf);
    this.#base = new Int32Array(schedule.microBatchesOf.length);
    let size = 0;
    schedule.microBatchesOf.forEach((count, direction) => {
      this.#base[direction] = size;
      size += count * schedule.numStages;
    });
    this.size = size;
  }

  /** The number of a cell; its three coordinates must be within the schedule. */
  at(direction: number, stage: number, microBatch: number): number {
    const base = this.#base[direction] as number;
    return base + stage * (this.#width[direction] as number) + microBatch;
  }

  /** Whether there is such a cell. */
  has(direction: number, stage: number, microBatch: number): boolean {
    const width = this.#width[direction];
    if (width === undefined || stage < 0 || stage >= this.#numStages) return false;
    return microBatch >= 0 && microBatch < width;
  }

  /** Rank of a stage; −1 before the first stage and after the last. */
  rankOf(direction: number, stage: number): number {
    if (stage < 0 || stage >= this.#numStages) return -1;
    return this.#rankOf[direction * this.#numStages + stage] as number;
  }
}
