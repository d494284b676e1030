// The low-latency mode: no round of counts, fixed room for each rank's tokens, two turns used one
// after the other. Sending happens in the call; receiving in the call, on the stream, or in a hook.
// The kernels are kernels/ep_ll_*.c.

import { InputError } from "@open-infra/errors";
import { pointerOf, viewOf } from "@open-infra/jit";
import type { Group, Window } from "@open-infra/ranks";
import { byteSize, type DType, HostStorage, Tensor } from "@open-infra/tensor";
import { BufferCapacityError, BufferStateError } from "../errors.ts";
import { EventOverlap } from "../event.ts";
import { checkExperts } from "../layout.ts";
import {
  lowLatencyReceiveKernel,
  lowLatencyReturnKernel,
  lowLatencySendKernel,
  lowLatencySumKernel,
} from "./kernels.ts";
import {
  bothWays,
  checkDispatch,
  expectTensor,
  type Format,
  type LowLatencyCombineOptions,
  type LowLatencyCombineResult,
  type LowLatencyDispatchOptions,
  type LowLatencyDispatchResult,
  type LowLatencyHandle,
  type ReceiveOptions,
} from "./low-latency-options.ts";
import {
  claimBytes,
  lowLatencyLocalExpertsMax,
  messageBytes,
  type Turn,
  TurnPlan,
  type TurnShape,
} from "./low-latency-plan.ts";
import { OperationRecord, type Operations } from "./operation.ts";

/** A result that its user may still hold. */
interface Live {
  readonly plan: TurnPlan;
  readonly storages: HostStorage[];
  received: boolean;
  combined: boolean;
}

/** What a kernel tells the others is free again, and the counters that begin anew with it. */
interface Release {
  readonly release: number;
  readonly cleared0: number;
  readonly cleared1: number;
}

/** Flags of the window, by kind; see kernels/ep_ll.h. */
const releasedFlag = 2;
const consumedFlag = 3;
export const lowLatencyFlagKinds = 4;

/** One buffer's low-latency mode. */
export class LowLatency {
  readonly #ops: Operations;
  readonly #group: Group;
  readonly #window: Window;
  readonly #mask: Tensor<"i32"> | undefined;
  readonly #views = new Map<number, Uint8Array>();
  readonly #live = new Map<number, Live>();
  readonly #mantissas: Tensor<"f32">;
  #current: TurnPlan | undefined;
  #dispatches = 0;
  #combines = 0;
  #released = 0;
  #pendingCombines = 0;

  constructor(ops: Operations, window: Window, options: { readonly enableShrink: boolean }) {
    this.#ops = ops;
    this.#group = ops.group;
    this.#window = window;
    this.#mask = options.enableShrink ? Tensor.empty([ops.group.size], "i32") : undefined;
    const logs = Array.from({ length: 128 }, (_, i) => Math.log2(1 + i / 128));
    this.#mantissas = Tensor.from(logs, [128], "f32");
  }

