// What dispatch and combine are asked for, and what dispatch gives back, as types.

import type { CommEvent } from "@open-infra/ranks";
import type { Tensor } from "@open-infra/tensor";
import type { EventOverlap } from "../event.ts";
import type { EPHandle } from "./handle.ts";

/** Tokens: bf16 rows, or e4m3 rows and their scales. */
export type TokenInput = Tensor | readonly [codes: Tensor, scales: Tensor];

/** Anything that says when something is done. */
export type PreviousEvent = EventOverlap | CommEvent;

/** How operations take their place among others. */
export interface StreamOptions {
  /** Threads to use; 0 all of the communication stream. @default 0; combine: the handle's */
  readonly numSms?: number;
  /** Of the original; a link has one connection to each rank here, so it changes nothing. */
  readonly numQps?: number;
  /** What must be done before it begins; needs `allocateOnCommStream`, as in the original. */
  readonly previousEvent?: PreviousEvent | undefined;
  /** What must be done before results are written. */
  readonly previousEventBeforeEpilogue?: PreviousEvent | undefined;
  /** Return at once; wait for the event before touching results or operands. @default false */
  readonly asyncWithComputeStream?: boolean;
  /** There is one heap, so it changes nothing but what `previousEvent` asks for. @default false */
  readonly allocateOnCommStream?: boolean;
}

/** Options of `ElasticBuffer.dispatch`. */
export interface DispatchOptions extends StreamOptions {
  /** `[tokens, k]` i64, −1 for no selection. Not with a handle. */
  readonly topkIdx?: Tensor | undefined;
  /** `[tokens, k]` f32. */
  readonly topkWeights?: Tensor | undefined;
  /** `[local experts]` i32; selections received are added to it. Not with a handle. */
  readonly cumulativeLocalExpertRecvStats?: Tensor | undefined;
  /** @default the handle's */
  readonly numExperts?: number | undefined;
  /** The same on all ranks. @default the handle's or the buffer's */
  readonly numMaxTokensPerRank?: number | undefined;
  /** Each local expert's count is filled up to a multiple of it. @default 1 */
  readonly expertAlignment?: number | undefined;
  /** Of an earlier dispatch of the same selection; no counts are exchanged then. */
  readonly handle?: EPHandle | undefined;
  /** The handle keeps a copy of `topkIdx`. @default true */
  readonly doHandleCopy?: boolean;
  /**
   * Wait for the counts, and make results of just the size; else of the largest size there may be.
   *
   * @default true; false with a handle
   */
  readonly doCpuSync?: boolean | undefined;
  /** One row for each selection, grouped by expert. @default false; the handle's */
  readonly doExpand?: boolean | undefined;
  /** Expanded: write zeros where an expert's rows are filled up. @default false */
  readonly doZeroPadding?: boolean;
  /** Received scales lie column by column, each column from a multiple of 4 rows on. */
  readonly useTmaAlignedColMajorSf?: boolean;
}

/** What arrives. Disposing it gives its memory to later results; the handle stays. */
export interface DispatchResult<X extends TokenInput = TokenInput> extends Disposable {
  /** The same types as were sent: `[received, hidden]`, and the scales. */
  readonly recvX: X;
  /** `[received, k]` i64 of local experts, −1 for others'; undefined in the expanded layout. */
  readonly recvTopkIdx: Tensor<"i64"> | undefined;
  /** `[received, k]` f32, or `[rows]` in the expanded layout; undefined if none were sent. */
  readonly recvTopkWeights: Tensor<"f32"> | undefined;
  readonly handle: EPHandle;
  readonly event: EventOverlap;
}
