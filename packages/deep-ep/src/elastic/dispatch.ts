// Tokens to the ranks of their experts: checks what came, lets the ranks exchange counts, makes room
// for what will arrive, and lets the tokens go. The work is done by kernels/elastic_notify.c and
// elastic_dispatch.c on the group's communication stream.

import { InputError } from "@open-infra/errors";
import type { CommEvent } from "@open-infra/ranks";
import { dtypeBits, expectContiguous, Tensor } from "@open-infra/tensor";
import { expectCount } from "../config.ts";
import { BufferCapacityError } from "../errors.ts";
import { EventOverlap } from "../event.ts";
import { checkExperts, expectTopk } from "../layout.ts";
import { planDispatch } from "./capacity.ts";
import type { ElasticCore } from "./core.ts";
import { EPHandle, type Routes } from "./handle.ts";
import { dispatchKernel, notifyKernel } from "./kernels.ts";
import { alignUp } from "./sizes.ts";

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

/** What arrives. */
export interface DispatchResult<X extends TokenInput = TokenInput> {
  /** The same types as were sent: `[received, hidden]`, and the scales. */
  readonly recvX: X;
  /** `[received, k]` i64 of local experts, −1 for others'; undefined in the expanded layout. */
  readonly recvTopkIdx: Tensor<"i64"> | undefined;
  /** `[received, k]` f32, or `[rows]` in the expanded layout; undefined if none were sent. */
  readonly recvTopkWeights: Tensor<"f32"> | undefined;
  readonly handle: EPHandle;
  readonly event: EventOverlap;
}

/** What a dispatch is about, checked. */
interface Job {
  readonly x: Tensor;
  readonly sf: Tensor | undefined;
  readonly topkIdx: Tensor<"i64">;
  readonly weights: Tensor | undefined;
  readonly tokens: number;
  readonly topk: number;
  readonly rowBytes: number;
  readonly sfPacks: number;
  readonly numExperts: number;
  readonly numMaxTokensPerRank: number;
  readonly expertAlignment: number;
  readonly doExpand: boolean;
  readonly numSms: number;
}

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
  const { routes, made } =
    handle === undefined
      ? notify(core, job, options, doCpuSync)
      : { routes: handle.routes, made: handle };
  core.settle(options.previousEventBeforeEpilogue);
  const results = makeResults(core, job, made, options.useTmaAlignedColMajorSf ?? false);
  const meta = handle?.recvSrcMetadata ?? made.recvSrcMetadata;
  const event = launch(core, job, { handle: made, routes, results, meta, options });
  const overlap = new EventOverlap(event, [input, results, made]);
  if (!options.asyncWithComputeStream) overlap.currentStreamWait();
  const { recvX, recvSf, recvTopkIdx, recvTopkWeights } = results;
  const received = recvSf === undefined ? recvX : ([recvX, recvSf] as const);
  return { recvX: received as X, recvTopkIdx, recvTopkWeights, handle: made, event: overlap };
}

/** @throws InputError for a previous event without memory of the communication stream's */
export function checkStreamOptions(options: StreamOptions): void {
  expectCount("numSms", options.numSms ?? 0, 0);
  if (options.previousEvent === undefined || options.allocateOnCommStream) return;
  throw new InputError("allocateOnCommStream", "false", "true where previousEvent is given");
}

function checkJob(
  core: ElasticCore,
  input: TokenInput,
  options: DispatchOptions,
  defaultMaxTokens: number,
): Job {
  const { handle } = options;
  const [x, sf] = input instanceof Tensor ? [input, undefined] : input;
  if (handle !== undefined) checkAgainstHandle(handle, options);
  const topkIdx = handle?.topkIdx ?? options.topkIdx;
  if (topkIdx === undefined) throw new InputError("topkIdx", "none", "a tensor, or a handle");
  const [tokens, topk] = expectTopk(topkIdx);
  expectContiguous("dispatch", "topkIdx", topkIdx);
  const numExperts = options.numExperts ?? handle?.numExperts;
  if (numExperts === undefined) throw new InputError("numExperts", "none", "a number");
  checkExperts(numExperts, core.size);
  const numMaxTokensPerRank =
    options.numMaxTokensPerRank ?? handle?.numMaxTokensPerRank ?? defaultMaxTokens;
  const expertAlignment = options.expertAlignment ?? handle?.expertAlignment ?? 1;
  expectCount("numMaxTokensPerRank", numMaxTokensPerRank, 1);
  expectCount("expertAlignment", expertAlignment, 1);
  if (tokens > numMaxTokensPerRank) {
    const allowed = `at most numMaxTokensPerRank, ${numMaxTokensPerRank}`;
    throw new InputError("tokens", `${tokens}`, allowed);
  }
  if (numMaxTokensPerRank * core.size >= 2 ** 31) {
    const got = `${numMaxTokensPerRank} on ${core.size} ranks`;
    throw new InputError("numMaxTokensPerRank", got, "fewer than 2^31 tokens in all");
  }
  const doExpand = options.doExpand ?? handle?.doExpand ?? false;
  if (options.doZeroPadding && !doExpand) {
    throw new InputError("doZeroPadding", "true without doExpand", "false: there is no padding");
  }
  const weights = options.topkWeights;
  checkTokens(x, sf, tokens);
  expectShape("topkWeights", weights, "f32", [tokens, topk]);
  const stats = options.cumulativeLocalExpertRecvStats;
  expectShape("cumulativeLocalExpertRecvStats", stats, "i32", [numExperts / core.size]);
  if (handle === undefined) checkSelection(topkIdx as Tensor<"i64">, numExperts);
  return {
    x,
    sf,
    topkIdx: topkIdx as Tensor<"i64">,
    weights,
    tokens,
    topk,
    rowBytes: (x.dim(1) * dtypeBits[x.dtype]) / 8,
    sfPacks: sf?.dim(1) ?? 0,
    numExperts,
    numMaxTokensPerRank,
    expertAlignment,
    doExpand,
    numSms: options.numSms ?? handle?.numSms ?? 0,
  };
}

