// Where things lie in the window of an ElasticBuffer, and how many bytes an operation needs there.
// Must agree with kernels/elastic.h and its users.

import { alignUp } from "./sizes.ts";

/** Kinds of flags with one for each rank, and the four of the pipeline behind them. */
export const flagKinds = 11;
const pipelineFlags = 4;
/** Ints of the header of a row of counts. */
const countsHeader = 24;
const messageBytes = 128;

/** The fixed part of a window, before its data. */
export interface WindowPlan {
  readonly flags: number;
  /** Ints of a row of counts. */
  readonly countsStride: number;
  readonly countsAt: number;
  readonly messagesAt: number;
  readonly dataAt: number;
}

export function planWindow(size: number, numMaxExperts: number): WindowPlan {
  const countsStride = alignUp(countsHeader + 2 * size + numMaxExperts, 16);
  const messagesAt = 2 * size * countsStride * 4;
  return {
    flags: flagKinds * size + pipelineFlags,
    countsStride,
    countsAt: 0,
    messagesAt,
    dataAt: alignUp(messagesAt + 2 * size * messageBytes, 4096),
  };
}

/** What records depend on. */
export interface RecordShape {
  readonly numRanks: number;
  readonly scaleout: number;
  readonly scaleup: number;
  readonly numMaxTokensPerRank: number;
  readonly numTopk: number;
  /** Every rank can read and write every other's memory: records are needed between nodes only. */
  readonly allMemory: boolean;
}

/** Offsets and bytes of an operation's parts of the data. */
export interface DataPlan {
  /** Of what comes from other nodes. */
  readonly secondAt: number;
  readonly bytes: number;
}

/** Dispatch: records of tokens for this rank, then those that it forwards. */
export function planDispatch(
  shape: RecordShape,
  rowBytes: number,
  sfPacks: number,
  dataAt: number,
): DataPlan {
  const { numRanks, scaleout, numMaxTokensPerRank: tokens, numTopk: k, allMemory } = shape;
  const parts = alignUp(rowBytes, 32) + alignUp(sfPacks * 4, 32);
  const record = parts + alignUp(8 * k + 4 * (1 + k), 32);
  const forwarded = parts + alignUp(8 * k + 4 * (1 + k) + 4 * k, 32);
  const own = allMemory ? 0 : numRanks * tokens * record;
  const forward = scaleout > 1 ? scaleout * tokens * forwarded : 0;
  return { secondAt: dataAt + own, bytes: own + forward };
}

/** Combine: records of rows within a node, then the sums of other nodes. */
export function planCombine(
  shape: RecordShape,
  hidden: number,
  options: { readonly allRowsTravel: boolean },
  dataAt: number,
): DataPlan {
  const { numRanks, scaleout, scaleup, numMaxTokensPerRank: tokens, numTopk: k } = shape;
  const record = alignUp(hidden * 2, 32) + alignUp(k * 4, 32);
  const near =
    scaleout > 1
      ? scaleout * Math.min(scaleup, k)
      : options.allRowsTravel
        ? k
        : Math.min(numRanks, k);
  const own = shape.allMemory ? 0 : near * tokens * record;
  const far = scaleout > 1 ? Math.min(scaleout, k) * tokens * record : 0;
  return { secondAt: dataAt + own, bytes: own + far };
}
