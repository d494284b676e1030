// Where everything lies in a low-latency window: two turns, each with room for one dispatch and one
// combine of a shape. Pages that are never touched are never there, so the room is for the worst
// case. Must agree with kernels/ep_ll.h.

import { Tensor } from "@open-infra/tensor";

/** What a plan depends on; equal on all ranks. */
export interface TurnShape {
  readonly numRanks: number;
  readonly numMaxDispatchTokensPerRank: number;
  readonly hidden: number;
  readonly numExperts: number;
}

/** Experts of a rank at most; as the strides below, equal to kernels/ep_ll.h. */
export const lowLatencyLocalExpertsMax = 4096;
/** Bytes of a turn's counters of claimed rows. */
export const claimBytes: number = 4 * lowLatencyLocalExpertsMax;
const noteStride = 64 + 8 * lowLatencyLocalExpertsMax;
const returnNoteStride = 64 + 4 * lowLatencyLocalExpertsMax;

const align = (bytes: number, to: number): number => Math.ceil(bytes / to) * to;

/** Offsets of a turn, in the order of `ep_turn`. */
const parts = [
  "claims",
  "notes",
  "outNotes",
  "x",
  "rowScales",
  "scales",
  "source",
  "slots",
  "returnNotes",
  "outReturnNotes",
  "returned",
  "shared",
] as const;
type Part = (typeof parts)[number];

/** Parts that lie at the same place for every shape, before all others. */
const fixed: readonly Part[] = ["claims", "notes", "outNotes", "returnNotes", "outReturnNotes"];

export type Turn = Readonly<Record<Part, number>>;

/** The window of one shape. */
export class TurnPlan {
  readonly shape: TurnShape;
  readonly localExperts: number;
  readonly turns: readonly [Turn, Turn];
  /** The turns' offsets for kernels. */
  readonly words: readonly [Tensor<"i64">, Tensor<"i64">];
  readonly bytes: number;
  /** Room of a row that combine returns. */
  readonly combineMessageBytes: number;

  constructor(shape: TurnShape) {
    this.shape = shape;
    const { numRanks, numMaxDispatchTokensPerRank: tokens, hidden, numExperts } = shape;
    this.localExperts = numExperts / numRanks;
    this.combineMessageBytes = align(2 * hidden + 12, 64);
    const rows = numRanks * tokens * this.localExperts;
    const scales = Math.ceil(hidden / 128);
    const sizes: Record<Part, number> = {
      claims: claimBytes,
      notes: numRanks * noteStride,
      outNotes: numRanks * noteStride,
      x: rows * hidden * 2,
      rowScales: rows * scales * 4,
      scales: rows * scales * 4,
      source: rows * 4,
      slots: rows * messageBytes(2 * hidden, scales),
      returnNotes: numRanks * returnNoteStride,
      outReturnNotes: numRanks * returnNoteStride,
      returned: rows * this.combineMessageBytes,
      shared: rows * hidden * 2,
    };
    const turns: [Partial<Record<Part, number>>, Partial<Record<Part, number>>] = [{}, {}];
    let at = 0;
    const place = (names: readonly Part[]): void => {
      for (const turn of turns) {
        for (const name of names) {
          turn[name] = at;
          at += align(sizes[name], 4096);
        }
      }
    };
    place(fixed);
    place(parts.filter((name) => !fixed.includes(name)));
    this.bytes = at;
    this.turns = turns as [Turn, Turn];
    const words = (of: Turn): Tensor<"i64"> =>
      Tensor.from(
        parts.map((part) => of[part]),
        [parts.length],
        "i64",
      );
    this.words = [words(this.turns[0]), words(this.turns[1])];
  }
}

/** A message of the slots: a row, its scales, its token. */
export function messageBytes(rowBytes: number, scales: number): number {
  return align(align(rowBytes, 4) + 4 * scales + 4, 64);
}

/**
 * Bytes of the window that a hint of the original's buys: several times as many, because results
 * and slots lie in it too, of which only what is used is ever touched.
 */
export function windowBytes(numRdmaBytes: number, numRanks: number): number {
  return align(5 * numRdmaBytes + 2 ** 20 + numRanks * 262_144, 4096);
}
