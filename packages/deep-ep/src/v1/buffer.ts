// The first version's buffer: layout, dispatch and combine for throughput, and the low-latency mode
// beside them. One a rank and group; every rank makes the same calls in the same order.

import { totalmem } from "node:os";
import type { Group, SlowRankReport, Window } from "@open-infra/ranks";
import { byteSize, type DType, Tensor } from "@open-infra/tensor";
import {
  type Config,
  expectCount,
  getCombineConfig,
  getDispatchConfig,
  getLowLatencyRdmaSizeHint,
  type LowLatencyShape,
} from "../config.ts";
import { BufferCapacityError, BufferStateError } from "../errors.ts";
import { EventOverlap } from "../event.ts";
import { type CombineOptions, type CombineResult, combine } from "./combine.ts";
import {
  type DispatchInput,
  type DispatchOptions,
  type DispatchResult,
  dispatch,
  localExpertsMax,
} from "./dispatch.ts";
import { trimKernel } from "./kernels.ts";
import { getDispatchLayout, type LayoutResult } from "./layout-call.ts";
import { LowLatency, lowLatencyFlagKinds } from "./low-latency.ts";
import type {
  LowLatencyCombineOptions,
  LowLatencyCombineResult,
  LowLatencyDispatchOptions,
  LowLatencyDispatchResult,
  LowLatencyHandle,
} from "./low-latency-options.ts";
import { windowBytes } from "./low-latency-plan.ts";
import { SharedMemory } from "./memory.ts";
import { type CallOptions, Operations } from "./operation.ts";

/** What a buffer is made of; equal on all ranks. */
export interface BufferOptions {
  /**
   * Bytes of each rank's window: received rows, sums and what is staged must fit together. Pages
   * are taken from the system as they are first touched, so that a large number costs nothing.
   * @default the memory of the smallest machine; 1 GiB where a rank is behind a link
   */
  readonly numNvlBytes?: number;
  /** Opens the low-latency mode, for shapes whose size hint is at most `numRdmaBytes`. */
  readonly lowLatencyMode?: boolean;
  readonly numRdmaBytes?: number;
  /**
   * In low-latency mode, go on without a rank that is gone or later than the group's timeout: it is
   * masked, its part is missing, the others' is exact. @default false: its loss ends the group
   */
  readonly enableShrink?: boolean;
  /** Threads for the buffer's work, of those of the communication stream. @default all */
  readonly numWorkers?: number;
}

/** Bytes of tokens that a rank has sent or fetched, by where the other side is. */
export interface TokenTraffic {
  readonly self: number;
  readonly node: number;
  readonly network: number;
}

const align = (bytes: number, to: number): number => Math.ceil(bytes / to) * to;

/** Kinds of flags, each with one for every rank; kernels/ep_common.h. */
const flagKinds = 4;

/** How many buffers a group has had: part of their windows' names. */
const opened = new WeakMap<Group, number>();

/** One rank's buffer. */
export class Buffer implements Disposable {
  readonly group: Group;
  readonly #name: string;
  readonly #ops: Operations;
  readonly #lowLatencyWindow: Window | undefined;
  readonly #lowLatency: LowLatency | undefined;
  #segments = 1;
  #open = true;

  private constructor(
    name: string,
    ops: Operations,
    lowLatency: Window | undefined,
    enableShrink: boolean,
  ) {
    this.group = ops.group;
    this.#name = name;
    this.#ops = ops;
    this.#lowLatencyWindow = lowLatency;
    if (lowLatency !== undefined)
      this.#lowLatency = new LowLatency(ops, lowLatency, { enableShrink });
  }

  /**
   * Opens a buffer; all ranks do so together.
   *
   * @throws InputError, RankMismatchError naming the rank whose sizes differ
   */
  static async create(group: Group, options: BufferOptions = {}): Promise<Buffer> {
    const number = (opened.get(group) ?? 0) + 1;
    opened.set(group, number);
    const name = `deep-ep/${number}`;
    const { size, nodes } = group;
    const slotBytes = align(192 + 4 * (size + nodes + localExpertsMax), 64);
    const control = 4 * size * slotBytes;
    const bytes = options.numNvlBytes ?? (await defaultBytes(group, name));
    expectCount("numNvlBytes", bytes, 0);
    const numWorkers = options.numWorkers ?? group.stream.threads;
    expectCount("numWorkers", numWorkers, 1);
    const total = align(control, 4096) + align(bytes, 4096);
    const window = await group.openWindow({ name, bytes: total, flags: flagKinds * size });
    const memory = new SharedMemory();
    memory.add(window, control);
    const ops = new Operations({ group, window, memory, slotBytes, numWorkers });
    const lowLatency = await openLowLatency(group, name, options);
    return new Buffer(name, ops, lowLatency, options.enableShrink ?? false);
  }

