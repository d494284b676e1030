// How launches and what they launched relate: how long events queued, which were over sooner than
// their launch, what has no partner. Queue delay runs from the end of the launch call to the start
// on the device; clocks differ a little, so it may come out slightly below 0.

import type { Launches } from "./launches.ts";
import { type Distribution, distribution, roundUs } from "./statistics.ts";
import type { Work } from "./work.ts";

/** Launch statistics. */
export interface LaunchStats {
  /** Events of the device whose launch was found. */
  readonly matched: number;
  /** Events of the device without one. */
  readonly unmatched: number;
  /** Launching calls that nothing of the selection came from. */
  readonly launchesWithoutEvent: number;
  /** Start on the device − end of the launch call. HTA's code adds the call's length instead. */
  readonly queueDelay: Distribution;
  /** Of the launch calls, one an event. */
  readonly launchDuration: Distribution;
  /** Events shorter than the call that launched them: the host cannot keep up with such. */
  readonly shorterThanLaunch: number;
  readonly shorterThanLaunchUs: number;
  /** Events of at most `shortKernelUs`. */
  readonly shortKernels: number;
  readonly shortKernelsUs: number;
  readonly shortKernelThresholdUs: number;
  /** Per stream: most events launched but not started; launches block at about 1,024. */
  readonly queues: readonly {
    readonly device: string | number;
    readonly stream: string | number;
    readonly maxLength: number;
    readonly medianDelayUs: number;
  }[];
}

/** What counts as short. */
export interface LaunchOptions {
  /** @default 10 */
  readonly shortKernelThresholdUs?: number;
}

/** Launch statistics of all events. */
export function launchStats(
  work: Work,
  launches: Launches,
  { shortKernelThresholdUs = 10 }: LaunchOptions = {},
): LaunchStats {
  const { table } = work;
  const delays = new Float64Array(work.length);
  const durations = new Float64Array(work.length);
  const tally = { matched: 0, shorter: 0, shorterUs: 0, short: 0, shortUs: 0 };
  for (let i = 0; i < work.length; i++) {
    const duration = work.endUs[i]! - work.startUs[i]!;
    if (duration <= shortKernelThresholdUs) {
      tally.short++;
      tally.shortUs += duration;
    }
    const launch = launches.launchRow[i]!;
    if (launch < 0) continue;
    const launchUs = table.durationUs[launch]!;
    delays[tally.matched] = table.startUs[work.row[i]!]! - (table.startUs[launch]! + launchUs);
    durations[tally.matched++] = launchUs;
    if (duration < launchUs) {
      tally.shorter++;
      tally.shorterUs += duration;
    }
  }
  return {
    matched: tally.matched,
    unmatched: work.length - tally.matched,
    launchesWithoutEvent: launches.launchesWithoutEvent,
    queueDelay: distribution(delays.subarray(0, tally.matched)),
    launchDuration: distribution(durations.subarray(0, tally.matched)),
    shorterThanLaunch: tally.shorter,
    shorterThanLaunchUs: roundUs(tally.shorterUs),
    shortKernels: tally.short,
    shortKernelsUs: roundUs(tally.shortUs),
    shortKernelThresholdUs,
    queues: work.streams.map((_, s) => queueOf(work, launches, s)),
  };
}

/** Sorts in place; streams mostly are. */
function sorted(values: Float64Array): Float64Array {
  for (let i = 1; i < values.length; i++) if (values[i]! < values[i - 1]!) return values.sort();
  return values;
}

function queueOf(work: Work, { launchRow }: Launches, s: number): LaunchStats["queues"][number] {
  const { device, stream, first, end } = work.streams[s]!;
  const launched = new Float64Array(end - first);
  const started = new Float64Array(end - first);
  const delays = new Float64Array(end - first);
  let count = 0;
  for (let k = first; k < end; k++) {
    const i = work.streamEvents[k]!;
    const launch = launchRow[i]!;
    if (launch < 0) continue;
    const startUs = work.table.startUs[work.row[i]!]!;
    launched[count] = work.table.startUs[launch]!;
    delays[count] = startUs - (launched[count]! + work.table.durationUs[launch]!);
    started[count++] = startUs;
  }
  const begins = sorted(launched.subarray(0, count));
  const starts = sorted(started.subarray(0, count));
  let maxLength = 0;
  // At the begin of launch k (k + 1 launched), j events have started.
  for (let k = 0, j = 0; k < count; k++) {
    while (j < count && starts[j]! <= begins[k]!) j++;
    maxLength = Math.max(maxLength, k + 1 - j);
  }
  const { medianUs } = distribution(delays.subarray(0, count));
  return { device: work.devices[device]!.pid, stream, maxLength, medianDelayUs: medianUs };
}
