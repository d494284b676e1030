// Cells of a simulated pipeline: which one is at a time, what it is in words, and what it gives to
// and takes from other ranks.

import { OpKind, opAt, type RankOps, type Schedule } from "@open-infra/dualpipe";
import type { PipelineResult } from "../compute.ts";

/** An operation by rank and index. */
export interface CellRef {
  readonly rank: number;
  readonly index: number;
}

/** First index whose value is above `value`; `values` do not fall. */
export function firstAbove(values: Float64Array, value: number): number {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((values[middle] as number) > value) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** The operation of a rank that runs at `time`; −1 where it stands idle. */
export function cellAtTime({ timeline }: PipelineResult, rank: number, time: number): number {
  const times = timeline[rank];
  if (times === undefined) return -1;
  const index = firstAbove(times.end, time);
  return index < times.end.length && (times.start[index] as number) <= time ? index : -1;
}

/** The operation of a rank nearest to `time`; −1 for a rank without any. */
export function cellNear({ timeline }: PipelineResult, rank: number, time: number): number {
  const ends = timeline[rank]?.end;
  return ends === undefined ? -1 : Math.min(ends.length - 1, firstAbove(ends, time));
}

interface Half {
  readonly direction: number;
  readonly stage: number;
  readonly microBatch: number;
}

const isForward = (kind: number): boolean => kind === OpKind.F || kind === OpKind.FB;

function matches(ops: RankOps, i: number, half: Half, forward: boolean): boolean {
  const kind = ops.kind[i] as number;
  if (forward || kind !== OpKind.FB) {
    const wanted = forward ? isForward(kind) : kind === OpKind.B || kind === OpKind.I;
    return (
      wanted &&
      ops.microBatch[i] === half.microBatch &&
      ops.stage[i] === half.stage &&
      ops.direction[i] === half.direction
    );
  }
  return (
    ops.pairMicroBatch[i] === half.microBatch &&
    ops.pairStage[i] === half.stage &&
    ops.pairDirection[i] === half.direction
  );
}

/** The forward, or the backward, of a stage for a micro-batch. */
export function findCell(schedule: Schedule, half: Half, forward: boolean): CellRef | undefined {
  const { stage, direction } = half;
  if (stage < 0 || stage >= schedule.numStages) return undefined;
  const rank = schedule.rankOf[direction * schedule.numStages + stage] as number;
  const ops = schedule.ranks[rank] as RankOps;
  for (let i = 0; i < ops.length; i++) {
    if (matches(ops, i, half, forward)) return { rank, index: i };
  }
  return undefined;
}

/** A transfer between two ranks that a cell takes part in. */
export interface Transfer {
  readonly from: CellRef;
  readonly to: CellRef;
  readonly flow: "forward" | "backward";
}

function halvesOf(schedule: Schedule, { rank, index }: CellRef) {
  const op = opAt(schedule.ranks[rank] as RankOps, index);
  const halves: { readonly half: Half; readonly forward: boolean }[] = [];
  if (op.kind === "F" || op.kind === "FB") halves.push({ half: op, forward: true });
  if (op.kind === "B" || op.kind === "I") halves.push({ half: op, forward: false });
  if (op.pair !== undefined) halves.push({ half: op.pair, forward: false });
  return halves;
}

/** What a cell receives from and sends to other ranks. */
export function transfersOf(schedule: Schedule, cell: CellRef): readonly Transfer[] {
  return halvesOf(schedule, cell).flatMap(({ half, forward }) => {
    const step = forward ? 1 : -1;
    const flow = forward ? "forward" : "backward";
    const source = findCell(schedule, { ...half, stage: half.stage - step }, forward);
    const target = findCell(schedule, { ...half, stage: half.stage + step }, forward);
    const found: Transfer[] = [];
    if (source !== undefined && source.rank !== cell.rank)
      found.push({ from: source, to: cell, flow });
    if (target !== undefined && target.rank !== cell.rank)
      found.push({ from: cell, to: target, flow });
    return found;
  });
}

const kindTexts = {
  F: "Forward",
  B: "Backward",
  I: "Backward for the input",
  W: "Weight gradients",
} as const;

function halfText(name: string, half: Half, schedule: Schedule): string {
  const way = schedule.numDirections === 2 ? (half.direction === 0 ? " →" : " ←") : "";
  return `${name}${way} of micro-batch ${half.microBatch}, stage ${half.stage}`;
}

/** A number of the simulation's own unit, short but not wrong. */
export function formatTime(value: number): string {
  if (!Number.isFinite(value)) return "–";
  // A negative zero would keep its sign.
  return (value + 0).toLocaleString("en-US", { maximumSignificantDigits: 6, useGrouping: "min2" });
}

/** A cell in words: what, when, in which phase, what its rank holds meanwhile. */
export function cellText(result: PipelineResult, cell: CellRef, held: number): string {
  const { schedule, timeline } = result;
  const op = opAt(schedule.ranks[cell.rank] as RankOps, cell.index);
  const times = timeline[cell.rank];
  const start = times?.start[cell.index] as number;
  const end = times?.end[cell.index] as number;
  const before = cell.index === 0 ? 0 : (times?.end[cell.index - 1] as number);
  const first = halfText(op.kind === "FB" ? "Forward" : kindTexts[op.kind as "F"], op, schedule);
  const what =
    op.pair === undefined
      ? first
      : `${first}, overlapped with ${halfText("backward", op.pair, schedule)}`;
  const phase = op.phase > 0 ? `; step ${op.phase} of the schedule` : "";
  const waited =
    start - before > 1e-9 ? `; its rank waited ${formatTime(start - before)} for it` : "";
  return (
    `${what}: ${formatTime(start)} to ${formatTime(end)}, takes ${formatTime(end - start)}` +
    `${waited}${phase}; the rank holds ${held}`
  );
}