  dispatch(x: Tensor<"bf16">, options: LowLatencyDispatchOptions): LowLatencyDispatchResult {
    const format = checkDispatch(x, options, this.#group.size);
    const { topkIdx, numMaxDispatchTokensPerRank, numExperts } = options;
    const hidden = x.dim(1);
    const { size } = this.#group;
    const plan = this.#plan({ numRanks: size, numMaxDispatchTokensPerRank, hidden, numExperts });
    const { sequence, release } = this.#beginDispatch(plan);
    const turn = sequence % 2;
    const local = plan.localExperts;
    const live: Live = { plan, storages: [], received: false, combined: false };
    const rows = size * numMaxDispatchTokensPerRank;
    const at = plan.turns[turn] as Turn;
    const recvX = this.#results(live, at, [local, rows, hidden], format);
    const handle: LowLatencyHandle = {
      srcInfo: this.#tensor(live, at.source, [local, rows], "i32"),
      layoutRange: Tensor.empty([local, size], "i64"),
      numMaxDispatchTokensPerRank,
      hidden,
      numExperts,
      sequence,
      counts: Tensor.empty([numExperts], "i32"),
      places: Tensor.empty(topkIdx.shape, "i32"),
    };
    const recvCount = Tensor.empty([local], "i32");
    this.#live.set(sequence, live);
    const values = {
      ...this.#values(plan, turn, sequence, topkIdx, handle),
      row_bytes: format.rowBytes,
      scales: format.scales,
      message_bytes: messageBytes(format.rowBytes, format.scales),
      options: format.code,
      x,
      ...release,
      wait_cost: options.dispatchWaitRecvCostStats ?? null,
      fp8: format.fp8 ? 1 : 0,
      round_scale: format.roundScale ? 1 : 0,
      ue8m0: format.ue8m0 ? 1 : 0,
      received: recvCount,
      statistics: options.cumulativeLocalExpertRecvStats ?? null,
    };
    const keep = [x, handle, recvCount, values];
    const scratchBytes = 2 * (Math.ceil(hidden / 2048) * 64 + 64) + hidden + 128;
    const run = { threads: this.#ops.numWorkers, keep, scratchBytes };
    const operation = "low-latency dispatch";
    const sent = this.#group.enqueue(lowLatencySendKernel, {}, values, { ...run, operation });
    const receive = () => {
      live.received = true;
      return this.#group.enqueue(lowLatencyReceiveKernel, {}, values, { ...run, operation });
    };
    const { event, hook } = this.#phases(sent, receive, options, [recvX, recvCount]);
    return { recvX, recvCount, handle, event, hook };
  }

  combine(x: Tensor<"bf16">, options: LowLatencyCombineOptions): LowLatencyCombineResult {
    const { handle, topkIdx, topkWeights, useLogfmt = false, zeroCopy = false } = options;
    const live = this.#live.get(handle.sequence);
    if (live === undefined || !live.received) {
      const what = live === undefined ? "is not live any more" : "has not been received";
      throw new BufferStateError(`the result of dispatch ${handle.sequence} ${what}`);
    }
    const { plan } = live;
    const { size } = this.#group;
    this.#checkCombine(x, options, plan);
    if (this.#pendingCombines >= 2) {
      throw new BufferStateError("two combines wait for their hooks; call one first");
    }
    const sequence = ++this.#combines;
    const turn = sequence % 2;
    const tokens = topkIdx.dim(0);
    const out = options.out ?? Tensor.empty([tokens, handle.hidden], "bf16");
    live.combined = true;
    const values = {
      ...this.#values(plan, turn, sequence, topkIdx, handle),
      row_bytes: handle.hidden * 2,
      scales: Math.ceil(handle.hidden / 128),
      message_bytes: plan.combineMessageBytes,
      options: 0,
      x,
      ...this.#release(this.#released),
      wait_cost: options.combineWaitRecvCostStats ?? null,
      weights: topkWeights,
      out,
      zero_copy: zeroCopy ? 1 : 0,
      logfmt: useLogfmt ? 1 : 0,
      mantissas: this.#mantissas,
    };
    const padded = Math.ceil(handle.hidden / 128) * 128 * 4;
    const scratchBytes = useLogfmt ? padded * Math.max(1, topkIdx.dim(1)) : 64;
    const run = {
      threads: this.#ops.numWorkers,
      keep: [values, size],
      scratchBytes,
      operation: "low-latency combine",
    };
    this.#pendingCombines++;
    const sent = this.#group.enqueue(lowLatencyReturnKernel, {}, values, run);
    const receive = () => {
      this.#pendingCombines--;
      return this.#group.enqueue(lowLatencySumKernel, {}, values, run);
    };
    return { combinedX: out, ...this.#phases(sent, receive, options, [out]) };
  }

  /** The shared buffer of the next combine; blocks until nobody reads its last contents. */
  nextCombineBuffer(handle: LowLatencyHandle): Tensor<"bf16"> {
    const live = this.#live.get(handle.sequence);
    if (live === undefined) {
      throw new BufferStateError(`the result of dispatch ${handle.sequence} is not live any more`);
    }
    const next = this.#combines + 1;
    const { size } = this.#group;
    for (let peer = 0; next > 2 && peer < size; peer++) this.#awaitConsumed(peer, next - 2);
    const { plan } = live;
    const rows = size * handle.numMaxDispatchTokensPerRank;
    const at = (plan.turns[next % 2] as Turn).shared;
    return this.#tensor(live, at, [plan.localExperts, rows, handle.hidden], "bf16");
  }

  /** Forgets all results and lays the window out anew; all ranks do so together. */
  clean(shape: Omit<TurnShape, "numRanks">): void {
    if (this.#pendingCombines > 0) throw new BufferStateError("a combine waits for its hook");
    const { size } = this.#group;
    const plan = this.#plan({
      numRanks: size,
      numMaxDispatchTokensPerRank: shape.numMaxDispatchTokensPerRank,
      hidden: shape.hidden,
      numExperts: shape.numExperts,
    });
    for (const sequence of [...this.#live.keys()]) this.#forget(sequence);
    this.#group.stream.record().wait();
    this.#group.barrier();
    for (const { claims } of plan.turns) {
      viewOf(this.#window.dataAddress(claims), claimBytes).fill(0);
    }
    this.#current = plan;
    this.#released = this.#dispatches;
    for (let peer = 0; this.#released > 0 && peer < size; peer++) {
      this.#window.signal(peer, releasedFlag * size + this.#group.rank, this.#released);
    }
    this.#group.barrier();
  }

  setMask(rank: number, masked: boolean): void {
    const mask = this.#expectMask();
    if (!Number.isInteger(rank) || rank < 0 || rank >= mask.size) {
      throw new InputError("rank", `${rank}`, `0 to ${mask.size - 1}`);
    }
    mask.raw()[rank] = masked ? 1 : 0;
  }

  queryMask(): Tensor<"i32"> {
    return this.#expectMask().clone();
  }

  cleanMask(): void {
    this.#expectMask().raw().fill(0);
  }

  isMasked(rank: number): boolean {
    return this.#mask?.raw()[rank] === 1;
  }

  /** Disposes what is still held. */
  close(): void {
    for (const sequence of [...this.#live.keys()]) this.#forget(sequence);
  }

  #awaitConsumed(peer: number, combine: number): void {
    if (this.isMasked(peer)) return;
    const awaited = "that it has summed the last but one combine";
    const flag = consumedFlag * this.#group.size + peer;
    if (this.#mask === undefined) {
      this.#window.wait(flag, combine, { peer, awaited });
      return;
    }
    const { timeoutMs } = this.#group;
    const result = this.#window.wait(flag, combine, { peer, awaited, timeoutMs });
    if (result === "aborted") this.#group.check();
    else if (result !== "arrived") this.#mask.raw()[peer] = 1;
  }

  #expectMask(): Tensor<"i32"> {
    if (this.#mask !== undefined) return this.#mask;
    throw new BufferStateError("the buffer was made without enableShrink");
  }

  #plan(shape: TurnShape): TurnPlan {
    checkExperts(shape.numExperts, shape.numRanks);
    const local = shape.numExperts / shape.numRanks;
    if (local > lowLatencyLocalExpertsMax) {
      const allowed = `at most ${lowLatencyLocalExpertsMax} a rank`;
      throw new InputError("numExperts", `${shape.numExperts}`, allowed);
    }
    const same = JSON.stringify(shape) === JSON.stringify(this.#current?.shape);
    const plan = same && this.#current ? this.#current : new TurnPlan(shape);
    if (plan.bytes <= this.#window.bytes) return plan;
    throw new BufferCapacityError({
      operation: "low-latency mode",
      rank: this.#group.rank,
      neededBytes: plan.bytes,
      capacityBytes: this.#window.bytes,
    });
  }

  /** The number of a new dispatch; ends the life of the one before the last. */
  #beginDispatch(plan: TurnPlan): { sequence: number; release: Release } {
    const sequence = this.#dispatches + 1;
    if (this.#current !== undefined && plan !== this.#current) {
      const { numMaxDispatchTokensPerRank, hidden, numExperts } = this.#current.shape;
      const was = `${numMaxDispatchTokensPerRank} tokens × ${hidden}, ${numExperts} experts`;
      throw new BufferStateError(`the window is laid out for ${was}; clean it for another shape`);
    }
    const old = this.#live.get(sequence - 2);
    if (old !== undefined && !old.received) {
      const text = `dispatch ${sequence - 2} waits for its hook; at most two results are live`;
      throw new BufferStateError(text);
    }
    this.#current = plan;
    const release = this.#release(sequence - 2);
    this.#forget(sequence - 2);
    this.#dispatches = sequence;
    return { sequence, release };
  }

  #forget(sequence: number): void {
    const live = this.#live.get(sequence);
    for (const storage of live?.storages ?? []) storage[Symbol.dispose]();
    this.#live.delete(sequence);
  }

  /**
   * What others may be told: dispatches up to `atLeast`, and those after it without a gap whose
   * combine has been called. And the counters that begin again with it.
   */
  #release(atLeast: number): Release {
    const before = this.#released;
    let now = Math.max(before, atLeast);
    while (this.#live.get(now + 1)?.combined) now++;
    this.#released = now;
    const claims = [-1, -1];
    for (let sequence = Math.max(before, now - 2) + 1; sequence <= now; sequence++) {
      claims[sequence % 2] = this.#current?.turns[sequence % 2]?.claims ?? -1;
    }
    const [cleared0 = -1, cleared1 = -1] = claims;
    return { release: now > before ? now : 0, cleared0, cleared1 };
  }

  #values(
    plan: TurnPlan,
    turn: number,
    sequence: number,
    topkIdx: Tensor<"i64">,
    handle: LowLatencyHandle,
  ) {
    const { size } = this.#group;
    return {
      window: this.#window,
      op: new OperationRecord("low-latency").words,
      turn: plan.words[turn] as Tensor,
      seq: sequence,
      most_tokens: handle.numMaxDispatchTokensPerRank,
      hidden: handle.hidden,
      experts: handle.numExperts,
      topk: topkIdx.dim(1),
      token_count: topkIdx.dim(0),
      mask: this.#mask ?? null,
      payload: this.#ops.payload,
      plan: Tensor.empty([2 * size + Math.ceil(handle.numExperts / 2)], "i64"),
      counts: handle.counts,
      places: handle.places,
      choice: topkIdx,
      ranges: handle.layoutRange,
    };
  }

  #phases(
    sent: ReturnType<Group["enqueue"]>,
    receive: () => ReturnType<Group["enqueue"]>,
    options: ReceiveOptions,
    keep: readonly unknown[],
  ): { event: EventOverlap; hook: () => void } {
    if (options.returnRecvHook) {
      // The caller may change its tensor from now on.
      sent.wait();
      let called = false;
      const hook = (): void => {
        if (called) throw new BufferStateError("the hook was called before");
        called = true;
        receive().wait();
      };
      return { event: new EventOverlap(), hook };
    }
    const event = receive();
    const hook = (): void => {
      throw new BufferStateError("there is a hook only with returnRecvHook");
    };
    return { event: this.#ops.finish(event, options, keep), hook };
  }

  #results(
    live: Live,
    at: Turn,
    shape: readonly [local: number, rows: number, hidden: number],
    format: Format,
  ): LowLatencyDispatchResult["recvX"] {
    if (!format.fp8) return this.#tensor(live, at.x, shape, "bf16");
    const [local, rows] = shape;
    const codes = this.#tensor(live, at.x, shape, "e4m3fn");
    const columns = [local, format.scales, rows];
    const scales = this.#tensor(live, at.scales, columns, format.ue8m0 ? "i32" : "f32");
    return [codes, scales.transpose(1, 2)];
  }

  /** A tensor over a part of the window, until the result's life ends. */
  #tensor<D extends DType>(
    live: Live,
    offset: number,
    shape: readonly number[],
    dtype: D,
  ): Tensor<D> {
    const bytes = byteSize(
      dtype,
      shape.reduce((product, n) => product * n, 1),
    );
    let view = this.#views.get(offset);
    if (view === undefined || view.byteLength < bytes) {
      view = viewOf(this.#window.dataAddress(offset), bytes);
      this.#views.set(offset, view);
    }
    const storage = new HostStorage(view.subarray(0, bytes));
    storage.address = this.#window.dataAddress(offset);
    live.storages.push(storage);
    return new Tensor({ dtype, shape, storage });
  }

  #checkCombine(x: Tensor, options: LowLatencyCombineOptions, plan: TurnPlan): void {
    const { handle, topkIdx, topkWeights, zeroCopy, out, useLogfmt } = options;
    const { size } = this.#group;
    const rows = size * handle.numMaxDispatchTokensPerRank;
    expectTensor("x", x, "bf16", [plan.localExperts, rows, handle.hidden]);
    expectTensor("topkIdx", topkIdx, "i64", handle.places.shape);
    expectTensor("topkWeights", topkWeights, "f32", handle.places.shape);
    expectTensor("combineWaitRecvCostStats", options.combineWaitRecvCostStats, "i64", [size]);
    if (out !== undefined) expectTensor("out", out, "bf16", [topkIdx.dim(0), handle.hidden]);
    if (options.asyncFinish && options.returnRecvHook) throw bothWays();
    if (!zeroCopy) return;
    if (useLogfmt) throw new InputError("zeroCopy", "true", "without useLogfmt, which codes rows");
    const turn = plan.turns[(this.#combines + 1) % 2] as Turn;
    if (pointerOf("combine", x) === this.#window.dataAddress(turn.shared)) return;
    throw new InputError("x", x.describe(), "the tensor of getNextLowLatencyCombineBuffer");
  }
}
