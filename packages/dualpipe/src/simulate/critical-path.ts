// The chain of operations that sets the makespan, walked back from the operation that ends last
// along what each one waited for last.

import { type Op, OpKind, opAt, type Schedule } from "../schedule/schedule.ts";
import type { RankRecord } from "./run-state.ts";

/**
 * Why an operation did not start earlier: `start` nothing was before it, `order` its rank was busy
 * with the operation before, `dependency` another rank was computing what it waits for,
 * `communication` so it was, and then the transfer took time.
 */
export type CriticalReason = "start" | "order" | "dependency" | "communication";

/** One operation of the critical path. */
export interface CriticalStep {
  readonly rank: number;
  readonly index: number;
  readonly op: Op;
  readonly start: number;
  readonly end: number;
  readonly reason: CriticalReason;
  /** Time between the end of the step before and this start: transfer, and queueing on a link. */
  readonly communication: number;
}

/** A chain from time 0 to the makespan without gaps. */
export interface CriticalPath {
  /** In time order; the sum of durations and communication is the makespan. */
  readonly steps: readonly CriticalStep[];
  /** Of the makespan: time in operations, and in transfers between them. */
  readonly computeTime: number;
  readonly communicationTime: number;
  /** How often the path crosses from rank to rank. */
  readonly numHops: number;
}

function reasonOf(rank: number, fromRank: number, communication: number): CriticalReason {
  if (communication > 0) return "communication";
  if (fromRank < 0) return "start";
  return fromRank === rank ? "order" : "dependency";
}

/** The critical path of a run whose timeline and causes were kept. */
export function criticalPath(schedule: Schedule, records: readonly RankRecord[]): CriticalPath {
  let rank = -1;
  let index = -1;
  let latest = Number.NEGATIVE_INFINITY;
  records.forEach(({ end }, r) => {
    const last = schedule.ranks[r]?.kind.findLastIndex((kind) => kind <= OpKind.FB) ?? -1;
    if (last >= 0 && (end[last] as number) > latest) {
      latest = end[last] as number;
      [rank, index] = [r, last];
    }
  });
  const steps: CriticalStep[] = [];
  let computeTime = 0;
  let communicationTime = 0;
  let numHops = 0;
  while (rank >= 0) {
    const record = records[rank] as RankRecord;
    const ops = schedule.ranks[rank] as Schedule["ranks"][number];
    const fromRank = record.causeRank[index] as number;
    const fromIndex = record.causeIndex[index] as number;
    const start = record.start[index] as number;
    const end = record.end[index] as number;
    const before = fromRank < 0 ? 0 : (records[fromRank]?.end[fromIndex] as number);
    const communication = start - before;
    const reason = reasonOf(rank, fromRank, communication);
    steps.push({ rank, index, op: opAt(ops, index), start, end, reason, communication });
    computeTime += end - start;
    communicationTime += communication;
    if (fromRank >= 0 && fromRank !== rank) numHops++;
    [rank, index] = [fromRank, fromIndex];
  }
  steps.reverse();
  return { steps, computeTime, communicationTime, numHops };
}
