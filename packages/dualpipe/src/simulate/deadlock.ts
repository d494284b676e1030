// What is said when ranks wait for each other for ever: which rank stands at which operation, what
// it waits for and whose that is, and the circle among them if there is one.

import { InfraError } from "@open-infra/errors";
import { type Op, OpKind, opAt, type RankOps } from "../schedule/schedule.ts";
import { Done, type RunState } from "./run-state.ts";

/** A rank that cannot go on. */
export interface BlockedRank {
  readonly rank: number;
  /** Index of the operation it stands at. */
  readonly index: number;
  readonly op: Op;
  /** Who would have to act; its own number where an earlier operation of its own is missing. */
  readonly waitsForRank: number;
  /** What it would have to do: `F of direction 0, stage 2, micro-batch 5`. */
  readonly waitsFor: string;
}

/** No rank can go on, and not all have come to their end. */
export class DeadlockError extends InfraError {
  readonly blocked: readonly BlockedRank[];
  /**
   * Ranks that wait for each other in a circle, each for the next; empty if something is missing.
   */
  readonly circle: readonly number[];

  constructor(blocked: readonly BlockedRank[], circle: readonly number[], numRanks: number) {
    const first = circle.length > 0 ? circle : blocked.map(({ rank }) => rank);
    const lines = first.slice(0, 4).map((rank) => {
      const { index, op, waitsForRank, waitsFor } = blocked.find(
        (one) => one.rank === rank,
      ) as BlockedRank;
      const at = `rank ${rank} at operation ${index}, ${describe(op)}`;
      return `${at}, waits for ${waitsFor} on rank ${waitsForRank}`;
    });
    const more = first.length > 4 ? `; and ${first.length - 4} more` : "";
    const kind = circle.length > 0 ? "in a circle" : "for what never comes";
    super(
      "deadlock",
      `${blocked.length} of ${numRanks} ranks wait ${kind}: ${lines.join("; ")}${more}`,
    );
    this.blocked = blocked;
    this.circle = circle;
  }
}

const place = (direction: number, stage: number, microBatch: number): string =>
  `direction ${direction}, stage ${stage}, micro-batch ${microBatch}`;

function describe(op: Op): string {
  const own = `${op.kind} of ${place(op.direction, op.stage, op.microBatch)}`;
  if (op.pair === undefined) return own;
  return `${own} with ${place(op.pair.direction, op.pair.stage, op.pair.microBatch)}`;
}

interface Want {
  readonly rank: number;
  readonly what: string;
}

/** What a half of a computation lacks; undefined if nothing. */
function missingInput(
  state: RunState,
  isForward: boolean,
  direction: number,
  stage: number,
  microBatch: number,
): Want | undefined {
  const { rankOf, numStages } = state.schedule;
  const row = direction * numStages + stage;
  const key = (state.rowBase[row] as number) + microBatch;
  const own = rankOf[row] as number;
  if (isForward) {
    if (stage === 0 || (state.arriveF[key] as number) >= 0) return undefined;
    return {
      rank: rankOf[row - 1] as number,
      what: `F of ${place(direction, stage - 1, microBatch)}`,
    };
  }
  if (((state.done[key] as number) & Done.F) === 0) {
    return { rank: own, what: `F of ${place(direction, stage, microBatch)}` };
  }
  if (stage === numStages - 1 || (state.arriveB[key] as number) >= 0) return undefined;
  return {
    rank: rankOf[row + 1] as number,
    what: `B of ${place(direction, stage + 1, microBatch)}`,
  };
}

/** The transfer among those posted before `index` that has not met its peer. */
function openTransfer(state: RunState, ops: RankOps, index: number): Want | undefined {
  const { rankOf, numStages } = state.schedule;
  let at =
    ops.kind[index] === undefined || (ops.kind[index] as number) < OpKind.SendF ? index - 1 : index;
  for (; at >= 0 && (ops.kind[at] as number) >= OpKind.SendF; at--) {
    const kind = ops.kind[at] as number;
    const direction = ops.direction[at] as number;
    const stage = ops.stage[at] as number;
    const microBatch = ops.microBatch[at] as number;
    const step = kind === OpKind.SendF || kind === OpKind.RecvB ? 1 : -1;
    const isForward = kind === OpKind.SendF || kind === OpKind.RecvF;
    const isSend = kind === OpKind.SendF || kind === OpKind.SendB;
    const receiver = isSend ? stage + step : stage;
    const key = (state.rowBase[direction * numStages + receiver] as number) + microBatch;
    if (((isForward ? state.arriveF : state.arriveB)[key] as number) >= 0) continue;
    const rank = rankOf[direction * numStages + stage + step] as number;
    const peerKind = `${isSend ? "Recv" : "Send"}${isForward ? "F" : "B"}`;
    return { rank, what: `${peerKind} of ${place(direction, stage + step, microBatch)}` };
  }
  return undefined;
}

function wantOf(state: RunState, rank: number, index: number, rendezvous: boolean): Want {
  const ops = state.schedule.ranks[rank] as RankOps;
  const kind = ops.kind[index] as number;
  const [direction, stage] = [ops.direction[index] as number, ops.stage[index] as number];
  const microBatch = ops.microBatch[index] as number;
  const open = rendezvous ? openTransfer(state, ops, index) : undefined;
  if (open !== undefined) return open;
  const isForward = kind === OpKind.F || kind === OpKind.FB;
  if (isForward) {
    const want = missingInput(state, true, direction, stage, microBatch);
    if (want !== undefined) return want;
  }
  if (kind === OpKind.FB) {
    const pairMicroBatch = ops.pairMicroBatch[index] as number;
    const pairDirection = ops.pairDirection[index] as number;
    const pairStage = ops.pairStage[index] as number;
    const want = missingInput(state, false, pairDirection, pairStage, pairMicroBatch);
    if (want !== undefined) return want;
  }
  if (kind === OpKind.B || kind === OpKind.I) {
    const want = missingInput(state, false, direction, stage, microBatch);
    if (want !== undefined) return want;
  }
  // A W without its I, or a send of what is not made yet.
  const made = kind === OpKind.SendF ? "F" : kind === OpKind.SendB ? "I or B" : "I";
  return { rank, what: `${made} of ${place(direction, stage, microBatch)}` };
}

/** Follows who waits for whom from each blocked rank until one comes again. */
function findCircle(blocked: ReadonlyMap<number, BlockedRank>): readonly number[] {
  for (const start of blocked.keys()) {
    const path: number[] = [];
    let rank: number | undefined = start;
    while (rank !== undefined && blocked.has(rank)) {
      const at = path.indexOf(rank);
      if (at >= 0) return path.slice(at);
      path.push(rank);
      rank = blocked.get(rank)?.waitsForRank;
    }
  }
  return [];
}

/** The error for a run that stopped early, or undefined if all ranks came to their end. */
export function findDeadlock(state: RunState, rendezvous: boolean): DeadlockError | undefined {
  const blocked = new Map<number, BlockedRank>();
  state.schedule.ranks.forEach((ops, rank) => {
    const index = state.counter[rank] as number;
    if (index >= ops.length) return;
    const { rank: waitsForRank, what } = wantOf(state, rank, index, rendezvous);
    blocked.set(rank, { rank, index, op: opAt(ops, index), waitsForRank, waitsFor: what });
  });
  if (blocked.size === 0) return undefined;
  const { numRanks } = state.schedule;
  return new DeadlockError([...blocked.values()], findCircle(blocked), numRanks);
}
