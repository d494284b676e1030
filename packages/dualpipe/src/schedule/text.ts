// Schedules as rows of text, for people, messages and tests.
//
// One direction writes the stage before the kind, as PyTorch's pipeline IR does: `0F0 7I1 7W1
// (0F7;7B3) 0SEND_F0`. Two directions write an arrow for the direction instead, because a rank has
// one stage of each: `>F0 <B0 (<F4|>B0) >SEND_F0`.

import { OpKind, type RankOps, type Schedule } from "./schedule.ts";

const words: readonly string[] = (() => {
  const byKind: Record<OpKind, string> = {
    [OpKind.F]: "F",
    [OpKind.B]: "B",
    [OpKind.I]: "I",
    [OpKind.W]: "W",
    [OpKind.FB]: "F",
    [OpKind.SendF]: "SEND_F",
    [OpKind.RecvF]: "RECV_F",
    [OpKind.SendB]: "SEND_B",
    [OpKind.RecvB]: "RECV_B",
  };
  return Object.entries(byKind)
    .toSorted(([a], [b]) => Number(a) - Number(b))
    .map(([, word]) => word);
})();

const arrows: readonly string[] = [">", "<"];

/** Operation `index` of a rank as text: `7I1`, `(0F7;7B3)`, `<F4`. */
export function formatOp(schedule: Schedule, ops: RankOps, index: number): string {
  const twoWay = schedule.numDirections > 1;
  const place = (direction: number, stage: number): string =>
    twoWay ? (arrows[direction] ?? `${direction}:`) : `${stage}`;
  const kind = ops.kind[index] as OpKind;
  const at = place(ops.direction[index] as number, ops.stage[index] as number);
  const first = `${at}${words[kind] ?? `?${kind}:`}${ops.microBatch[index]}`;
  if (kind !== OpKind.FB) return first;
  const pairAt = place(ops.pairDirection[index] as number, ops.pairStage[index] as number);
  return `(${first}${twoWay ? "|" : ";"}${pairAt}B${ops.pairMicroBatch[index]})`;
}

/** One rank's operations, separated by spaces. */
export function formatRank(schedule: Schedule, rank: number): string {
  const ops = schedule.ranks[rank];
  if (ops === undefined) return "";
  return Array.from({ length: ops.length }, (_, i) => formatOp(schedule, ops, i)).join(" ");
}

/** All ranks, one row each. */
export function formatSchedule(schedule: Schedule): string {
  return schedule.ranks.map((_, rank) => formatRank(schedule, rank)).join("\n");
}
