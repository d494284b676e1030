// DualPipe and DualPipeV: the eight steps of deepseek-ai/DualPipe, as counts and as operations.
//
// Both run one program on a rank with two slots: slot 0 is the stage nearer the entry of its
// direction, slot 1 the other. In DualPipe the slots are the two directions; in DualPipeV they are
// the two arms of one V. DualPipeV over P ranks is DualPipe over 2P stages folded in half.

import { InputError } from "@open-infra/errors";
import { checkSize, type ScheduleOptions } from "./options.ts";
import { withoutSurplus } from "./partial.ts";
import { bidirectionalPlacement, vPlacement } from "./placement.ts";
import { OpKind, type RankOps, RankOpsBuilder, type Schedule } from "./schedule.ts";

/** How often a rank repeats the unit of each of the eight steps. */
export type StepCounts = readonly [
  /** F0 */
  number,
  /** F0 F1 */
  number,
  /** I1 W F1 */
  number,
  /** (F0‖B1) (F1‖B0) */
  number,
  /** B1 (F1‖B0) */
  number,
  /** B1 B0, the second half of them as I */
  number,
  /** W I0 */
  number,
  /** W */
  number,
];

/** What the eight steps repeat, in the words of the original. */
export const stepUnits: readonly string[] = [
  "F0",
  "F0 F1",
  "I1 W F1",
  "(F0‖B1) (F1‖B0)",
  "B1 (F1‖B0)",
  "B1 B0",
  "W I0",
  "W",
];

/** Counts of rank `depth` of `half` ranks from the entry, `perSlot` micro-batches a slot. */
function countsAt(half: number, depth: number, perSlot: number): StepCounts {
  const outer = half - depth - 1;
  const inner = depth + 1;
  return [2 * outer, inner, outer, perSlot - 2 * half + inner, outer, inner, outer, inner];
}

function checkDualPipe(options: ScheduleOptions): void {
  checkSize(options, 2);
  const { numRanks, numMicroBatches, allowPartial } = options;
  if (numRanks % 2 !== 0) {
    const why = `rank r shares its two stages with rank ${numRanks - 1} − r`;
    throw new InputError("numRanks", String(numRanks), `an even number (${why})`);
  }
  if (allowPartial) return;
  if (numMicroBatches % 2 !== 0 || numMicroBatches < 2 * numRanks) {
    const least = `2 · numRanks = ${2 * numRanks}`;
    const allowed = `an even number of at least ${least}, or allowPartial`;
    throw new InputError("numMicroBatches", String(numMicroBatches), allowed);
  }
}

function checkDualPipeV(options: ScheduleOptions): void {
  checkSize(options, 2);
  const { numRanks, numMicroBatches, allowPartial } = options;
  if (allowPartial || numMicroBatches >= 2 * numRanks) return;
  const allowed = `at least 2 · numRanks = ${2 * numRanks}, or allowPartial`;
  throw new InputError("numMicroBatches", String(numMicroBatches), allowed);
}

/**
 * The table of the eight steps, one row a rank.
 *
 * @throws InputError where the builder of that name would.
 */
export function stepCounts(
  name: "dualpipe" | "dualpipev",
  options: ScheduleOptions,
): readonly StepCounts[] {
  const { numRanks, numMicroBatches } = options;
  const whole = { numRanks, numMicroBatches };
  const rows = Array.from({ length: numRanks }, (_, rank) => rank);
  if (name === "dualpipev") {
    checkDualPipeV(whole);
    return rows.map((rank) => countsAt(numRanks, rank, numMicroBatches));
  }
  checkDualPipe(whole);
  return rows.map((rank) =>
    countsAt(numRanks / 2, Math.min(rank, numRanks - 1 - rank), numMicroBatches / 2),
  );
}

interface Slot {
  readonly direction: number;
  readonly stage: number;
  /** The next micro-batch to run forward, and backward. */
  forward: number;
  backward: number;
}

/** Weight gradients that wait for their `W`. */
interface Waiting {
  readonly slot: Slot;
  readonly microBatch: number;
}

/** Writes one rank's operations. Weight gradients wait in one FIFO over both slots. */
class RankProgram {
  readonly #ops: RankOpsBuilder;
  readonly #slots: readonly [Slot, Slot];
  readonly #waiting: Waiting[] = [];
  #taken = 0;
  /** The step of the unit being written, from 1. */
  phase = 1;

  constructor(capacity: number, slot0: Slot, slot1: Slot) {
    this.#ops = new RankOpsBuilder(capacity);
    this.#slots = [slot0, slot1];
  }

  F(index: 0 | 1): void {
    const slot = this.#slots[index];
    this.#ops.push(OpKind.F, slot.direction, slot.stage, slot.forward++, this.phase);
  }

  B(index: 0 | 1): void {
    const slot = this.#slots[index];
    this.#ops.push(OpKind.B, slot.direction, slot.stage, slot.backward++, this.phase);
  }

  I(index: 0 | 1): void {
    const slot = this.#slots[index];
    const microBatch = slot.backward++;
    this.#ops.push(OpKind.I, slot.direction, slot.stage, microBatch, this.phase);
    this.#waiting.push({ slot, microBatch });
  }

  W(): void {
    const { slot, microBatch } = this.#waiting[this.#taken++] as Waiting;
    this.#ops.push(OpKind.W, slot.direction, slot.stage, microBatch, this.phase);
  }

