// How much communication ran behind computation, for all of it and for its parts, and how much the
// streams of a device ran at once. HTA's definition: overlap over communication.

import { type Intervals, lengthOf, sharedLength } from "./intervals.ts";
import { percent, roundUs } from "./statistics.ts";
import { classMask, unionOfClasses, unionOfStream, type Work } from "./work.ts";

/** One kind of communication against all computation, summed over devices. */
export interface OverlapFigures {
  readonly communicationUs: number;
  /** Of it, while something computed. */
  readonly overlapUs: number;
  /** Of it, while nothing computed. */
  readonly exposedUs: number;
  /** `overlapUs` over `communicationUs`, %. */
  readonly overlapPercent: number;
}

/** Two streams of a device that ran at once. */
export interface StreamOverlap {
  readonly device: string | number;
  readonly a: string | number;
  readonly b: string | number;
  readonly overlapUs: number;
  /** Of the stream that was busy less. */
  readonly percentOfShorter: number;
}

/** Overlap by kind. */
export interface OverlapAnalysis {
  readonly all: OverlapFigures;
  /** Dispatch and combine of expert parallelism only: the payload, without notify and layout. */
  readonly dispatchCombine: OverlapFigures;
  /** Exchange of counts before a dispatch, and its cached form. */
  readonly notify: OverlapFigures;
  /** Every class of communication by itself. */
  readonly classes: readonly (OverlapFigures & { readonly class: string })[];
  /** Every pair of streams of a device that had anything at once or not, in order. */
  readonly streams: readonly StreamOverlap[];
}

/** Pairs grow with the square of the streams; beyond this many, only the busiest are paired. */
const PAIRED_STREAMS = 32;

/** Overlap of communication and computation. */
export function overlap(work: Work): OverlapAnalysis {
  const compute = work.devices.map((_, device) => work.timeOf(device, "computation"));
  const present = new Set<number>(work.classId);
  const names = new Set(
    [...present].flatMap((id) => {
      const { group, name } = work.classes[id]!;
      return group === "communication" ? [name] : [];
    }),
  );
  const of = (test: (className: string) => boolean): OverlapFigures => figures(work, compute, test);
  return {
    all: of(() => true),
    dispatchCombine: of((name) => name === "ep_dispatch" || name === "ep_combine"),
    notify: of((name) => name === "ep_notify"),
    classes: [...names]
      .map((name) => ({ class: name, ...of((other) => other === name) }))
      .sort((a, b) => b.communicationUs - a.communicationUs || (a.class < b.class ? -1 : 1)),
    streams: streamOverlaps(work),
  };
}

function figures(
  work: Work,
  compute: readonly Intervals[],
  test: (className: string) => boolean,
): OverlapFigures {
  const mask = classMask(work, ({ group, name }) => group === "communication" && test(name));
  let communication = 0;
  let both = 0;
  compute.forEach((computing, device) => {
    const set = unionOfClasses(work, device, mask);
    communication += lengthOf(set);
    both += sharedLength(set, computing);
  });
  return {
    communicationUs: roundUs(communication),
    overlapUs: roundUs(both),
    exposedUs: roundUs(communication - both),
    overlapPercent: percent(both, communication),
  };
}

function streamOverlaps(work: Work): StreamOverlap[] {
  const out: StreamOverlap[] = [];
  work.devices.forEach(({ pid }, device) => {
    const members = work.streams
      .flatMap((stream, s) => (stream.device === device ? [s] : []))
      .map((s) => ({ stream: work.streams[s]!.stream, set: unionOfStream(work, s) }))
      .map((each, place) => ({ ...each, place, busy: lengthOf(each.set) }))
      .sort((a, b) => b.busy - a.busy || a.place - b.place)
      .slice(0, PAIRED_STREAMS)
      .sort((a, b) => a.place - b.place);
    members.forEach((a, i) => {
      for (const b of members.slice(i + 1)) {
        const both = sharedLength(a.set, b.set);
        out.push({
          device: pid,
          a: a.stream,
          b: b.stream,
          overlapUs: roundUs(both),
          percentOfShorter: percent(both, Math.min(a.busy, b.busy)),
        });
      }
    });
  });
  return out;
}
