// The traces of all ranks as one Chrome trace: a process, with a lane for each rank.

import type { TraceEvent } from "@open-infra/profile";
import type { TraceReply } from "./protocol.ts";

/** What `JSON.stringify` turns into a file that any viewer opens. */
export interface ChromeTrace {
  readonly traceEvents: readonly TraceEvent[];
  readonly displayTimeUnit: "ms";
  readonly droppedEvents: number;
}

/**
 * Merges what the ranks recorded; lanes keep their names, and are numbered in the order of ranks.
 */
export function mergeTraces(replies: readonly TraceReply[]): ChromeTrace {
  const merged: TraceEvent[] = [];
  const lanes = new Map<string, number>();
  replies.forEach(({ events }, rank) => {
    for (const event of events) {
      if (event.name === "process_name") {
        if (rank === 0) merged.push(event);
        continue;
      }
      // Each rank counts its lanes from 1.
      const lane = `${rank} ${event.tid}`;
      const tid = lanes.get(lane) ?? lanes.size + 1;
      lanes.set(lane, tid);
      merged.push({ ...event, tid });
    }
  });
  const droppedEvents = replies.reduce((sum, { dropped }) => sum + dropped, 0);
  return { traceEvents: merged, displayTimeUnit: "ms", droppedEvents };
}
