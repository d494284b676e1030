// Tokens to the ranks of their experts: checks what came, lets ranks exchange counts, makes room
// for what will arrive, and lets the tokens go. The work is done by kernels/elastic_notify.c and
// elastic_dispatch.c on the group's communication stream.

import { InputError } from "@open-infra/errors";
import type { CommEvent } from "@open-infra/ranks";
import type { Tensor } from "@open-infra/tensor";
import { EventOverlap } from "../event.ts";
import { planDispatch } from "./capacity.ts";
import type { ElasticCore } from "./core.ts";
import { checkJob, checkRoom, checkStreamOptions, type Job } from "./dispatch-job.ts";
import type { DispatchOptions, DispatchResult, TokenInput } from "./dispatch-options.ts";
import type { EPHandle } from "./handle.ts";
import { dispatchKernel } from "./kernels.ts";
import { notify } from "./notify.ts";
import { alignUp } from "./sizes.ts";

/** Dispatches; see `ElasticBuffer.dispatch`. */
export function dispatchTokens<X extends TokenInput>(
  core: ElasticCore,
  input: X,
  options: DispatchOptions,
  defaultMaxTokens: number,
): DispatchResult<X> {
  const { handle } = options;
  checkStreamOptions(options);
  const job = checkJob(core, input, options, defaultMaxTokens);
  checkRoom(core, job);
  const doCpuSync = options.doCpuSync ?? handle === undefined;
  if (handle !== undefined && doCpuSync) {
    throw new InputError("doCpuSync", "true with a handle", "false: the handle has the counts");
  }
  core.settle(options.previousEvent);
  const made = handle ?? notify(core, job, options, doCpuSync);
  core.settle(options.previousEventBeforeEpilogue);
  const results = makeResults(core, job, made, options.useTmaAlignedColMajorSf ?? false);
  const event = launch(core, job, { handle: made, results, options });
  const overlap = new EventOverlap(event, [input, results, made]);
  const { recvX, recvSf, recvTopkIdx, recvTopkWeights } = results;
  const received = recvSf === undefined ? recvX : ([recvX, recvSf] as const);
  return {
    recvX: received as X,
    recvTopkIdx,
    recvTopkWeights,
    handle: made,
    event: overlap,
    [Symbol.dispose]: () => {
      for (const t of Object.values(results)) t?.[Symbol.dispose]();
    },
  };
}

interface Results {
  /** Scales as they come, where `recvSf` is made of them: row by row. */
  readonly sfRows: Tensor | undefined;
  readonly recvX: Tensor;
  readonly recvSf: Tensor | undefined;
  readonly recvTopkIdx: Tensor<"i64"> | undefined;
  readonly recvTopkWeights: Tensor<"f32"> | undefined;
}

function makeResults(core: ElasticCore, job: Job, handle: EPHandle, columns: boolean): Results {
  const { memory } = core;
  const { topk, sfPacks, sf } = job;
  const received = handle.numRecvTokens;
  const rows = job.doExpand ? handle.numExpandedTokens : received;
  // Columns of a whole number of 16 bytes, which the next multiplication reads.
  const strides = columns ? [1, alignUp(Math.max(rows, 1), 4)] : [sfPacks, 1];
  const weightShape = job.doExpand ? [rows] : [received, topk];
  const turned = columns && sf !== undefined;
  return {
    sfRows: turned ? memory.tensor(sf.dtype, [rows, sfPacks], "sfRows") : undefined,
    recvX: memory.tensor(job.x.dtype, [rows, job.x.dim(1)], "recvX"),
    recvSf:
      sf === undefined ? undefined : memory.tensor(sf.dtype, [rows, sfPacks], "recvSf", strides),
    recvTopkIdx: job.doExpand ? undefined : memory.tensor("i64", [received, topk], "recvTopkIdx"),
    recvTopkWeights:
      job.weights === undefined ? undefined : memory.tensor("f32", weightShape, "recvTopkWeights"),
  };
}

function launch(
  core: ElasticCore,
  job: Job,
  part: {
    readonly handle: EPHandle;
    readonly results: Results;
    readonly options: DispatchOptions;
  },
): CommEvent {
  const { handle, results, options } = part;
  const { routes } = handle;
  const { recvSf, sfRows } = results;
  const rowSf = sfRows ?? recvSf;
  const cached = options.handle !== undefined;
  const shape = core.recordShape(job.numMaxTokensPerRank, job.topk);
  const { dataAt, messagesAt } = core.plan;
  const values = {
    window: core.window,
    work: core.work,
    reach: core.reach,
    epoch: core.next("operation"),
    messages_at: messagesAt,
    data_at: dataAt,
    nodes: core.scaleout,
    tokens: job.tokens,
    topk: job.topk,
    experts: job.numExperts,
    max_tokens: job.numMaxTokensPerRank,
    weighted: job.weights === undefined ? 0 : 1,
    expanded: job.doExpand ? 1 : 0,
    x: job.x,
    topk_idx: handle.topkIdx,
    dst_slots: handle.dstBufferSlotIdx,
    dst_expanded: routes.dstExpanded ?? null,
    dst_forwards: routes.dstForwards ?? null,
    rank_counts: routes.rankCounts,
    node_counts: routes.nodeCounts,
    forward_meta: cached ? null : (handle.tokenMetadataAtForward ?? null),
    forward_places: cached ? null : (routes.forwardPlaces ?? null),
    cached: cached ? 1 : 0,
    forward_at: planDispatch(shape, job.rowBytes, job.sfPacks, dataAt).secondAt,
    row_bytes: job.rowBytes,
    alignment: job.expertAlignment,
    sf_packs: job.sfPacks,
    sf: job.sf ?? null,
    sf_token_stride: job.sf?.stride(0) ?? 0,
    sf_pack_stride: job.sf?.stride(1) ?? 0,
    weights: job.weights ?? null,
    psum_experts: handle.psumNumRecvTokensPerExpert,
    zero_padding: options.doZeroPadding ? 1 : 0,
    out_rows: handle.numRecvTokens,
    out_x: results.recvX,
    out_sf: rowSf ?? null,
    out_sf_token_stride: job.sfPacks,
    out_sf_pack_stride: 1,
    sf_columns: sfRows === undefined ? null : (recvSf ?? null),
    sf_column_stride: sfRows === undefined ? 0 : (recvSf?.stride(1) ?? 0),
    out_idx: results.recvTopkIdx ?? null,
    out_weights: results.recvTopkWeights ?? null,
    out_meta: cached ? null : handle.recvSrcMetadata,
  };
  const operation = cached ? "cached dispatch" : "dispatch";
  const wait = !options.asyncWithComputeStream;
  const run = { operation, ...core.threads(job.numSms), keep: part, wait };
  return core.launch(dispatchKernel, values, run);
}
