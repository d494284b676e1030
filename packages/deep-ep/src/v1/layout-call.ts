// The layout as a call on a buffer: kernels/ep_layout.c on the communication threads.

import { InputError } from "@open-infra/errors";
import { Tensor } from "@open-infra/tensor";
import type { EventOverlap } from "../event.ts";
import { checkExperts, type DispatchLayout, expectTopk } from "../layout.ts";
import { layoutKernel } from "./kernels.ts";
import type { CallOptions, Operations } from "./operation.ts";

/** A layout and when it is there. */
export interface LayoutResult extends DispatchLayout {
  readonly event: EventOverlap;
}

/** See `Buffer.getDispatchLayout`. */
export function getDispatchLayout(
  ops: Operations,
  topkIdx: Tensor<"i64">,
  numExperts: number,
  options: CallOptions,
): LayoutResult {
  ops.begin(options);
  const { size, nodes, ranksPerNode, stream } = ops.group;
  checkExperts(numExperts, size);
  const [tokens, topk] = expectTopk(topkIdx);
  const threads = Math.min(ops.numWorkers, stream.threads);
  const perRank = Tensor.empty([size], "i32");
  const perNode = Tensor.empty([nodes], "i32");
  const perExpert = Tensor.empty([numExperts], "i32");
  const inRank = Tensor.empty([tokens, size], "u8");
  const bad = Tensor.from([-1], [1], "i64");
  const event = ops.group.enqueue(
    layoutKernel,
    {},
    {
      topk_idx: topkIdx.contiguous(),
      topk,
      tokens,
      experts: numExperts,
      ranks: size,
      ranks_per_node: ranksPerNode,
      per_rank: perRank,
      per_node: perNode,
      per_expert: perExpert,
      in_rank: inRank,
      partial: Tensor.empty([threads, size + nodes + numExperts], "i32"),
      bad,
    },
    { threads },
  );
  const check = (): void => {
    const at = Number(bad.raw()[0]);
    if (at < 0) return;
    const where = `topkIdx[${Math.floor(at / topk)}][${at % topk}]`;
    const got = `${topkIdx.contiguous().raw()[at]}`;
    throw new InputError(where, got, `−1 to ${numExperts - 1}`);
  };
  return {
    numTokensPerRank: perRank,
    numTokensPerRdmaRank: nodes > 1 ? perNode : undefined,
    numTokensPerExpert: perExpert,
    isTokenInRank: inRank,
    event: ops.finish(event, options, [perRank, perNode, perExpert, inRank], check),
  };
}
