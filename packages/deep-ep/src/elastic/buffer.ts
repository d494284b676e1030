// ElasticBuffer, the second version of the original's buffer: one call for dispatch whatever the
// batch, an expanded layout for grouped multiplication, sums rounded at known places, and small
// neighbours' services over the same window. This file is the face; the work is in its siblings.

import { InputError } from "@open-infra/errors";
import {
  type CommEvent,
  doneEvent,
  type Group,
  RankMismatchError,
  type Window,
} from "@open-infra/ranks";
import type { DType, Tensor } from "@open-infra/tensor";
import { expectCount } from "../config.ts";
import { BufferStateError } from "../errors.ts";
import { EventOverlap } from "../event.ts";
import { planCombine, planDispatch, planWindow, type RecordShape } from "./capacity.ts";
import { type CombineOptions, type CombineResult, combineRows } from "./combine.ts";
import { ElasticCore } from "./core.ts";
import { dispatchTokens } from "./dispatch.ts";
import type { DispatchOptions, DispatchResult, TokenInput } from "./dispatch-options.ts";
import { Engram, type FetchHook } from "./engram.ts";
import { type Gathered, GatherSessions } from "./gather.ts";
import { barrierKernel } from "./kernels.ts";
import { Pipeline, type PipelineOptions } from "./pipeline.ts";
import {
  alignUp,
  type BufferShape,
  bufferAlignmentBytes,
  getAgrsBufferSizeHint,
  getAgrsNumMaxSessionBytes,
  getBufferSizeHint,
  getEngramStorageSizeHint,
  getPpBufferSizeHint,
  logicalDomain,
  theoreticalNumQps,
  theoreticalNumSms,
  type WorkerModel,
} from "./sizes.ts";

/** How a buffer is made. Give `numBytes`, or what it is for. Equal on all ranks. */
export interface ElasticBufferOptions {
  /** Bytes of data, those of `numCpuBytes` included; rounded up to 2 MiB. */
  readonly numBytes?: number;
  /** Of these, at the end, for a table of embeddings. @default 0 */
  readonly numCpuBytes?: number;
  /** Also the default of dispatch. */
  readonly numMaxTokensPerRank?: number;
  readonly hidden?: number;
  /** 0: unknown, 32 is assumed. @default 0 */
  readonly numTopk?: number;
  readonly useFp8Dispatch?: boolean;
  /** Results are deterministic always, at no cost; `false` changes nothing. */
  readonly deterministic?: boolean;
  /** Where there are several nodes of equal size, a token crosses to each once. @default true */
  readonly allowHybridMode?: boolean;
  /**
   * Sums are made where rows meet, and rounded to bf16 there. Else once, of all rows, in float32;
   * more bytes travel. @default true
   */
  readonly allowMultipleReduction?: boolean;
  /** For the model of workers. @default true */
  readonly preferOverlapWithCompute?: boolean;
  /** Of InfiniBand, in the original; kept for the record. @default 3 */
  readonly slIdx?: number;
  /** For the model of queue pairs. @default 17; 129 with hybrid mode */
  readonly numAllocatedQps?: number;
  /** Close only by `destroy`; disposal then does nothing. @default false */
  readonly explicitlyDestroy?: boolean;
  /** Most experts of any dispatch. @default 2048 */
  readonly numMaxExperts?: number;
  /**
   * Ranks that are threads of one process read and write each other's tensors. Without, they go
   * through their windows as ranks of several processes do. @default true
   */
  readonly directMemory?: boolean;
  /** How much memory of disposed results to keep for later ones. @default 2 GiB */
  readonly keptResultBytes?: number;
  /** Unique among the group's windows. @default "elastic" and a number */
  readonly name?: string;
}

/** Buffers opened so far, so that the names of what each exchanges differ. */
const opened = new WeakMap<Group, number>();

