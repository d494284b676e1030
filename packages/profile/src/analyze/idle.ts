// Why a stream stood still between two events, by HTA's rule: the host launched too late, or the
// gap is the ordinary cost of one kernel after another, or something else (mostly a wait for
// another stream). Two differences from HTA's code: the threshold is in µs, as traces are (HTA
// documents ns and compares µs), and events that overlap on one stream make no gap (HTA adds
// negative ones), so that the three always add up to the stream's idle time.

import type { Launches } from "./launches.ts";
import { percent, roundUs } from "./statistics.ts";
import type { Work } from "./work.ts";

/** Idle time of a stream between its first and its last event. */
export interface IdleBreakdown {
  readonly device: string | number;
  readonly stream: string | number;
  readonly idleUs: number;
  /** The next event's launch began only after the one before had ended. */
  readonly hostWaitUs: number;
  /** Launched in time, and the gap is below the threshold. */
  readonly kernelWaitUs: number;
  /** Launched in time, or its launch is not known, and the gap is longer. */
  readonly otherUs: number;
  readonly hostWaitPercent: number;
  readonly kernelWaitPercent: number;
  readonly otherPercent: number;
  /** Gaps of each kind. */
  readonly gaps: { readonly hostWait: number; readonly kernelWait: number; readonly other: number };
  readonly longestGapUs: number;
  /** When it began, µs since the table's origin; 0 if there is no gap. */
  readonly longestGapAtUs: number;
}

/** What counts as the ordinary cost between two kernels. */
export interface IdleOptions {
  /** Gaps below this are kernel wait, µs. @default 30 */
  readonly kernelWaitThresholdUs?: number;
}

/** Idle breakdown of every stream. */
export function idleBreakdown(
  work: Work,
  { launchRow }: Pick<Launches, "launchRow">,
  { kernelWaitThresholdUs = 30 }: IdleOptions = {},
): readonly IdleBreakdown[] {
  return work.streams.map(({ device, stream, first, end }) => {
    const us = [0, 0, 0] as [number, number, number];
    const gaps = [0, 0, 0] as [number, number, number];
    let longestGapUs = 0;
    let longestGapAtUs = 0;
    let lastEnd = Number.POSITIVE_INFINITY;
    for (let k = first; k < end; k++) {
      const i = work.streamEvents[k]!;
      const gap = work.startUs[i]! - lastEnd;
      if (gap > 0) {
        const launch = launchRow[i]!;
        const late = launch >= 0 && work.table.startUs[launch]! > lastEnd;
        const kind = late ? 0 : gap < kernelWaitThresholdUs ? 1 : 2;
        us[kind] += gap;
        gaps[kind]++;
        if (gap > longestGapUs) {
          longestGapUs = gap;
          longestGapAtUs = lastEnd;
        }
      }
      if (k === first || work.endUs[i]! > lastEnd) lastEnd = work.endUs[i]!;
    }
    const idle = us[0] + us[1] + us[2];
    return {
      device: work.devices[device]!.pid,
      stream,
      idleUs: roundUs(idle),
      hostWaitUs: roundUs(us[0]),
      kernelWaitUs: roundUs(us[1]),
      otherUs: roundUs(us[2]),
      hostWaitPercent: percent(us[0], idle),
      kernelWaitPercent: percent(us[1], idle),
      otherPercent: percent(us[2], idle),
      gaps: { hostWait: gaps[0], kernelWait: gaps[1], other: gaps[2] },
      longestGapUs: roundUs(longestGapUs),
      longestGapAtUs: roundUs(longestGapAtUs),
    };
  });
}
