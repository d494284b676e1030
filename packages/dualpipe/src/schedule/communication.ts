// Sends and receives between the cells of a schedule.
//
// What the four operations mean, for everything that walks a list with communication:
//
// - Keys. An end is named by the cell on its own rank. `SendF(d, s, m)` sends what `F(d, s, m)`
//   made; its peer is `RecvF(d, s + 1, m)` on the rank of stage s + 1, for `F(d, s + 1, m)`.
//   `SendB(d, s, m)` sends the input's gradient that B or I of (d, s, m) made; its peer is
//   `RecvB(d, s − 1, m)`. Peers match by key alone: two ranks need not post in the same order.
// - Posts do not block. At its place in the list an end is posted, and the rank goes on. A send's
//   cell, or its half of an FB, stands earlier in the list than the send; a receive stands earlier
//   than the cell that needs it.
// - Waiting. In the dataflow reading a cell waits for its own receives only (a forward for its
//   input, a B or I for its output's gradient, an FB for both) and never for a send. In the
//   stricter rendezvous reading, which is the original's, a cell (a W too) waits until every end
//   that its rank has posted has met its peer. A list should be free of deadlock in both;
//   `validateSchedule` checks it.
// - What does not cross ranks has no ends: the turn of a V, everything on a single rank, the input
//   of stage 0 and the loss of the last stage. There a cell waits for the one that makes its input.
// - The phase of an end is that of the cell beside which it was posted.

import { placeByArrival } from "./arrival-placement.ts";
import { placeAsOriginal } from "./original-placement.ts";
import type { Schedule } from "./schedule.ts";

/** Where `withCommunication` posts the ends of transfers. */
export interface CommunicationOptions {
  /**
   * `original`: where DualPipe and DualPipeV post them; needs a schedule of those builders.
   * `arrival`: sends right after their cell; receives before the first cell that starts no earlier
   * than the data could be there in unit times (F, I, W 1; B 2). Works for any legal schedule and
   * cannot deadlock in either reading. Default: `original` where it applies, else `arrival`.
   */
  readonly placement?: "original" | "arrival";
}

/** Whether the eight steps are whole: the counts of micro-batches that the original takes. */
function hasWholeSteps(schedule: Schedule): boolean {
  const { name, numRanks, numMicroBatches } = schedule;
  if (name !== "dualpipe" && name !== "dualpipev") return false;
  if (numMicroBatches < 2 * numRanks || (name === "dualpipe" && numMicroBatches % 2 !== 0)) {
    return false;
  }
  return schedule.ranks.every(({ phase }) => phase.includes(4));
}

/**
 * The schedule with the ends of its transfers among the operations; see the head of
 * `communication.ts` for what they mean. A schedule that has them is returned as it is.
 *
 * @throws ScheduleError if the operations cannot run even without communication.
 */
export function withCommunication(
  schedule: Schedule,
  options: CommunicationOptions = {},
): Schedule {
  if (schedule.hasCommunication) return schedule;
  const placement = options.placement ?? (hasWholeSteps(schedule) ? "original" : "arrival");
  const ranks =
    placement === "original"
      ? schedule.ranks.map((_, rank) => placeAsOriginal(schedule, rank))
      : placeByArrival(schedule);
  return { ...schedule, ranks, hasCommunication: true };
}