/** The buffer of one rank; all ranks make it and call its operations in the same order. */
export class ElasticBuffer implements AsyncDisposable {
  /** The original's hint for a buffer's size: 2 MiB-aligned bytes. */
  static readonly getBufferSizeHint: typeof getBufferSizeHint = getBufferSizeHint;
  static readonly getEngramStorageSizeHint: typeof getEngramStorageSizeHint =
    getEngramStorageSizeHint;
  static readonly getPpBufferSizeHint: typeof getPpBufferSizeHint = getPpBufferSizeHint;
  static readonly getAgrsNumMaxSessionBytes: typeof getAgrsNumMaxSessionBytes =
    getAgrsNumMaxSessionBytes;
  static readonly getAgrsBufferSizeHint: typeof getAgrsBufferSizeHint = getAgrsBufferSizeHint;

  readonly group: Group;
  readonly rankIdx: number;
  readonly numRanks: number;
  /** Nodes × ranks as operations see them: 1 × all unless hybrid mode applies. */
  readonly numScaleoutRanks: number;
  readonly numScaleupRanks: number;
  readonly scaleoutRankIdx: number;
  readonly scaleupRankIdx: number;
  /** Nodes × ranks as they are. */
  readonly numRdmaRanks: number;
  readonly numNvlinkRanks: number;
  readonly numBytes: number;
  readonly numCpuBytes: number;
  readonly numMaxTokensPerRank: number;
  readonly numAllocatedQps: number;
  readonly allowHybridMode: boolean;
  readonly allowMultipleReduction: boolean;
  readonly preferOverlapWithCompute: boolean;
  readonly deterministic: true = true;
  readonly explicitlyDestroy: boolean;
  readonly #core: ElasticCore;
  readonly #sessions: GatherSessions;
  readonly #pipeline: Pipeline;
  readonly #engram: Engram;
  #open = true;

  private constructor(core: ElasticCore, options: ElasticBufferOptions) {
    const { group } = core;
    const { allowHybridMode = true } = options;
    this.#core = core;
    this.group = group;
    this.rankIdx = group.rank;
    this.numRanks = group.size;
    this.numScaleoutRanks = core.scaleout;
    this.numScaleupRanks = core.scaleup;
    this.scaleoutRankIdx = Math.floor(group.rank / core.scaleup);
    this.scaleupRankIdx = group.rank % core.scaleup;
    this.numRdmaRanks = group.nodes;
    this.numNvlinkRanks = group.ranksPerNode;
    this.numBytes = core.numBytes;
    this.numCpuBytes = options.numCpuBytes ?? 0;
    this.numMaxTokensPerRank = options.numMaxTokensPerRank ?? 0;
    this.numAllocatedQps = options.numAllocatedQps || (allowHybridMode ? 129 : 17);
    this.allowHybridMode = allowHybridMode;
    this.allowMultipleReduction = core.allowMultipleReduction;
    this.preferOverlapWithCompute = options.preferOverlapWithCompute ?? true;
    this.explicitlyDestroy = options.explicitlyDestroy ?? false;
    this.#sessions = new GatherSessions(core);
    this.#pipeline = new Pipeline(core);
    this.#engram = new Engram(core, this.numCpuBytes);
  }

  /**
   * Opens a buffer; all ranks of the group do.
   *
   * @throws InputError; RankMismatchError naming the rank whose options differ
   */
  static async create(group: Group, options: ElasticBufferOptions): Promise<ElasticBuffer> {
    const { allowHybridMode = true, allowMultipleReduction = true, directMemory = true } = options;
    const { scaleout, scaleup } = logicalDomain(group, allowHybridMode);
    const numBytes = bytesOf(group, options, { scaleout, scaleup });
    const number = opened.get(group) ?? 0;
    opened.set(group, number + 1);
    const numMaxExperts = Math.max(options.numMaxExperts ?? 2048, group.size);
    await agree(group, number, {
      numMaxTokensPerRank: options.numMaxTokensPerRank ?? 0,
      numBytes,
      numCpuBytes: options.numCpuBytes ?? 0,
      allowHybridMode,
      allowMultipleReduction,
      directMemory,
      numMaxExperts,
    });
    const plan = planWindow(group.size, numMaxExperts);
    const window = await group.openWindow({
      name: options.name ?? `elastic ${number}`,
      bytes: plan.dataAt + numBytes,
      flags: plan.flags,
    });
    const core = new ElasticCore({
      group,
      window,
      plan,
      numBytes,
      scaleout,
      scaleup,
      allowMultipleReduction,
      directMemory,
      keptResultBytes: options.keptResultBytes ?? 2 ** 31,
    });
    return new ElasticBuffer(core, options);
  }

