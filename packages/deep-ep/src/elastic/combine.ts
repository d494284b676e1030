// Rows back to where their tokens came from, summed. The sums are made by
// kernels/elastic_combine.c on the group's communication stream.

import { InputError } from "@open-infra/errors";
import { expectContiguous, Tensor } from "@open-infra/tensor";
import { EventOverlap } from "../event.ts";
import { planCombine } from "./capacity.ts";
import type { ElasticCore } from "./core.ts";
import { checkStreamOptions, expectRoom, expectShape } from "./dispatch-job.ts";
import type { StreamOptions } from "./dispatch-options.ts";
import type { EPHandle } from "./handle.ts";
import { combineKernel } from "./kernels.ts";

/** Options of `ElasticBuffer.combine`. */
export interface CombineOptions extends StreamOptions {
  readonly handle: EPHandle;
  /** `[received, k]` f32, or `[rows]` of the expanded layout; each goes back to its selection. */
  readonly topkWeights?: Tensor | undefined;
  /** One or two `[tokens, hidden]` bf16 that the sums begin with. */
  readonly bias?: Tensor | readonly [Tensor, Tensor] | undefined;
}

/** The sums. Disposing them gives their memory to later results. */
export interface CombineResult extends Disposable {
  /** `[tokens, hidden]` bf16, in the order of the dispatched tokens. */
  readonly combinedX: Tensor<"bf16">;
  /** `[tokens, k]` f32, 0 where nothing was selected; undefined if none were sent. */
  readonly combinedTopkWeights: Tensor<"f32"> | undefined;
  readonly event: EventOverlap;
}

/** Combines; see `ElasticBuffer.combine`. */
export function combineRows(core: ElasticCore, x: Tensor, options: CombineOptions): CombineResult {
  const { handle } = options;
  checkStreamOptions(options);
  const { routes } = handle;
  const { hidden, bias0, bias1 } = checkOperands(x, options);
  const [tokens, topk] = handle.topkIdx.shape as [number, number];
  const weights = options.topkWeights;
  core.settle(options.previousEvent);
  core.settle(options.previousEventBeforeEpilogue);
  // One sum of all rows gains nothing from nodes: each row crosses as it is.
  const single = !core.allowMultipleReduction;
  const nodes = single ? 1 : core.scaleout;
  const plan = planRoom(core, handle, hidden, nodes);
  const combinedX = core.memory.tensor("bf16", [tokens, hidden], "combinedX");
  const combinedTopkWeights =
    weights === undefined
      ? undefined
      : core.memory.tensor("f32", [tokens, topk], "combinedWeights");
  const values = {
    window: core.window,
    work: core.work,
    reach: core.reach,
    epoch: core.next("operation"),
    messages_at: core.plan.messagesAt,
    data_at: core.plan.dataAt,
    nodes,
    tokens,
    topk,
    experts: handle.numExperts,
    max_tokens: handle.numMaxTokensPerRank,
    weighted: weights === undefined ? 0 : 1,
    expanded: handle.doExpand ? 1 : 0,
    x,
    topk_idx: handle.topkIdx,
    dst_slots: handle.dstBufferSlotIdx,
    dst_expanded: routes.dstExpanded ?? null,
    dst_forwards: routes.dstForwards ?? null,
    rank_counts: routes.rankCounts,
    node_counts: routes.nodeCounts,
    forward_meta: handle.tokenMetadataAtForward ?? null,
    forward_places: routes.forwardPlaces ?? null,
    reduce_at: plan.secondAt,
    hidden,
    single: single ? 1 : 0,
    weights: weights ?? null,
    bias0: bias0 ?? null,
    bias1: bias1 ?? null,
    src_meta: handle.recvSrcMetadata,
    out_x: combinedX,
    out_weights: combinedTopkWeights ?? null,
  };
  const threads = core.threads(options.numSms ?? handle.numSms);
  const wait = !options.asyncWithComputeStream;
  const event = core.launch(combineKernel, values, {
    ...{ operation: "combine", ...threads, keep: handle, wait },
  });
  return {
    combinedX,
    combinedTopkWeights,
    event: new EventOverlap(event, [values]),
    [Symbol.dispose]: () => {
      combinedX[Symbol.dispose]();
      combinedTopkWeights?.[Symbol.dispose]();
    },
  };
}

interface Operands {
  readonly hidden: number;
  readonly bias0: Tensor | undefined;
  readonly bias1: Tensor | undefined;
}

function checkOperands(x: Tensor, { handle, topkWeights, bias }: CombineOptions): Operands {
  const { doExpand, numExpandedTokens, numRecvTokens } = handle;
  const rows = doExpand ? numExpandedTokens : numRecvTokens;
  if (x.dtype !== "bf16" || x.rank !== 2 || x.dim(0) !== rows || x.dim(1) < 1) {
    const what = doExpand ? "numExpandedTokens" : "numRecvTokens";
    throw new InputError("x", x.describe(), `bf16 of [${rows}, hidden]: the handle's ${what}`);
  }
  expectContiguous("combine", "x", x);
  const [tokens, topk] = handle.topkIdx.shape as [number, number];
  const hidden = x.dim(1);
  expectShape("topkWeights", topkWeights, "f32", doExpand ? [rows] : [rows, topk]);
  const [bias0, bias1] = bias instanceof Tensor ? [bias] : (bias ?? []);
  expectShape("bias", bias0, "bf16", [tokens, hidden]);
  expectShape("bias", bias1, "bf16", [tokens, hidden]);
  return { hidden, bias0, bias1 };
}

function planRoom(core: ElasticCore, handle: EPHandle, hidden: number, nodes: number) {
  const topk = handle.topkIdx.dim(1);
  const shape = core.recordShape(handle.numMaxTokensPerRank, topk);
  const level = nodes === 1 ? { ...shape, scaleout: 1, scaleup: core.size } : shape;
  const allRowsTravel = handle.doExpand && !core.allowMultipleReduction;
  const plan = planCombine(level, hidden, { allRowsTravel }, core.plan.dataAt);
  expectRoom(core, "combine", plan.bytes);
  return plan;
}