function checkAgainstHandle(handle: EPHandle, options: DispatchOptions): void {
  if (options.topkIdx !== undefined) {
    throw new InputError("topkIdx", "a tensor with a handle", "none: the handle has it");
  }
  if (options.cumulativeLocalExpertRecvStats !== undefined) {
    const allowed = "none: a dispatch with a handle counts nothing";
    throw new InputError("cumulativeLocalExpertRecvStats", "a tensor with a handle", allowed);
  }
  const fields = ["numExperts", "expertAlignment", "numMaxTokensPerRank", "doExpand"] as const;
  for (const field of fields) {
    const given = options[field];
    if (given === undefined || given === handle[field]) continue;
    throw new InputError(field, `${given}`, `the handle's, ${handle[field]}`);
  }
}

function checkTokens(x: Tensor, sf: Tensor | undefined, tokens: number): void {
  const dtype = sf === undefined ? "bf16" : "e4m3fn";
  if (x.dtype !== dtype || x.rank !== 2 || x.dim(0) !== tokens || x.dim(1) < 1) {
    const allowed = `${dtype} of [${tokens}, hidden]${sf === undefined ? "" : " with scales"}`;
    throw new InputError("x", x.describe(), allowed);
  }
  expectContiguous("dispatch", "x", x);
  if (sf === undefined) return;
  const typed = sf.dtype === "f32" || sf.dtype === "i32";
  if (!typed || sf.rank !== 2 || sf.dim(0) !== tokens || sf.dim(1) < 1) {
    throw new InputError("scales", sf.describe(), `f32, or i32 of four bytes, of [${tokens}, n]`);
  }
}

/** @throws InputError unless it is missing or of this type and shape, dense. */
export function expectShape(
  name: string,
  tensor: Tensor | undefined,
  dtype: Tensor["dtype"],
  shape: readonly number[],
): void {
  if (tensor === undefined) return;
  if (tensor.dtype !== dtype || `${tensor.shape}` !== `${shape}`) {
    throw new InputError(name, tensor.describe(), `${dtype} of [${shape}]`);
  }
  expectContiguous("", name, tensor);
}

/** Looks at all experts before any rank hears of it: one bad index must not leave others waiting. */
function checkSelection(topkIdx: Tensor<"i64">, numExperts: number): void {
  const raw = topkIdx.raw();
  const halves = new Int32Array(raw.buffer, raw.byteOffset, raw.length * 2);
  for (let i = 0; i < raw.length; i++) {
    const low = halves[2 * i] as number;
    const high = halves[2 * i + 1] as number;
    const selects = high === 0 && low >= 0 && low < numExperts;
    if (selects || (high === -1 && low === -1)) continue;
    const topk = topkIdx.dim(1);
    const at = `topkIdx[${Math.floor(i / topk)}][${i % topk}]`;
    throw new InputError(at, `${raw[i]}`, `−1 to ${numExperts - 1}`);
  }
}

function checkRoom(core: ElasticCore, job: Job): void {
  const experts = core.plan.countsStride;
  if (job.numExperts + 2 * core.size + 24 > experts) {
    const allowed = `what numMaxExperts of the buffer leaves room for, ${experts - 2 * core.size - 24}`;
    throw new InputError("numExperts", `${job.numExperts}`, allowed);
  }
  const shape = core.recordShape(job.numMaxTokensPerRank, job.topk);
  const { bytes } = planDispatch(shape, job.rowBytes, job.sfPacks, 0);
  expectRoom(core, "dispatch", bytes);
}

