// What dispatch leaves behind for combine and for further dispatches of the same layout: all
// counts, and the places of this rank's tokens. Everything else follows from them.

import type { Tensor } from "@open-infra/tensor";
import type { EventOverlap } from "../event.ts";

/** What a handle is made of. */
export interface HandleInit {
  readonly rank: number;
  readonly size: number;
  readonly nodes: number;
  readonly ranksPerNode: number;
  readonly numTokens: number;
  readonly numExperts: number;
  /** Rows of the received tensors, with those of `numWorstTokens` beyond the real ones. */
  readonly numRecvRows: number;
  readonly isTokenInRank: Tensor<"u8">;
  readonly counts: Tensor<"i32">;
  readonly nodeCounts: Tensor<"i32">;
  readonly receivedPerExpert: Tensor<"i32">;
  readonly positions: Tensor<"i32">;
  readonly nodePositions: Tensor<"i32">;
  readonly forwardPositions: Tensor<"i32"> | undefined;
  readonly recvSrcIdx: Tensor<"i32">;
}

/** One layout of a dispatch. With `asyncFinish` its numbers are there once the event is done. */
export class DispatchHandle {
  readonly rank: number;
  readonly size: number;
  readonly nodes: number;
  readonly ranksPerNode: number;
  readonly numTokens: number;
  readonly numExperts: number;
  readonly numRecvRows: number;
  /** `[tokens, ranks]` of 0 and 1. */
  readonly isTokenInRank: Tensor<"u8">;
  /** `[ranks, ranks]`: tokens that the first sends the second. */
  readonly counts: Tensor<"i32">;
  /** `[ranks, nodes]`: tokens that a rank sends a node. */
  readonly nodeCounts: Tensor<"i32">;
  /** `[local experts]`, not aligned. */
  readonly receivedPerExpert: Tensor<"i32">;
  /** `[tokens, ranks]`: a token's place among those of this rank for another, or −1. */
  readonly positions: Tensor<"i32">;
  /** `[tokens, nodes]`: the same for nodes. */
  readonly nodePositions: Tensor<"i32">;
  /** `[forwarded, ranks of a node]`: where each token that this rank forwards went. */
  readonly forwardPositions: Tensor<"i32"> | undefined;
  /** `[rows]`: the token, of its own rank, that a row is. */
  readonly recvSrcIdx: Tensor<"i32">;
  /** The dispatch that made it. */
  event: EventOverlap | undefined;

  constructor(init: HandleInit) {
    this.rank = init.rank;
    this.size = init.size;
    this.nodes = init.nodes;
    this.ranksPerNode = init.ranksPerNode;
    this.numTokens = init.numTokens;
    this.numExperts = init.numExperts;
    this.numRecvRows = init.numRecvRows;
    this.isTokenInRank = init.isTokenInRank;
    this.counts = init.counts;
    this.nodeCounts = init.nodeCounts;
    this.receivedPerExpert = init.receivedPerExpert;
    this.positions = init.positions;
    this.nodePositions = init.nodePositions;
    this.forwardPositions = init.forwardPositions;
    this.recvSrcIdx = init.recvSrcIdx;
  }

  /** Tokens from `source` to `to`. */
  count(source: number, to: number): number {
    return this.counts.raw()[source * this.size + to] as number;
  }

  /** Tokens from `source` to `node`. */
  nodeCount(source: number, node: number): number {
    return this.nodeCounts.raw()[source * this.nodes + node] as number;
  }

  /** Tokens that this rank really received. */
  get numRecvTokens(): number {
    let rows = 0;
    for (let source = 0; source < this.size; source++) rows += this.count(source, this.rank);
    return rows;
  }

  /**
   * `[ranks][ranks]`: `[i][r]` is how many rows of rank r come from ranks up to i (the original's
   * `rank_prefix_matrix`).
   */
  get rankPrefixMatrix(): number[][] {
    const sums = new Array<number>(this.size).fill(0);
    return sums.map((_, source) => {
      for (let to = 0; to < this.size; to++) {
        sums[to] = (sums[to] as number) + this.count(source, to);
      }
      return [...sums];
    });
  }
}
