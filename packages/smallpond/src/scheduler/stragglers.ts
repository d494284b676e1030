// Which running tasks are late for their kind, and may be raced by a copy.

import type { Task } from "../task/task.ts";
import type { Entry } from "./entry.ts";
import type { NodeTimes } from "./node-times.ts";
import type { FaultPolicy } from "./policy.ts";
import type { Seat } from "./seat.ts";

/** How long a node's tasks take: its median, and a high quantile. */
export interface UsualTime {
  readonly samples: number;
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
}

/**
 * When an attempt is late enough for a copy: later than the median by the spread of its kind, by
 * twice the median and by `stragglerMs`; the more so, the more copies there were. (The original:
 * the spread, p95 - p50 or p99 - p50 if aggressive, and 180 s.) undefined before enough of the kind
 * are known.
 */
export function lateAfterMs(
  policy: Pick<FaultPolicy, "speculation" | "speculationSamples" | "stragglerMs">,
  usual: UsualTime | undefined,
  copies: number,
): number | undefined {
  if (usual === undefined) return undefined;
  const aggressive = policy.speculation === "aggressive";
  const needed = aggressive ? policy.speculationSamples / 4 : policy.speculationSamples;
  if (usual.samples < needed) return undefined;
  const { p50, p95, p99 } = usual;
  const margin = aggressive
    ? Math.max(policy.stragglerMs / 4, p50, p99 - p50)
    : Math.max(policy.stragglerMs, 2 * p50, p95 - p50);
  return p50 + margin * (1 + copies);
}

/** Whether a second copy beside the first is harmless: not for what writes where users look. */
export function mayRace({ op, resources }: Task): boolean {
  return resources.speculate !== false && !String(op.kind).startsWith("sink");
}

/** Tasks of one running attempt that is late. */
export function lateEntries(
  seats: Iterable<Seat>,
  times: NodeTimes,
  policy: FaultPolicy,
  nowMs: number,
): Entry[] {
  const late: Entry[] = [];
  for (const seat of seats) {
    for (const { entry, over, startedMs } of seat.running) {
      if (over || entry.live.size > 1 || !mayRace(entry.task)) continue;
      const afterMs = lateAfterMs(policy, times.usual(entry.task.node), entry.copies);
      if (afterMs !== undefined && nowMs - startedMs >= afterMs) late.push(entry);
    }
  }
  return late;
}
