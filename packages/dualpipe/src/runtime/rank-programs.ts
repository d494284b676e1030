// Cuts a schedule into what each rank runs. A rank's thread does without it: it gets its program.

import { withCommunication } from "../schedule/communication.ts";
import { forwardOnly } from "../schedule/forward-only.ts";
import type { Schedule } from "../schedule/schedule.ts";
import type { RankProgram } from "./program.ts";

/** The part of each rank; sends and receives are added where the schedule has none. */
export function rankPrograms(
  schedule: Schedule,
  options: { readonly inference?: boolean } = {},
): readonly RankProgram[] {
  const inference = options.inference ?? false;
  const whole = withCommunication(schedule);
  const { ranks } = inference ? forwardOnly(whole) : whole;
  return ranks.map((ops, rank) => ({
    scheduleName: schedule.name,
    rank,
    numRanks: schedule.numRanks,
    numStages: schedule.numStages,
    numDirections: schedule.numDirections,
    microBatchesOf: schedule.microBatchesOf,
    rankOf: schedule.rankOf,
    ops,
    inference,
  }));
}
