// Who gets which token: the counts and the mask that dispatch starts from. A token counts once for
// a rank and once for a node, however many of its experts live there, but once for each expert. The
// kernel is kernels/ep_layout.c; the function here is the same in plain TypeScript, for tests and
// for callers without a group.

import { InputError } from "@open-infra/errors";
import { Tensor } from "@open-infra/tensor";
import { expectCount } from "./config.ts";

/** What {@link dispatchLayout} and `Buffer.getDispatchLayout` give. */
export interface DispatchLayout {
  /** `[ranks]` i32. */
  readonly numTokensPerRank: Tensor<"i32">;
  /** `[nodes]` i32; undefined where there is one node. */
  readonly numTokensPerRdmaRank: Tensor<"i32"> | undefined;
  /** `[experts]` i32. */
  readonly numTokensPerExpert: Tensor<"i32">;
  /** `[tokens, ranks]` of 0 and 1. */
  readonly isTokenInRank: Tensor<"u8">;
}

/** What the layout depends on besides the selection. */
export interface LayoutShape {
  readonly numExperts: number;
  readonly numRanks: number;
  /** @default all ranks */
  readonly ranksPerNode?: number;
}

/**
 * The layout of a selection.
 *
 * @param topkIdx `[tokens, k]` i64 of experts; −1 selects nothing.
 * @throws InputError
 */
export function dispatchLayout(topkIdx: Tensor<"i64">, shape: LayoutShape): DispatchLayout {
  const { numExperts, numRanks, ranksPerNode = numRanks } = shape;
  checkExperts(numExperts, numRanks);
  const [tokens, topk] = expectTopk(topkIdx);
  const nodes = Math.ceil(numRanks / ranksPerNode);
  const perRank = Tensor.empty([numRanks], "i32");
  const perNode = Tensor.empty([nodes], "i32");
  const perExpert = Tensor.empty([numExperts], "i32");
  const inRank = Tensor.empty([tokens, numRanks], "u8");
  const mask = inRank.raw();
  const selection = topkIdx.contiguous().raw();
  const bump = (counts: Tensor<"i32">, i: number): void => {
    counts.raw()[i] = (counts.raw()[i] as number) + 1;
  };
  for (let token = 0; token < tokens; token++) {
    for (let k = 0; k < topk; k++) {
      const expert = Number(selection[token * topk + k]);
      if (expert < 0) continue;
      if (expert >= numExperts) {
        throw new InputError(`topkIdx[${token}][${k}]`, `${expert}`, `−1 to ${numExperts - 1}`);
      }
      bump(perExpert, expert);
      mask[token * numRanks + Math.floor(expert / (numExperts / numRanks))] = 1;
    }
    const seen = new Set<number>();
    for (let rank = 0; rank < numRanks; rank++) {
      if (mask[token * numRanks + rank] === 0) continue;
      bump(perRank, rank);
      seen.add(Math.floor(rank / ranksPerNode));
    }
    for (const node of seen) bump(perNode, node);
  }
  return {
    numTokensPerRank: perRank,
    numTokensPerRdmaRank: nodes > 1 ? perNode : undefined,
    numTokensPerExpert: perExpert,
    isTokenInRank: inRank,
  };
}

/** Experts lie on ranks in equal consecutive parts. @throws InputError */
export function checkExperts(numExperts: number, numRanks: number): void {
  expectCount("numExperts", numExperts, 1);
  if (numExperts % numRanks === 0) return;
  throw new InputError("numExperts", `${numExperts}`, `a multiple of the ${numRanks} ranks`);
}

/** Shape of a selection. @throws InputError */
export function expectTopk(topkIdx: Tensor): readonly [tokens: number, topk: number] {
  if (topkIdx.dtype !== "i64" || topkIdx.rank !== 2) {
    throw new InputError("topkIdx", topkIdx.describe(), "i64 of [tokens, k]");
  }
  return [topkIdx.dim(0), topkIdx.dim(1)];
}
