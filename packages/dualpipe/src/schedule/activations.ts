// How many micro-batches a rank holds. A cell of a stage counts from the start of its forward until
// the end of its backward (B or I), or until its weights' gradients are done (B or W); the second
// count is for implementations that keep the stage's inputs for W.

import { OpKind, type RankOps, type Schedule } from "./schedule.ts";

/** What ends the life of a micro-batch's activations. */
export type HeldUntil = "backward" | "weight";

/** Change of the number of held micro-batches at the end of each kind, by its number. */
const released: Readonly<Record<HeldUntil, readonly number[]>> = {
  backward: [0, 1, 1, 0, 1, 0, 0, 0, 0],
  weight: [0, 1, 0, 1, 1, 0, 0, 0, 0],
};

const startsForward = (kind: number): boolean => kind === OpKind.F || kind === OpKind.FB;

/** Micro-batches held while each operation of a rank runs, each counted once a stage. */
export function activationCurve(ops: RankOps, until: HeldUntil = "backward"): Int32Array {
  const curve = new Int32Array(ops.length);
  const ends = released[until];
  let held = 0;
  for (let i = 0; i < ops.length; i++) {
    const kind = ops.kind[i] as number;
    if (startsForward(kind)) held++;
    curve[i] = held;
    held -= ends[kind] as number;
  }
  return curve;
}

function peak(ops: RankOps, until: HeldUntil): number {
  const ends = released[until];
  let held = 0;
  let most = 0;
  for (let i = 0; i < ops.length; i++) {
    const kind = ops.kind[i] as number;
    if (startsForward(kind) && ++held > most) most = held;
    held -= ends[kind] as number;
  }
  return most;
}

/** The most micro-batches each rank holds at once, by either count. */
export interface PeakActivations {
  readonly untilBackward: readonly number[];
  readonly untilWeight: readonly number[];
}

/** Peak of every rank, in micro-batches of one stage; PP + 1 for DualPipe. */
export function peakActivations(schedule: Schedule): PeakActivations {
  return {
    untilBackward: schedule.ranks.map((ops) => peak(ops, "backward")),
    untilWeight: schedule.ranks.map((ops) => peak(ops, "weight")),
  };
}