  /** Forward of slot `f` overlapped with the backward of the other. */
  FB(f: 0 | 1): void {
    const forward = this.#slots[f];
    const backward = this.#slots[f === 0 ? 1 : 0];
    this.#ops.pushPair(
      { direction: forward.direction, stage: forward.stage, microBatch: forward.forward++ },
      { direction: backward.direction, stage: backward.stage, microBatch: backward.backward++ },
      this.phase,
    );
  }

  finish(): RankOps {
    return this.#ops.finish();
  }
}

interface RankPlan {
  readonly counts: StepCounts;
  /** Cells from the entry; its parity says where step 6 changes from B to I. */
  readonly depth: number;
  /** Ranks where the arms meet run the first pair of step 4 one after the other: less bubble. */
  readonly middle: boolean;
}

/** Step 6: full backwards, then in its second half backwards for the input only. */
function drain(program: RankProgram, count: number, depth: number): void {
  const turn = Math.floor(count / 2);
  for (let i = 0; i < count; i++) {
    const odd = depth % 2 === 1;
    if (i > turn || (i === turn && odd)) program.I(1);
    else program.B(1);
    if (i >= turn) program.I(0);
    else program.B(0);
  }
}

function writeRank(program: RankProgram, { counts, depth, middle }: RankPlan): RankOps {
  const repeat = (phase: number, unit: (i: number) => void): void => {
    program.phase = phase;
    const count = counts[phase - 1] as number;
    for (let i = 0; i < count; i++) unit(i);
  };
  repeat(1, () => program.F(0));
  repeat(2, () => {
    program.F(0);
    program.F(1);
  });
  repeat(3, () => {
    program.I(1);
    program.W();
    program.F(1);
  });
  repeat(4, (i) => {
    if (i === 0 && middle) {
      program.F(0);
      program.B(1);
    } else program.FB(0);
    program.FB(1);
  });
  repeat(5, () => {
    program.B(1);
    program.FB(1);
  });
  program.phase = 6;
  drain(program, counts[5], depth);
  repeat(7, () => {
    program.W();
    program.I(0);
  });
  repeat(8, () => program.W());
  return program.finish();
}

/** Operations a rank has: every overlapped cell saves one, every split backward adds one. */
function rankLength({ counts, middle }: RankPlan, perSlot: number): number {
  const overlapped = 2 * counts[3] + counts[4] - (middle ? 1 : 0);
  return 4 * perSlot - overlapped + counts[2] + counts[6] + counts[7];
}

const slotAt = (direction: number, stage: number): Slot => ({
  direction,
  stage,
  forward: 0,
  backward: 0,
});

/**
 * DualPipe: two directions over the same ranks, each with half of the micro-batches.
 *
 * @throws InputError for odd `numRanks`, and without `allowPartial` for a `numMicroBatches` that is
 *   odd or below `2 · numRanks`.
 */
export function dualPipe(options: ScheduleOptions): Schedule {
  checkDualPipe(options);
  const { numRanks, numMicroBatches } = options;
  const perSlot = Math.max(numRanks, Math.ceil(numMicroBatches / 2));
  const half = numRanks / 2;
  const ranks = Array.from({ length: numRanks }, (_, rank) => {
    const depth = Math.min(rank, numRanks - 1 - rank);
    const plan = { counts: countsAt(half, depth, perSlot), depth, middle: depth === half - 1 };
    const down = slotAt(0, rank);
    const up = slotAt(1, numRanks - 1 - rank);
    const [slot0, slot1] = rank < half ? [down, up] : [up, down];
    return writeRank(new RankProgram(rankLength(plan, perSlot), slot0, slot1), plan);
  });
  const schedule: Schedule = {
    name: "dualpipe",
    numRanks,
    numStages: numRanks,
    numDirections: 2,
    numMicroBatches: 2 * perSlot,
    microBatchesOf: [perSlot, perSlot],
    rankOf: bidirectionalPlacement(numRanks),
    ranks,
    hasCommunication: false,
  };
  const kept = [Math.ceil(numMicroBatches / 2), Math.floor(numMicroBatches / 2)];
  return withoutSurplus(schedule, kept, "first");
}

/**
 * DualPipeV: rank `r` holds stages `r` and `2 · numRanks − 1 − r` of one direction.
 *
 * @throws InputError without `allowPartial` for fewer than `2 · numRanks` micro-batches.
 */
export function dualPipeV(options: ScheduleOptions): Schedule {
  checkDualPipeV(options);
  const { numRanks, numMicroBatches } = options;
  const perSlot = Math.max(2 * numRanks, numMicroBatches);
  const ranks = Array.from({ length: numRanks }, (_, rank) => {
    const plan = {
      counts: countsAt(numRanks, rank, perSlot),
      depth: rank,
      middle: rank === numRanks - 1,
    };
    const program = new RankProgram(
      rankLength(plan, perSlot),
      slotAt(0, rank),
      slotAt(0, 2 * numRanks - 1 - rank),
    );
    return writeRank(program, plan);
  });
  const schedule: Schedule = {
    name: "dualpipev",
    numRanks,
    numStages: 2 * numRanks,
    numDirections: 1,
    numMicroBatches: perSlot,
    microBatchesOf: [perSlot],
    rankOf: vPlacement(numRanks),
    ranks,
    hasCommunication: false,
  };
  return withoutSurplus(schedule, [numMicroBatches], "first");
}
