// Where the time of a device went: busy or idle, computing, communicating, copying, and what of the
// communication nothing hid. The definitions are HTA's temporal breakdown, by sets of time.

import { kernelGroups } from "./classify.ts";
import {
  type Intervals,
  lengthOf,
  sharedLength,
  subtract,
  UnionBuilder,
  unite,
} from "./intervals.ts";
import { percent, roundUs } from "./statistics.ts";
import { unionOfStream, type Work } from "./work.ts";

/** Times of a device, or summed over devices. A moment counts once however many kernels ran. */
export interface TimeBreakdown {
  /** From the start of the first event to the end of the last. */
  readonly spanUs: number;
  /** Some event ran. */
  readonly busyUs: number;
  /** `spanUs − busyUs`. */
  readonly idleUs: number;
  readonly computeUs: number;
  readonly communicationUs: number;
  readonly memoryUs: number;
  /** Classes that a user's rules keep out of the three. */
  readonly otherUs: number;
  /** Busy, but not computing: HTA's non-compute time. */
  readonly nonComputeUs: number;
  /** Computing and communicating at once. */
  readonly overlapUs: number;
  /** Communicating while nothing computes. */
  readonly exposedCommunicationUs: number;
  /** Computing while nothing communicates. */
  readonly exposedComputeUs: number;
  /** Copying while nothing computes or communicates. */
  readonly exposedMemoryUs: number;
  /** `overlapUs` of `communicationUs`, %. */
  readonly overlapPercent: number;
  readonly busyPercent: number;
}

/** A stream, or a lane. Its idle time lies between its own first start and last end. */
export interface StreamBreakdown {
  readonly device: string | number;
  readonly stream: string | number;
  readonly name: string;
  readonly events: number;
  readonly startUs: number;
  readonly endUs: number;
  readonly spanUs: number;
  readonly busyUs: number;
  readonly idleUs: number;
  readonly computeUs: number;
  readonly communicationUs: number;
  readonly memoryUs: number;
}

/** A device. */
export interface DeviceBreakdown extends TimeBreakdown {
  readonly device: string | number;
  readonly name: string;
  readonly events: number;
  /** Of the first event, µs since the table's origin. */
  readonly startUs: number;
  readonly endUs: number;
  readonly streams: readonly StreamBreakdown[];
}

/** The sets of time of a device; other analyses cut and intersect them. */
export interface DeviceTime {
  readonly startUs: number;
  readonly endUs: number;
  readonly busy: Intervals;
  readonly compute: Intervals;
  readonly communication: Intervals;
  readonly memory: Intervals;
  readonly other: Intervals;
}

/** The sets of time of a device. */
export function deviceTime(work: Work, device: number): DeviceTime {
  const { first, end } = work.devices[device]!;
  const [compute, communication, memory, other] = kernelGroups.map((group) =>
    work.timeOf(device, group),
  ) as [Intervals, Intervals, Intervals, Intervals];
  const busy = unite(unite(compute, communication), unite(memory, other));
  let endUs = first < end ? work.startUs[first]! : 0;
  for (let i = first; i < end; i++) if (work.endUs[i]! > endUs) endUs = work.endUs[i]!;
  const startUs = first < end ? work.startUs[first]! : 0;
  return { startUs, endUs, busy, compute, communication, memory, other };
}

/** The figures of sets of time. */
export function breakdownOf(time: DeviceTime): TimeBreakdown {
  const { compute, communication, memory, other } = time;
  const span = time.endUs - time.startUs;
  const busy = lengthOf(time.busy);
  const computeUs = lengthOf(compute);
  const communicationUs = lengthOf(communication);
  const overlap = sharedLength(compute, communication);
  return {
    spanUs: roundUs(span),
    busyUs: roundUs(busy),
    idleUs: roundUs(span - busy),
    computeUs: roundUs(computeUs),
    communicationUs: roundUs(communicationUs),
    memoryUs: roundUs(lengthOf(memory)),
    otherUs: roundUs(lengthOf(other)),
    nonComputeUs: roundUs(busy - computeUs),
    overlapUs: roundUs(overlap),
    exposedCommunicationUs: roundUs(communicationUs - overlap),
    exposedComputeUs: roundUs(computeUs - overlap),
    exposedMemoryUs: roundUs(lengthOf(subtract(memory, unite(compute, communication)))),
    overlapPercent: percent(overlap, communicationUs),
    busyPercent: percent(busy, span),
  };
}

/** Breakdown of every device and its streams. */
export function temporalBreakdown(work: Work): readonly DeviceBreakdown[] {
  return work.devices.map(({ pid, name, first, end }, device) => {
    const time = deviceTime(work, device);
    return {
      device: pid,
      name,
      events: end - first,
      startUs: roundUs(time.startUs),
      endUs: roundUs(time.endUs),
      ...breakdownOf(time),
      streams: work.streams.flatMap((stream, s) =>
        stream.device === device ? [streamBreakdown(work, s)] : [],
      ),
    };
  });
}

function streamBreakdown(work: Work, s: number): StreamBreakdown {
  const { device, stream, name, first, end } = work.streams[s]!;
  const busy = unionOfStream(work, s);
  let startUs = Number.POSITIVE_INFINITY;
  let endUs = Number.NEGATIVE_INFINITY;
  for (let k = first; k < end; k++) {
    const i = work.streamEvents[k]!;
    startUs = Math.min(startUs, work.startUs[i]!);
    endUs = Math.max(endUs, work.endUs[i]!);
  }
  const [compute, communication, memory] = streamGroups(work, s);
  const busyUs = lengthOf(busy);
  return {
    device: work.devices[device]!.pid,
    stream,
    name,
    events: end - first,
    startUs: roundUs(startUs),
    endUs: roundUs(endUs),
    spanUs: roundUs(endUs - startUs),
    busyUs: roundUs(busyUs),
    idleUs: roundUs(endUs - startUs - busyUs),
    computeUs: roundUs(compute!),
    communicationUs: roundUs(communication!),
    memoryUs: roundUs(memory!),
  };
}

/** Busy time of a stream by group, in the order of `kernelGroups`. */
function streamGroups(work: Work, s: number): readonly number[] {
  const { first, end } = work.streams[s]!;
  const unions = kernelGroups.map(() => new UnionBuilder());
  for (let k = first; k < end; k++) {
    const i = work.streamEvents[k]!;
    unions[work.group[i]!]!.add(work.startUs[i]!, work.endUs[i]!);
  }
  return unions.map((union) => lengthOf(union.done()));
}

/** Sums of several devices' figures; percentages are those of the sums. */
export function sumBreakdowns(parts: readonly TimeBreakdown[]): TimeBreakdown {
  const sum = (field: keyof TimeBreakdown): number =>
    roundUs(parts.reduce((total, part) => total + part[field], 0));
  return {
    spanUs: sum("spanUs"),
    busyUs: sum("busyUs"),
    idleUs: sum("idleUs"),
    computeUs: sum("computeUs"),
    communicationUs: sum("communicationUs"),
    memoryUs: sum("memoryUs"),
    otherUs: sum("otherUs"),
    nonComputeUs: sum("nonComputeUs"),
    overlapUs: sum("overlapUs"),
    exposedCommunicationUs: sum("exposedCommunicationUs"),
    exposedComputeUs: sum("exposedComputeUs"),
    exposedMemoryUs: sum("exposedMemoryUs"),
    overlapPercent: percent(sum("overlapUs"), sum("communicationUs")),
    busyPercent: percent(sum("busyUs"), sum("spanUs")),
  };
}
