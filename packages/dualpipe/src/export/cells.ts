// The computations of a simulated run as a list of cells, for exporters: transfers left out, a pair
// with both halves, and where each half's result goes on another rank.

import { InputError } from "@open-infra/errors";
import { OpKind, type OpKindName, opKindNames, type Schedule } from "../schedule/schedule.ts";
import type { RankTimeline, SimulationResult } from "../simulate/simulate.ts";

/** One stage of one direction working on one micro-batch. */
export interface CellHalf {
  readonly direction: number;
  readonly stage: number;
  readonly microBatch: number;
}

/** One computation on one rank. */
export interface Cell extends CellHalf {
  readonly rank: number;
  readonly index: number;
  readonly kind: OpKindName;
  readonly phase: number;
  readonly start: number;
  readonly end: number;
  /** The backward half of an overlapped pair. */
  readonly pair?: CellHalf;
}

/** @throws InputError if the run kept no timeline. */
export function timelineOf(result: SimulationResult): readonly RankTimeline[] {
  if (result.timeline !== undefined) return result.timeline;
  throw new InputError("result.timeline", "undefined", "kept: simulate with timeline: true");
}

/** Computation `index` of a rank, or undefined for one end of a transfer. */
export function cellAt(
  schedule: Schedule,
  timeline: readonly RankTimeline[],
  rank: number,
  index: number,
): Cell | undefined {
  const ops = schedule.ranks[rank] as Schedule["ranks"][number];
  const times = timeline[rank] as RankTimeline;
  const kind = ops.kind[index] as number;
  if (kind > OpKind.FB) return undefined;
  const cell = {
    rank,
    index,
    kind: opKindNames[kind] as OpKindName,
    direction: ops.direction[index] as number,
    stage: ops.stage[index] as number,
    microBatch: ops.microBatch[index] as number,
    phase: ops.phase[index] as number,
    start: times.start[index] as number,
    end: times.end[index] as number,
  };
  if (kind !== OpKind.FB) return cell;
  return {
    ...cell,
    pair: {
      direction: ops.pairDirection[index] as number,
      stage: ops.pairStage[index] as number,
      microBatch: ops.pairMicroBatch[index] as number,
    },
  };
}

/** All computations of one rank in order. */
export function* cellsOfRank(
  schedule: Schedule,
  timeline: readonly RankTimeline[],
  rank: number,
): Generator<Cell> {
  const { length } = schedule.ranks[rank] as Schedule["ranks"][number];
  for (let index = 0; index < length; index++) {
    const cell = cellAt(schedule, timeline, rank, index);
    if (cell !== undefined) yield cell;
  }
}
