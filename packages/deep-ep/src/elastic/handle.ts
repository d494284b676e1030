// What dispatch knows of where its tokens went: given to combine, which takes the same way back,
// and to later dispatches of the same selection, which then need no counts.

import type { Tensor } from "@open-infra/tensor";

/** Fields of a handle that have no use outside the kernels. */
export interface Routes {
  /** `[ranks from, ranks to]` tokens. */
  readonly rankCounts: Tensor<"i32">;
  /** `[ranks from, nodes to]` tokens. */
  readonly nodeCounts: Tensor<"i32">;
  /** `[local experts]` selections, not aligned. */
  readonly expertCounts: Tensor<"i32">;
  /** Expanded: `[tokens, k]`, the slot of each selection at its expert's rank. */
  readonly dstExpanded: Tensor<"i32"> | undefined;
  /** Hybrid: `[tokens, k]`, the place among tokens for a node, at the last selection there. */
  readonly dstForwards: Tensor<"i32"> | undefined;
  /** Hybrid: `[forwarded, k]`, the place among its source's tokens for a rank, at the last lane. */
  readonly forwardPlaces: Tensor<"i32"> | undefined;
}

/** What a handle is made of. */
export type EPHandleInit = {
  readonly [K in Exclude<keyof EPHandle, typeof Symbol.dispose>]: EPHandle[K];
};

/**
 * The way of a dispatch. A rank's received tokens lie in the order of `rank · numMaxTokensPerRank +
 * token` of their source, always; in the expanded layout each expert's do.
 */
export class EPHandle implements Disposable {
  /** One row for each selection, grouped by expert, instead of one for each token. */
  readonly doExpand: boolean;
  readonly numExperts: number;
  readonly expertAlignment: number;
  readonly numMaxTokensPerRank: number;
  /** Threads asked for; 0 all of the communication stream. */
  readonly numSms: number;
  /** `[tokens, k]` i64; the caller's own tensor with `doHandleCopy: false`. */
  readonly topkIdx: Tensor<"i64">;
  /** Whether `topkIdx` is the handle's copy. */
  readonly ownsTopkIdx: boolean;
  /**
   * `[scale-up ranks]` i32: tokens received from this rank and those before, each counted once; the
   * last is all. With nodes, a rank stands for those of all nodes that have its place.
   */
  readonly psumNumRecvTokensPerScaleupRank: Tensor<"i32">;
  /**
   * `[local experts]` i32. Not expanded: selections up to and with this expert, each expert's count
   * aligned. Expanded: where this expert's rows end; the next one's begin at that, aligned.
   */
  readonly psumNumRecvTokensPerExpert: Tensor<"i32">;
  /** Expanded: `[local experts]` i32, not aligned. */
  readonly numUnalignedRecvTokensPerExpert: Tensor<"i32"> | undefined;
  /** Aligned counts; empty without CPU sync. */
  readonly numRecvTokensPerExpertList: readonly number[];
  /**
   * `[received, k + 2]` i32: the source as `rank · numMaxTokensPerRank + token`; the rank it came
   * from (with nodes: that rank's place in its node) `· k +` its last lane here; then the slot of
   * each selection in the expanded layout, −1 for none. Rows beyond those received are −1.
   */
  readonly recvSrcMetadata: Tensor<"i32">;
  /**
   * `[tokens, k]` i32: this rank `· numMaxTokensPerRank +` the place among the tokens for a rank,
   * at the last selection there; −1 elsewhere.
   */
  readonly dstBufferSlotIdx: Tensor<"i32">;
  /**
   * Hybrid: `[forwarded, 2 + 2k]` i32 of the tokens that this rank passed on in its node: the
   * source, whether it is that source's last one, the place of each selection's rank in the node or
   * −1, and the row (expanded: the slot) there.
   */
  readonly tokenMetadataAtForward: Tensor<"i32"> | undefined;
  /** Received tokens; without CPU sync as many as there may be. */
  readonly numRecvTokens: number;
  /** Rows of the expanded layout, aligned; without CPU sync as many as there may be. */
  readonly numExpandedTokens: number;
  /** For the kernels. */
  readonly routes: Routes;

  /** Called by dispatch. */
  constructor(init: EPHandleInit) {
    this.doExpand = init.doExpand;
    this.numExperts = init.numExperts;
    this.expertAlignment = init.expertAlignment;
    this.numMaxTokensPerRank = init.numMaxTokensPerRank;
    this.numSms = init.numSms;
    this.topkIdx = init.topkIdx;
    this.ownsTopkIdx = init.ownsTopkIdx;
    this.psumNumRecvTokensPerScaleupRank = init.psumNumRecvTokensPerScaleupRank;
    this.psumNumRecvTokensPerExpert = init.psumNumRecvTokensPerExpert;
    this.numUnalignedRecvTokensPerExpert = init.numUnalignedRecvTokensPerExpert;
    this.numRecvTokensPerExpertList = init.numRecvTokensPerExpertList;
    this.recvSrcMetadata = init.recvSrcMetadata;
    this.dstBufferSlotIdx = init.dstBufferSlotIdx;
    this.tokenMetadataAtForward = init.tokenMetadataAtForward;
    this.numRecvTokens = init.numRecvTokens;
    this.numExpandedTokens = init.numExpandedTokens;
    this.routes = init.routes;
  }

  /** Gives its memory to later dispatches; `topkIdx` only if it is a copy. */
  [Symbol.dispose](): void {
    const { routes } = this;
    const tensors = [
      ...(this.ownsTopkIdx ? [this.topkIdx] : []),
      this.psumNumRecvTokensPerScaleupRank,
      this.psumNumRecvTokensPerExpert,
      this.recvSrcMetadata,
      this.dstBufferSlotIdx,
      this.tokenMetadataAtForward,
      routes.rankCounts,
      routes.nodeCounts,
      routes.expertCounts,
      routes.dstExpanded,
      routes.dstForwards,
      routes.forwardPlaces,
    ];
    for (const tensor of tensors) tensor?.[Symbol.dispose]();
  }
}
