// The first half of a dispatch: ranks exchange their counts, after which each knows the place of
// every row, and the handle is made.

import { Tensor } from "@open-infra/tensor";
import type { ElasticCore } from "./core.ts";
import type { Job } from "./dispatch-job.ts";
import type { DispatchOptions } from "./dispatch-options.ts";
import { EPHandle, type Routes } from "./handle.ts";
import { notifyKernel } from "./kernels.ts";
import { alignUp } from "./sizes.ts";

/** What the kernel counts and places. */
interface Counted extends Omit<Routes, "forwardPlaces"> {
  /** A copy, if one was asked for. */
  readonly topkCopy: Tensor<"i64"> | undefined;
  readonly dstSlots: Tensor<"i32">;
  readonly psumRanks: Tensor<"i32">;
  readonly psumExperts: Tensor<"i32">;
  /** Received tokens, rows of the expanded layout. */
  readonly totals: Tensor<"i64">;
}

/** Exchanges counts; with `doCpuSync` waits for them. */
export function notify(
  core: ElasticCore,
  job: Job,
  options: DispatchOptions,
  doCpuSync: boolean,
): EPHandle {
  const counted = makeCounted(core, job, options.doHandleCopy ?? true);
  const { topkCopy, dstSlots, psumRanks, psumExperts, totals } = counted;
  const values = {
    window: core.window,
    work: core.work,
    round: core.next("counts"),
    counts_at: core.plan.countsAt,
    counts_stride: core.plan.countsStride,
    nodes: core.scaleout,
    scaleup_ranks: core.scaleup,
    tokens: job.tokens,
    topk: job.topk,
    experts: job.numExperts,
    max_tokens: job.numMaxTokensPerRank,
    row_bytes: job.rowBytes,
    alignment: job.expertAlignment,
    sf_packs: job.sfPacks,
    weighted: job.weights === undefined ? 0 : 1,
    expanded: job.doExpand ? 1 : 0,
    topk_idx: job.topkIdx,
    topk_copy: topkCopy ?? null,
    dst_slots: dstSlots,
    dst_expanded: counted.dstExpanded ?? null,
    dst_forwards: counted.dstForwards ?? null,
    rank_counts: counted.rankCounts,
    node_counts: counted.nodeCounts,
    psum_ranks: psumRanks,
    psum_experts: psumExperts,
    expert_counts: counted.expertCounts,
    stats: options.cumulativeLocalExpertRecvStats ?? null,
    totals,
  };
  const run = { operation: "dispatch", ...core.threads(job.numSms), wait: doCpuSync };
  core.launch(notifyKernel, values, run);
  const sizes = doCpuSync ? exactSizes(core, counted) : worstSizes(core, job);
  if (doCpuSync) totals[Symbol.dispose]();
  return makeHandle(core, job, counted, sizes, doCpuSync);
}

function makeCounted(core: ElasticCore, job: Job, copy: boolean): Counted {
  const { tokens, topk } = job;
  const { size, scaleout } = core;
  const local = job.numExperts / size;
  const ints = (...shape: number[]): Tensor<"i32"> => core.memory.tensor("i32", shape, "handle");
  const perSelection = (): Tensor<"i32"> => ints(tokens, topk);
  return {
    topkCopy: copy ? core.memory.tensor("i64", [tokens, topk], "topkIdx") : undefined,
    dstSlots: perSelection(),
    psumRanks: ints(core.scaleup),
    psumExperts: ints(local),
    totals: Tensor.empty([2], "i64"),
    rankCounts: ints(size, size),
    nodeCounts: ints(size, scaleout),
    expertCounts: ints(local),
    dstExpanded: job.doExpand ? perSelection() : undefined,
    dstForwards: scaleout > 1 ? perSelection() : undefined,
  };
}

function makeHandle(
  core: ElasticCore,
  job: Job,
  counted: Counted,
  sizes: Sizes,
  exact: boolean,
): EPHandle {
  const { topk, expertAlignment } = job;
  const { rankCounts, nodeCounts, expertCounts, dstExpanded, dstForwards } = counted;
  const forwarded = (columns: number): Tensor<"i32"> | undefined =>
    core.scaleout > 1
      ? core.memory.tensor("i32", [sizes.forwarded, columns], "forwarded")
      : undefined;
  const aligned = (count: number): number => alignUp(count, expertAlignment);
  const forwardPlaces = forwarded(topk);
  return new EPHandle({
    doExpand: job.doExpand,
    numExperts: job.numExperts,
    expertAlignment,
    numMaxTokensPerRank: job.numMaxTokensPerRank,
    numSms: job.numSms,
    topkIdx: counted.topkCopy ?? job.topkIdx,
    ownsTopkIdx: counted.topkCopy !== undefined,
    psumNumRecvTokensPerScaleupRank: counted.psumRanks,
    psumNumRecvTokensPerExpert: counted.psumExperts,
    numUnalignedRecvTokensPerExpert: job.doExpand ? expertCounts : undefined,
    numRecvTokensPerExpertList: exact ? Array.from(expertCounts.raw(), aligned) : [],
    recvSrcMetadata: core.memory.tensor("i32", [sizes.received, topk + 2], "recvSrcMetadata"),
    dstBufferSlotIdx: counted.dstSlots,
    tokenMetadataAtForward: forwarded(2 + 2 * topk),
    numRecvTokens: sizes.received,
    numExpandedTokens: sizes.expanded,
    routes: { rankCounts, nodeCounts, expertCounts, dstExpanded, dstForwards, forwardPlaces },
  });
}

interface Sizes {
  readonly received: number;
  readonly expanded: number;
  readonly forwarded: number;
}

function exactSizes(core: ElasticCore, counted: Counted): Sizes {
  const [received, expanded] = counted.totals.raw();
  const { group, scaleout, scaleup } = core;
  const node = Math.floor(group.rank / scaleup);
  let forwarded = 0;
  for (let i = 0; i < scaleout; i++) {
    const source = i * scaleup + (group.rank % scaleup);
    forwarded += counted.nodeCounts.raw()[source * scaleout + node] as number;
  }
  return { received: Number(received), expanded: Number(expanded), forwarded };
}

function worstSizes(core: ElasticCore, job: Job): Sizes {
  const received = job.numMaxTokensPerRank * core.size;
  const local = job.numExperts / core.size;
  const align = job.expertAlignment;
  const selections = received * Math.min(job.topk, local);
  const expanded = alignUp(selections + (align - 1) * local, align);
  return { received, expanded, forwarded: core.scaleout * job.numMaxTokensPerRank };
}