/** @throws BufferCapacityError; the same on all ranks, as the sizes are */
export function expectRoom(core: ElasticCore, operation: string, neededBytes: number): void {
  if (neededBytes <= core.numBytes) return;
  const { rank } = core.group;
  throw new BufferCapacityError({ operation, rank, neededBytes, capacityBytes: core.numBytes });
}

/** Exchanges counts; with `doCpuSync` waits for them. */
function notify(
  core: ElasticCore,
  job: Job,
  options: DispatchOptions,
  doCpuSync: boolean,
): { readonly routes: Routes; readonly made: EPHandle } {
  const { tokens, topk, numExperts } = job;
  const { size, scaleout, scaleup, plan } = core;
  const local = numExperts / size;
  const hybrid = scaleout > 1;
  const perSelection = (): Tensor<"i32"> => Tensor.empty([tokens, topk], "i32");
  const topkCopy = (options.doHandleCopy ?? true) ? Tensor.empty([tokens, topk], "i64") : undefined;
  const psumRanks = Tensor.empty([scaleup], "i32");
  const psumExperts = Tensor.empty([local], "i32");
  const dstSlots = perSelection();
  const totals = Tensor.empty([2], "i64");
  const counted = {
    rankCounts: Tensor.empty([size, size], "i32"),
    nodeCounts: Tensor.empty([size, scaleout], "i32"),
    expertCounts: Tensor.empty([local], "i32"),
    dstExpanded: job.doExpand ? perSelection() : undefined,
    dstForwards: hybrid ? perSelection() : undefined,
    hidden: job.x.dim(1),
  };
  const values = {
    window: core.window,
    work: core.work,
    round: core.next("counts"),
    counts_at: plan.countsAt,
    counts_stride: plan.countsStride,
    nodes: scaleout,
    scaleup_ranks: scaleup,
    tokens,
    topk,
    experts: numExperts,
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
  const run = { operation: "dispatch", ...core.threads(job.numSms) };
  const event = core.group.enqueue(notifyKernel, {}, values, run);
  if (doCpuSync) event.wait();
  const sizes = doCpuSync ? exactSizes(core, totals, counted) : worstSizes(core, job);
  const routes: Routes = {
    ...counted,
    forwardPlaces: hybrid ? Tensor.empty([sizes.forwarded, topk], "i32") : undefined,
  };
  const { expertAlignment } = job;
  const made = new EPHandle({
    doExpand: job.doExpand,
    numExperts,
    expertAlignment,
    numMaxTokensPerRank: job.numMaxTokensPerRank,
    numSms: job.numSms,
    topkIdx: topkCopy ?? job.topkIdx,
    psumNumRecvTokensPerScaleupRank: psumRanks,
    psumNumRecvTokensPerExpert: psumExperts,
    numUnalignedRecvTokensPerExpert: job.doExpand ? counted.expertCounts : undefined,
    numRecvTokensPerExpertList: doCpuSync
      ? Array.from(counted.expertCounts.raw(), (count) => alignUp(count, expertAlignment))
      : [],
    recvSrcMetadata: Tensor.empty([sizes.received, topk + 2], "i32"),
    dstBufferSlotIdx: dstSlots,
    tokenMetadataAtForward: hybrid
      ? Tensor.empty([sizes.forwarded, 2 + 2 * topk], "i32")
      : undefined,
    numRecvTokens: sizes.received,
    numExpandedTokens: sizes.expanded,
    routes,
  });
  return { routes, made };
}

interface Sizes {
  readonly received: number;
  readonly expanded: number;
  readonly forwarded: number;
}

function exactSizes(
  core: ElasticCore,
  totals: Tensor<"i64">,
  counted: { readonly nodeCounts: Tensor<"i32"> },
): Sizes {
  const [received, expanded] = totals.raw();
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

interface Results {
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
  return {
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
    readonly routes: Routes;
    readonly results: Results;
    readonly meta: Tensor<"i32">;
    readonly options: DispatchOptions;
  },
): CommEvent {
  const { handle, routes, results, options } = part;
  const { recvSf } = results;
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
    out_sf: recvSf ?? null,
    out_sf_token_stride: recvSf?.stride(0) ?? 0,
    out_sf_pack_stride: recvSf?.stride(1) ?? 0,
    out_idx: results.recvTopkIdx ?? null,
    out_weights: results.recvTopkWeights ?? null,
    out_meta: cached ? null : part.meta,
  };
  const operation = cached ? "cached dispatch" : "dispatch";
  const run = { operation, ...core.threads(job.numSms), keep: part };
  return core.own(core.group.enqueue(dispatchKernel, {}, values, run));
}
