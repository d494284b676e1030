// What the trace could have taken at best: no schedule of the same kernels is shorter than the
// longer of computing and communicating, if each keeps its own speed. Overlap costs both of them
// multiprocessors and bandwidth, so the bound is not a promise.

import { roundUs } from "./statistics.ts";
import type { TimeBreakdown } from "./temporal.ts";

/** Bounds of a device, of a phase, or sums of several. */
export interface Bounds {
  readonly spanUs: number;
  readonly computeUs: number;
  readonly communicationUs: number;
  /** max(`computeUs`, `communicationUs`). */
  readonly lowerBoundUs: number;
  /** Which of the two it is. */
  readonly boundBy: "computation" | "communication" | "nothing";
  /**
   * What full overlap would save: the time in which only one of the two ran, as far as the other
   * could have run beside it. min(exposed communication, exposed compute).
   */
  readonly fullOverlapSavesUs: number;
  /** `spanUs − lowerBoundUs`: full overlap, no idle time, copies hidden too. */
  readonly boundSavesUs: number;
  /** `spanUs` over `lowerBoundUs`; 0 where the bound is 0. */
  readonly spanOverBound: number;
}

/** Bounds from a breakdown of time. */
export function bounds(
  time: Pick<
    TimeBreakdown,
    "spanUs" | "computeUs" | "communicationUs" | "exposedCommunicationUs" | "exposedComputeUs"
  >,
): Bounds {
  const { spanUs, computeUs, communicationUs } = time;
  const lowerBoundUs = Math.max(computeUs, communicationUs);
  return {
    spanUs,
    computeUs,
    communicationUs,
    lowerBoundUs,
    boundBy:
      lowerBoundUs === 0
        ? "nothing"
        : computeUs >= communicationUs
          ? "computation"
          : "communication",
    fullOverlapSavesUs: roundUs(Math.min(time.exposedCommunicationUs, time.exposedComputeUs)),
    boundSavesUs: roundUs(spanUs - lowerBoundUs),
    spanOverBound: lowerBoundUs > 0 ? Math.round((spanUs / lowerBoundUs) * 1e4) / 1e4 : 0,
  };
}
