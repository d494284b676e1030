// Attempts as bars on lanes: a group of lanes for each executor, as many as ran side by side there.
// Pure; what draws them is timeline.tsx.

import type { AttemptView } from "@open-infra/smallpond/live";

/** A bar. */
export interface LaneBar {
  readonly attempt: AttemptView;
  readonly lane: number;
  readonly startMs: number;
  readonly endMs: number;
}

/** The lanes of an executor. */
export interface LaneGroup {
  readonly executor: string;
  readonly firstLane: number;
  readonly lanes: number;
}

export interface Lanes {
  readonly bars: readonly LaneBar[];
  readonly groups: readonly LaneGroup[];
  readonly lanes: number;
  readonly startMs: number;
  readonly endMs: number;
}

/** Deals attempts out to lanes, in order of their start. */
export function lanesOf(attempts: readonly AttemptView[], nowMs: number): Lanes {
  const byExecutor = new Map<string, { ends: number[]; bars: LaneBar[] }>();
  let startMs = Number.POSITIVE_INFINITY;
  let endMs = Number.NEGATIVE_INFINITY;
  for (const attempt of attempts) {
    const end = attempt.endMs ?? Math.max(nowMs, attempt.startMs);
    startMs = Math.min(startMs, attempt.startMs);
    endMs = Math.max(endMs, end);
    const seat = byExecutor.get(attempt.executor) ?? { ends: [], bars: [] };
    byExecutor.set(attempt.executor, seat);
    const free = seat.ends.findIndex((last) => last <= attempt.startMs);
    const at = free < 0 ? seat.ends.length : free;
    seat.ends[at] = end;
    seat.bars.push({ attempt, lane: at, startMs: attempt.startMs, endMs: end });
  }
  const groups: LaneGroup[] = [];
  const bars: LaneBar[] = [];
  let lane = 0;
  for (const executor of [...byExecutor.keys()].sort((a, b) => collator.compare(a, b))) {
    const seat = byExecutor.get(executor);
    if (seat === undefined) continue;
    groups.push({ executor, firstLane: lane, lanes: seat.ends.length });
    for (const bar of seat.bars) bars.push({ ...bar, lane: bar.lane + lane });
    lane += seat.ends.length;
  }
  if (bars.length === 0) return { bars, groups, lanes: 0, startMs: nowMs, endMs: nowMs };
  return { bars, groups, lanes: lane, startMs, endMs };
}

const collator = new Intl.Collator("en", { numeric: true });

/** The bar at a lane and time, the last that was drawn there. */
export function barAt(
  lanes: Lanes,
  lane: number,
  timeMs: number,
  slackMs: number,
): LaneBar | undefined {
  return lanes.bars.findLast(
    (bar) => bar.lane === lane && bar.startMs - slackMs <= timeMs && timeMs <= bar.endMs + slackMs,
  );
}