  /** Threads that later calls use. */
  get numWorkers(): number {
    return this.#ops.numWorkers;
  }

  /** What `set_num_sms` is to the original: threads that later calls use, at most the stream's. */
  setNumWorkers(numWorkers: number): void {
    expectCount("numWorkers", numWorkers, 1);
    this.#ops.numWorkers = numWorkers;
  }

  /** The original's tuned setting for a number of ranks. */
  static getDispatchConfig(numRanks: number): Config {
    return getDispatchConfig(numRanks);
  }

  static getCombineConfig(numRanks: number): Config {
    return getCombineConfig(numRanks);
  }

  static getLowLatencyRdmaSizeHint(shape: LowLatencyShape): number {
    return getLowLatencyRdmaSizeHint(shape);
  }

  /** An event of all that this thread has done: it is done, as this thread computes at once. */
  static capture(): EventOverlap {
    return new EventOverlap();
  }

  /**
   * Counts a selection: tokens for each rank, node and expert, and who gets which.
   *
   * @param topkIdx `[tokens, k]` i64; −1 selects nothing.
   * @throws InputError for an expert that does not exist
   */
  getDispatchLayout(
    topkIdx: Tensor<"i64">,
    numExperts: number,
    options: CallOptions = {},
  ): LayoutResult {
    return getDispatchLayout(this.#ops, topkIdx, numExperts, options);
  }

  /**
   * Sends each token to every rank that has an expert of it, once.
   *
   * @throws InputError, BufferCapacityError on all ranks alike, RankMismatchError naming the rank
   *   whose shapes differ, RankTimeoutError, RankDeadError
   */
  dispatch<X extends DispatchInput>(x: X, options: DispatchOptions): DispatchResult<X> {
    return dispatch(this.#ops, x, options);
  }

  /**
   * Brings back what the ranks hold for each token, summed.
   *
   * @param x `[rows, hidden]` bf16, as dispatch ordered them.
   * @throws as dispatch
   */
  combine(x: Tensor<"bf16">, options: CombineOptions): CombineResult {
    return combine(this.#ops, x, options);
  }

  /**
   * Casts tokens and sends each to its experts, without a round of counts. What came is valid until
   * its combine is called, or until two dispatches later; then it is refused.
   *
   * @param x `[tokens, hidden]` bf16.
   * @throws InputError, BufferStateError for a third live result or another shape without a clean,
   *   BufferCapacityError, RankMismatchError naming the rank whose shape differs, RankTimeoutError,
   *   RankDeadError
   */
  lowLatencyDispatch(
    x: Tensor<"bf16">,
    options: LowLatencyDispatchOptions,
  ): LowLatencyDispatchResult {
    return this.#expectLowLatency().dispatch(x, options);
  }

  /**
   * Brings experts' rows back and sums them, weighted, in the order of the selection.
   *
   * @param x `[local experts, ranks · tokens, hidden]` bf16.
   * @throws as lowLatencyDispatch
   */
  lowLatencyCombine(x: Tensor<"bf16">, options: LowLatencyCombineOptions): LowLatencyCombineResult {
    return this.#expectLowLatency().combine(x, options);
  }

  /**
   * The memory that the next combine with `zeroCopy` returns rows from, without a copy where ranks
   * share memory. Blocks until no rank reads its last contents.
   */
  getNextLowLatencyCombineBuffer(handle: LowLatencyHandle): Tensor<"bf16"> {
    return this.#expectLowLatency().nextCombineBuffer(handle);
  }

  /** Forgets all results and lays the window out for a shape; all ranks do so together. */
  cleanLowLatencyBuffer(shape: Omit<LowLatencyShape, "numRanks">): void {
    this.#expectLowLatency().clean(shape);
  }

  /** Leaves a rank out, or takes it in again; needs `enableShrink`. */
  lowLatencyUpdateMaskBuffer(rank: number, masked: boolean): void {
    this.#expectLowLatency().setMask(rank, masked);
  }

  /** `[ranks]` i32, 1 for a rank that is left out. */
  lowLatencyQueryMaskBuffer(): Tensor<"i32"> {
    return this.#expectLowLatency().queryMask();
  }

  /** Takes all ranks in again. */
  lowLatencyCleanMaskBuffer(): void {
    this.#expectLowLatency().cleanMask();
  }

  /**
   * A tensor in memory that every rank of the host can read: what `combine` is given from here is
   * not copied first where ranks are processes.
   *
   * @throws BufferCapacityError
   */
  empty<D extends DType>(shape: readonly number[], dtype: D): Tensor<D> {
    const bytes = byteSize(
      dtype,
      shape.reduce((product, n) => product * n, 1),
    );
    if (bytes === 0) return Tensor.empty(shape, dtype);
    const { memory } = this.#ops;
    const block = memory.allocate(bytes);
    if (block !== undefined) return memory.tensor(block, shape, dtype);
    throw new BufferCapacityError({
      operation: "empty",
      rank: this.group.rank,
      neededBytes: memory.usedBytes + bytes,
      capacityBytes: memory.capacityBytes,
    });
  }

  /** Bytes of windows of this rank, and of those the bytes in use. */
  get capacityBytes(): number {
    return this.#ops.memory.capacityBytes;
  }

  get usedBytes(): number {
    this.#ops.sweep();
    return this.#ops.memory.usedBytes;
  }

  /**
   * Grows the windows to at least `bytes`; all ranks call it with the same number, as after a
   * BufferCapacityError with its `neededBytes`. What is held stays where it is.
   */
  async reserve(bytes: number): Promise<void> {
    expectCount("bytes", bytes, 1);
    const sizes = await this.group.exchange(
      `${this.#name}/reserve/${this.#segments}`,
      `${this.capacityBytes}`,
    );
    const missing = bytes - Math.min(...sizes.map(Number));
    if (missing <= 0) return;
    // Room for whatever is larger than the ranges that are left.
    const more = align(Math.max(missing, bytes / 2), 4096);
    const name = `${this.#name}/${this.#segments++}`;
    this.#ops.memory.add(await this.group.openWindow({ name, bytes: more }));
  }

  /** Gives the pages of unused memory back to the system. */
  trim(): void {
    const ranges = this.#ops.memory.freeRanges();
    if (ranges.length === 0) return;
    const tensor = Tensor.empty([ranges.length], "i64");
    tensor.raw().set(ranges);
    this.group.run(trimKernel, {}, { ranges: tensor, count: ranges.length / 2 }, { threads: 1 });
  }

  /** Bytes of tokens so far; what coordinates them is only in the group's counters. */
  get traffic(): TokenTraffic {
    const [self = 0, node = 0, network = 0] = Array.from(this.#ops.payload.raw(), Number);
    return { self, node, network };
  }

  /** Who keeps this rank waiting, in all that its group has done so far. */
  slowRanks(): SlowRankReport {
    return this.group.slowRanks();
  }

  /** Closes the windows; all ranks do so together. Tensors of the buffer cannot be used after. */
  destroy(): void {
    this.group.closeWindows(this.#letGo());
  }

  /** As `destroy`; a failure of the group is thrown by whatever uses it next. */
  [Symbol.dispose](): void {
    this.group.disposeWindows(this.#letGo());
  }

  /** The windows to close; none a second time. */
  #letGo(): readonly Window[] {
    if (!this.#open) return [];
    this.#open = false;
    this.#lowLatency?.close();
    const window = this.#lowLatencyWindow;
    return [...(window === undefined ? [] : [window]), ...this.#ops.memory.close()];
  }

  #expectLowLatency(): LowLatency {
    if (this.#lowLatency !== undefined) return this.#lowLatency;
    throw new BufferStateError("the buffer was made without lowLatencyMode");
  }
}

async function openLowLatency(
  group: Group,
  name: string,
  { lowLatencyMode = false, numRdmaBytes = 0 }: BufferOptions,
): Promise<Window | undefined> {
  if (!lowLatencyMode) return undefined;
  expectCount("numRdmaBytes", numRdmaBytes, 1);
  return group.openWindow({
    name: `${name}/low-latency`,
    bytes: windowBytes(numRdmaBytes, group.size),
    flags: lowLatencyFlagKinds * group.size,
  });
}

async function defaultBytes(group: Group, name: string): Promise<number> {
  for (let peer = 0; peer < group.size; peer++) {
    const link = group.linkOf(peer);
    if (link === "tcp" || link === "ucx") return 2 ** 30;
  }
  const machines = await group.exchange(`${name}/memory`, `${totalmem()}`);
  return Math.min(...machines.map(Number));
}
