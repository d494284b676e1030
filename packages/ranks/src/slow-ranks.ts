// Who keeps a rank waiting: the times that its waits took, by whom they waited for. In an
// all-to-all everybody waits for the slowest, so one rank's list already points at it; sums over
// all ranks' lists (Group.gatherWaits) also tell it from a slow path between two.

import type { RankWait, SlowRankReport } from "./group-options.ts";

const slowFactor = 2;
const slowMs = 1;

/** Makes a report of waits in milliseconds by rank; `self` is left out. */
export function reportSlowRanks(
  waitedMs: readonly number[],
  self: number,
  describe: (rank: number) => string,
): SlowRankReport {
  const waits: RankWait[] = waitedMs
    .map((ms, rank) => ({ rank, name: describe(rank), waitedMs: ms }))
    .filter(({ rank }) => rank !== self)
    .sort((a, b) => b.waitedMs - a.waitedMs);
  const median = waits[waits.length >> 1]?.waitedMs ?? 0;
  const slow = waits.filter(
    ({ waitedMs: ms }) => ms >= slowMs && (waits.length === 1 || ms >= slowFactor * median),
  );
  const list = slow.map(({ name, waitedMs: ms }) => `${ms.toFixed(1)} ms for ${name}`);
  const text =
    slow.length === 0
      ? `no rank stands out; the median wait was ${median.toFixed(1)} ms`
      : `waited ${list.join(", ")}; the median rank ${median.toFixed(1)} ms`;
  return { waits, slow, text };
}