  /** An event that is done: what this rank's thread has computed so far is. */
  static capture(): EventOverlap {
    return new EventOverlap(doneEvent);
  }

  /** Nodes, and ranks of a node, as they are. */
  getPhysicalDomainSize(): readonly [rdmaRanks: number, nvlinkRanks: number] {
    return [this.numRdmaRanks, this.numNvlinkRanks];
  }

  /** Nodes, and ranks of a node, as operations see them. */
  getLogicalDomainSize(): readonly [scaleoutRanks: number, scaleupRanks: number] {
    return [this.numScaleoutRanks, this.numScaleupRanks];
  }

  /** The original's model of SMs for this buffer's ranks; a figure, see `theoreticalNumSms`. */
  getTheoreticalNumSms(
    numExperts: number,
    numTopk: number,
    options: Partial<WorkerModel> = {},
  ): number {
    return theoreticalNumSms({
      numScaleoutRanks: this.numScaleoutRanks,
      numScaleupRanks: this.numScaleupRanks,
      numRdmaRanks: this.numRdmaRanks,
      numNvlinkRanks: this.numNvlinkRanks,
      preferOverlapWithCompute: this.preferOverlapWithCompute,
      ...options,
      numExperts,
      numTopk,
    });
  }

  /** The original's number of queue pairs for so many SMs. */
  getTheoreticalNumQps(numSms: number): number {
    const { allowHybridMode, numAllocatedQps } = this;
    return theoreticalNumQps(numSms, { allowHybridMode, numAllocatedQps });
  }

  /** Threads that an operation really uses where it is asked for `numSms`; 0 asks for all. */
  getNumWorkers(numSms = 0): number {
    const { threads } = this.group.stream;
    return numSms > 0 ? Math.min(numSms, threads) : threads;
  }

  /** The communication stream, on which all operations run in order. */
  getCommStream(): Group["stream"] {
    return this.group.stream;
  }

