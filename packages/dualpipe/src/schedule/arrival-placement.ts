// Receives where the data arrives. A send is posted right after its cell, ending at time t. The
// receive is posted before the first cell of the receiving rank that starts at t or later, in unit
// times. Whatever a cell then waits for, even in the rendezvous reading, was started strictly
// earlier in those times, so the waits cannot close a circle, whatever the real times are.

import { OpKind, type RankOps, type Schedule } from "./schedule.ts";
import { TransferWriter } from "./transfers.ts";
import { UnitTimes } from "./unit-times.ts";

/** The first index up to `last` whose start is at least `time`; starts never decrease. */
function firstFrom(starts: Int32Array, last: number, time: number): number {
  let low = 0;
  let high = last;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((starts[middle] as number) >= time) high = middle;
    else low = middle + 1;
  }
  return low;
}

/**
 * A rank's receives by the cell they are posted before: `order` lists them, twice the index of the
 * cell that needs it, plus 1 for the gradient; those before cell g end at `ends[g]`.
 */
interface Receives {
  readonly order: Int32Array;
  readonly ends: Int32Array;
}

/** Visits each receive of a rank: the cell that needs it, 1 for a gradient, and its arrival. */
function eachReceive(
  ops: RankOps,
  writer: TransferWriter,
  times: UnitTimes,
  visit: (cell: number, gradient: 0 | 1, arrival: number) => void,
): void {
  const { cells, forwardEnd, backwardEnd } = times;
  const gradient = (i: number, d: number, s: number, m: number): void => {
    if (!writer.receivesBackward(d, s)) return;
    visit(i, 1, backwardEnd[cells.at(d, s + 1, m)] as number);
  };
  for (let i = 0; i < ops.length; i++) {
    const kind = ops.kind[i] as OpKind;
    const d = ops.direction[i] as number;
    const s = ops.stage[i] as number;
    const m = ops.microBatch[i] as number;
    if (kind === OpKind.F || kind === OpKind.FB) {
      if (writer.receivesForward(d, s)) visit(i, 0, forwardEnd[cells.at(d, s - 1, m)] as number);
    } else if (kind !== OpKind.W) gradient(i, d, s, m);
    if (kind === OpKind.FB) {
      const pd = ops.pairDirection[i] as number;
      gradient(i, pd, ops.pairStage[i] as number, ops.pairMicroBatch[i] as number);
    }
  }
}

function sortReceives(
  ops: RankOps,
  starts: Int32Array,
  writer: TransferWriter,
  times: UnitTimes,
): Receives {
  const ends = new Int32Array(ops.length + 1);
  const gaps: number[] = [];
  eachReceive(ops, writer, times, (cell, _gradient, arrival) => {
    const gap = firstFrom(starts, cell, arrival);
    gaps.push(gap);
    ends[gap + 1] = (ends[gap + 1] as number) + 1;
  });
  for (let g = 0; g < ops.length; g++) ends[g + 1] = (ends[g + 1] as number) + (ends[g] as number);
  // Filling moves each gap's begin to its end, so that `ends[g]` is the end of gap g afterwards.
  const order = new Int32Array(gaps.length);
  let n = 0;
  eachReceive(ops, writer, times, (cell, gradient) => {
    const gap = gaps[n++] as number;
    const at = ends[gap] as number;
    order[at] = 2 * cell + gradient;
    ends[gap] = at + 1;
  });
  return { order, ends };
}

function postReceive(writer: TransferWriter, ops: RankOps, receive: number, phase: number): void {
  const cell = receive >> 1;
  const gradient = (receive & 1) === 1;
  const paired = gradient && ops.kind[cell] === OpKind.FB;
  const d = (paired ? ops.pairDirection : ops.direction)[cell] as number;
  const s = (paired ? ops.pairStage : ops.stage)[cell] as number;
  const m = (paired ? ops.pairMicroBatch : ops.microBatch)[cell] as number;
  writer.post(gradient ? OpKind.RecvB : OpKind.RecvF, d, s, m, phase);
}

function postSends(writer: TransferWriter, ops: RankOps, i: number): void {
  const kind = ops.kind[i] as OpKind;
  if (kind === OpKind.W) return;
  const phase = ops.phase[i] as number;
  const send = kind === OpKind.F || kind === OpKind.FB ? OpKind.SendF : OpKind.SendB;
  const d = ops.direction[i] as number;
  const s = ops.stage[i] as number;
  writer.post(send, d, s, ops.microBatch[i] as number, phase);
  if (kind !== OpKind.FB) return;
  const pd = ops.pairDirection[i] as number;
  const ps = ops.pairStage[i] as number;
  writer.post(OpKind.SendB, pd, ps, ops.pairMicroBatch[i] as number, phase);
}

/**
 * Every rank's operations with their transfers.
 *
 * @throws ScheduleError if the operations cannot run even without communication.
 */
export function placeByArrival(schedule: Schedule): RankOps[] {
  const times = new UnitTimes(schedule);
  return schedule.ranks.map((ops, rank) => {
    const writer = new TransferWriter(schedule, rank);
    const starts = times.starts[rank] as Int32Array;
    const { order, ends } = sortReceives(ops, starts, writer, times);
    let next = 0;
    for (let i = 0; i < ops.length; i++) {
      const phase = ops.phase[i] as number;
      for (; next < (ends[i] as number); next++) {
        postReceive(writer, ops, order[next] as number, phase);
      }
      writer.copy(i);
      postSends(writer, ops, i);
    }
    return writer.finish();
  });
}