  /**
   * Sends each token to the ranks of its experts.
   *
   * @param x `[tokens, hidden]` bf16, or e4m3 codes with their scales `[tokens, n]`.
   * @throws InputError before any rank hears of it; BufferCapacityError; RankMismatchError where
   *   ranks disagree; RankTimeoutError, RankDeadError naming the peer
   */
  dispatch<X extends TokenInput>(x: X, options: DispatchOptions = {}): DispatchResult<X> {
    this.#expectNoSession("dispatch");
    return dispatchTokens(this.#core, x, options, this.numMaxTokensPerRank);
  }

  /**
   * Sums each token's rows where the token came from, without weights: biases first, then the rows
   * in the order of the token's selections. Several selections of one rank (and of one node) are
   * summed first and rounded to bf16, unless `allowMultipleReduction` is false.
   *
   * @param x `[received, hidden]` bf16, or the expanded layout's rows.
   */
  combine(x: Tensor, options: CombineOptions): CombineResult {
    this.#expectNoSession("combine");
    return combineRows(this.#core, x, options);
  }

  /**
   * Blocks until all ranks are here.
   *
   * @param options.useCommStream After all that was queued on it. @default true
   * @param options.withCpuSync Waits for all that was queued here, before and after. @default false
   */
  barrier(
    options: {
      readonly useCommStream?: boolean;
      readonly withCpuSync?: boolean;
      /** Of the original; there is one order here. */
      readonly sequential?: boolean;
    } = {},
  ): void {
    this.#expectOpen();
    const { useCommStream = true, withCpuSync = false } = options;
    if (withCpuSync) this.group.stream.record().wait();
    if (!useCommStream) {
      this.group.barrier();
      return;
    }
    const epoch = this.#core.next("barrier");
    const values = { window: this.#core.window, epoch, kind: 0 };
    this.group.run(barrierKernel, {}, values, { operation: "barrier" });
  }

  /** Gives this rank's part of a table of embeddings; with barriers before and after. */
  engramWrite(storage: Tensor, sf?: Tensor): void {
    this.barrier({ withCpuSync: true });
    this.#engram.write(storage, sf);
    this.barrier({ withCpuSync: true });
  }

  /**
   * Fetches rows of the table, wherever they are; call the result to wait for them.
   *
   * @param indices `[tokens, entries of a token]` i32: rank · entries + entry.
   */
  engramFetch(
    indices: Tensor,
    options: { readonly numQps?: number; readonly useTmaAlignedColMajorSf?: boolean } = {},
  ): FetchHook {
    this.#expectNoSession("engramFetch");
    return this.#engram.fetch(indices, options.useTmaAlignedColMajorSf ?? false);
  }

  /** Makes room for tensors between neighbours; with barriers before and after. */
  ppSetConfig(numMaxTensorBytes: number, numMaxInflightTensors: number): void {
    this.barrier({ withCpuSync: true });
    this.#pipeline.configure(numMaxTensorBytes, numMaxInflightTensors);
    this.barrier({ withCpuSync: true });
  }

  /** Sends a tensor to a neighbour; waits where `numMaxInflightTensors` are on their way. */
  ppSend(t: Tensor, dstRank: number, options: PipelineOptions = {}): CommEvent {
    this.#expectNoSession("ppSend");
    return this.#pipeline.send(t, dstRank, options);
  }

  /** Receives the next tensor of a neighbour into `t`, which has as many bytes. */
  ppRecv(t: Tensor, srcRank: number, options: PipelineOptions = {}): CommEvent {
    this.#expectNoSession("ppRecv");
    return this.#pipeline.receive(t, srcRank, options);
  }

  /** Makes room for sessions of all-gathers; with barriers before and after. */
  agrsSetConfig(numMaxSessionBytes: number, numMaxAllGathersPerSession: number): void {
    this.barrier({ withCpuSync: true });
    this.#sessions.configure(numMaxSessionBytes, numMaxAllGathersPerSession);
    this.barrier({ withCpuSync: true });
  }

  /** Begins a session; no other operation of this buffer may run until it ends. */
  createAgrsSession(): void {
    this.#expectOpen();
    this.#sessions.begin();
  }

  /** Ends it, with all ranks; what it gathered is no longer valid. */
  destroyAgrsSession(): void {
    this.#sessions.end();
  }

  /** `using session = buffer.agrsNewSession()`; with `enabled: false` it does nothing. */
  agrsNewSession(enabled = true): Disposable {
    if (enabled) this.createAgrsSession();
    return { [Symbol.dispose]: () => enabled && this.destroyAgrsSession() };
  }

  /** Where this rank's parts of the next all-gather lie: written there, nothing is copied here. */
  agrsGetInplaceTensor<S extends readonly number[] | readonly (readonly number[])[]>(
    shapes: S,
    dtype: DType,
  ): S extends readonly number[] ? Tensor : readonly Tensor[] {
    const tensors = this.#sessions.inplace(shapes, dtype);
    const single = shapes.length === 0 || typeof shapes[0] === "number";
    return (single ? tensors[0] : tensors) as S extends readonly number[]
      ? Tensor
      : readonly Tensor[];
  }

  /** Gathers tensors of all ranks, the same shapes everywhere, within a session. */
  allGather(t: Tensor | readonly Tensor[]): Gathered {
    this.#expectOpen();
    return this.#sessions.gather(Array.isArray(t) ? (t as readonly Tensor[]) : [t as Tensor]);
  }

  /** Closes it, with all ranks. */
  destroy(): void {
    this.group.closeWindows(this.#letGo());
  }

  /** As `destroy`; a failure of the group is thrown by whatever uses it next. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.explicitlyDestroy) this.group.disposeWindows(this.#letGo());
  }

  /** The windows to close; none a second time. */
  #letGo(): readonly Window[] {
    if (!this.#open) return [];
    this.#open = false;
    this.#core.memory.clear();
    return [this.#core.window];
  }

  #expectOpen(): void {
    if (!this.#open) throw new BufferStateError("the buffer was used after it was destroyed");
  }

  #expectNoSession(operation: string): void {
    this.#expectOpen();
    if (!this.#sessions.inSession) return;
    throw new BufferStateError(`${operation} inside a session of all-gathers, whose bytes it uses`);
  }
}

/** The size asked for, or the hint, or what this package's layout needs if that is more. */
function bytesOf(
  group: Group,
  options: ElasticBufferOptions,
  domain: { readonly scaleout: number; readonly scaleup: number },
): number {
  const { numBytes, numCpuBytes = 0 } = options;
  expectCount("numCpuBytes", numCpuBytes, 0);
  if (numBytes !== undefined) {
    expectCount("numBytes", numBytes, Math.max(1, numCpuBytes));
    return alignUp(numBytes, bufferAlignmentBytes);
  }
  const { numMaxTokensPerRank = 0, hidden = 0 } = options;
  if (numMaxTokensPerRank < 1 || hidden < 1) {
    const allowed = "numBytes, or numMaxTokensPerRank and hidden of at least 1";
    throw new InputError("size", `${numMaxTokensPerRank} tokens of ${hidden}`, allowed);
  }
  const shape: BufferShape = { ...options, numMaxTokensPerRank, hidden };
  const hint = getBufferSizeHint(group, shape);
  return alignUp(
    Math.max(hint, ownBytes(group, shape, domain)) + numCpuBytes,
    bufferAlignmentBytes,
  );
}

function ownBytes(
  group: Group,
  shape: BufferShape,
  domain: { readonly scaleout: number; readonly scaleup: number },
): number {
  const { hidden, numMaxTokensPerRank, allowMultipleReduction = true } = shape;
  const records: RecordShape = {
    ...domain,
    numRanks: group.size,
    numMaxTokensPerRank,
    numTopk: shape.numTopk || 32,
    allMemory: false,
  };
  const scales = shape.useFp8Dispatch ? Math.ceil(hidden / 128) : 0;
  const rowBytes = hidden * (shape.useFp8Dispatch ? 1 : 2);
  const single = { ...records, scaleout: 1, scaleup: group.size };
  const level = allowMultipleReduction ? records : single;
  const allRowsTravel = !allowMultipleReduction;
  return Math.max(
    planDispatch(records, rowBytes, scales, 0).bytes,
    planCombine(level, hidden, { allRowsTravel }, 0).bytes,
  );
}

/** All ranks must have made the same buffer. @throws RankMismatchError */
async function agree(
  group: Group,
  number: number,
  own: Readonly<Record<string, number | boolean>>,
): Promise<void> {
  const texts = await group.exchange(`elastic/${number}`, JSON.stringify(own));
  for (const [peer, text] of texts.entries()) {
    const theirs = JSON.parse(text) as typeof own;
    const field = Object.keys(own).find((key) => theirs[key] !== own[key]);
    if (field === undefined) continue;
    const message =
      `ElasticBuffer: ${field} is ${own[field]} here on ${group.describe(group.rank)}, but ` +
      `${theirs[field]} on ${group.describe(peer)}; all ranks must agree`;
    group.abort(message, peer);
    const facts = { rank: group.rank, peer, operation: "ElasticBuffer", waitedMs: 0 };
    throw new RankMismatchError(message, { ...facts, awaited: field });
  }
}
