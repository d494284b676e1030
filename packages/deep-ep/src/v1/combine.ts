// Combine of the normal mode: plain sums, in rank order, of what the ranks hold for each token. The
// kernel is kernels/ep_combine.c.

import { InputError } from "@open-infra/errors";
import { pointerOf } from "@open-infra/jit";
import type { CommEvent } from "@open-infra/ranks";
import { Tensor } from "@open-infra/tensor";
import type { Config } from "../config.ts";
import type { EventOverlap } from "../event.ts";
import { elementCode, pastCachesBytes } from "./dispatch.ts";
import type { DispatchHandle } from "./handle.ts";
import { combineKernel } from "./kernels.ts";
import { type Block, Reservation } from "./memory.ts";
import { type CallOptions, OperationRecord, type Operations, settle } from "./operation.ts";

/** How rows are combined; see `Buffer.combine`. */
export interface CombineOptions extends CallOptions {
  readonly handle: DispatchHandle;
  /** `[rows, k]` f32, as dispatch gave them. */
  readonly topkWeights?: Tensor<"f32">;
  /** One or two of `[tokens, hidden]` bf16, added before everything else. */
  readonly bias?: Tensor<"bf16"> | readonly Tensor<"bf16">[];
  readonly config?: Config;
}

/** What each of this rank's tokens got back. */
export interface CombineResult extends Disposable {
  /** `[tokens, hidden]` bf16. */
  readonly combinedX: Tensor<"bf16">;
  /** `[tokens, k]` f32, where weights were given. */
  readonly combinedTopkWeights: Tensor<"f32"> | undefined;
  readonly event: EventOverlap;
}

function checkInput(x: Tensor<"bf16">, options: CombineOptions): readonly Tensor<"bf16">[] {
  const { handle, topkWeights, bias } = options;
  // What lies behind the real rows, where there is a fixed number of them, is not looked at.
  const least = handle.numRecvTokens;
  if (x.dtype !== "bf16" || x.rank !== 2 || x.dim(0) < least || !x.isContiguous) {
    throw new InputError("x", x.describe(), `contiguous bf16 of [${least} or more, hidden]`);
  }
  const rows = x.dim(0);
  if (topkWeights !== undefined) {
    const { dtype, rank } = topkWeights;
    if (dtype !== "f32" || rank !== 2 || topkWeights.dim(0) !== rows || !topkWeights.isContiguous) {
      throw new InputError("topkWeights", topkWeights.describe(), `contiguous f32 of [${rows}, k]`);
    }
  }
  const biases = bias === undefined ? [] : bias instanceof Tensor ? [bias] : bias;
  if (biases.length > 2) throw new InputError("bias", `${biases.length} tensors`, "at most 2");
  const shape = [handle.numTokens, x.dim(1)];
  for (const tensor of biases) {
    if (tensor.dtype === "bf16" && tensor.isContiguous && `${tensor.shape}` === `${shape}`)
      continue;
    throw new InputError("bias", tensor.describe(), `contiguous bf16 of [${shape}]`);
  }
  return biases;
}

/** Bytes that others put into this rank's staging; stage_before in kernels/ep_combine.c. */
function stageBytes(
  ops: Operations,
  handle: DispatchHandle,
  rowBytes: number,
  weightBytes: number,
): number {
  const { group, window } = ops;
  const bytes = (rows: number): number =>
    align(rows * rowBytes, 64) + align(rows * weightBytes, 64);
  let total = 0;
  for (const peer of ops.ranksOfNode(group.node)) {
    if (window.isMapped(peer)) continue;
    const served = ops.servedBy(group.rank);
    total += bytes(served.reduce((rows, source) => rows + handle.count(source, peer), 0));
  }
  for (let node = 0; node < group.nodes; node++) {
    if (node !== group.node) total += bytes(handle.nodeCount(group.rank, node));
  }
  return total;
}

const align = (value: number, to: number): number => Math.ceil(value / to) * to;

interface Targets {
  readonly reservation: Reservation;
  readonly out: Block | undefined;
  readonly outWeights: Block | undefined;
  readonly stage: Block | undefined;
  readonly copies: readonly (Block | undefined)[];
  readonly xPlace: number;
  readonly weightsPlace: number;
}

function reserve(ops: Operations, x: Tensor, options: CombineOptions): Targets {
  const { handle, topkWeights } = options;
  const { memory } = ops;
  const reservation = new Reservation(memory);
  const rowBytes = x.dim(1) * 2;
  const weightBytes = (topkWeights?.dim(1) ?? 0) * 4;
  const out = reservation.take(handle.numTokens * rowBytes);
  const outWeights = reservation.take(handle.numTokens * weightBytes);
  const stage = reservation.take(stageBytes(ops, handle, rowBytes, weightBytes));
  const copies: (Block | undefined)[] = [];
  // Where other processes read a tensor: where it is, if that is a window, else a copy.
  const share = (tensor: Tensor | undefined): number => {
    if (tensor === undefined || tensor.size === 0 || ops.sameProcess) return -1;
    const place = memory.placeOfAddress(pointerOf("combine", tensor));
    if (place >= 0) return place;
    const copy = reservation.take(tensor.byteLength);
    copies.push(copy);
    return copy === undefined ? -1 : memory.placeOf(copy);
  };
  const xPlace = share(x);
  const weightsPlace = share(topkWeights);
  if (!reservation.complete) reservation.release();
  return { reservation, out, outWeights, stage, copies, xPlace, weightsPlace };
}

/** See `Buffer.combine`. */
export function combine(
  ops: Operations,
  x: Tensor<"bf16">,
  options: CombineOptions,
): CombineResult {
  ops.begin(options);
  const { handle, topkWeights } = options;
  // Its numbers say how much comes back.
  handle.event?.event.wait();
  const biases = checkInput(x, options);
  const { memory } = ops;
  const targets = reserve(ops, x, options);
  const record = new OperationRecord("combine");
  const keep: unknown[] = [record, x, topkWeights, biases, handle];
  const event = enqueue(ops, x, biases, options, targets, record, keep);
  if (!targets.reservation.complete) {
    // Nothing will be moved; all ranks learn it together.
    event.wait();
    record.check();
  }
  const tokens = handle.numTokens;
  const make = <D extends "bf16" | "f32">(block: Block | undefined, width: number, dtype: D) =>
    block === undefined
      ? Tensor.empty([tokens, width], dtype)
      : memory.tensor(block, [tokens, width], dtype);
  const combinedX = make(targets.out, x.dim(1), "bf16");
  const weights = topkWeights && make(targets.outWeights, topkWeights.dim(1), "f32");
  // The kernel writes to them, even if nobody else holds them.
  keep.push(combinedX, weights);
  ops.releaseAfter(event, [targets.stage, ...targets.copies]);
  const overlap = ops.finish(event, options, [x, combinedX, weights], () => record.check());
  return {
    combinedX,
    combinedTopkWeights: weights,
    event: overlap,
    [Symbol.dispose]() {
      settle(overlap);
      combinedX[Symbol.dispose]();
      weights?.[Symbol.dispose]();
    },
  };
}

function enqueue(
  ops: Operations,
  x: Tensor,
  biases: readonly Tensor[],
  options: CombineOptions,
  targets: Targets,
  record: OperationRecord,
  keep: unknown[],
): CommEvent {
  const { handle, topkWeights, config } = options;
  const { memory } = ops;
  const { reservation } = targets;
  const address = (block: Block | undefined): number | null =>
    block === undefined || !reservation.complete ? null : memory.addressOf(block);
  const rowBytes = x.dim(1) * 2;
  return ops.group.enqueue(
    combineKernel,
    {},
    {
      window: ops.window,
      slot_bytes: ops.slotBytes,
      step: ops.nextStep(),
      row_bytes: rowBytes,
      element: elementCode(x.dtype) * 2,
      topk: topkWeights?.dim(1) ?? 0,
      experts: handle.numExperts,
      ranks_per_node: handle.ranksPerNode,
      options: 0,
      tokens: handle.numTokens,
      counts: handle.counts,
      node_counts: handle.nodeCounts,
      positions: handle.positions,
      node_positions: handle.nodePositions,
      op: record.words,
      segments: memory.segments,
      seq: ops.nextSequence(),
      status: reservation.complete ? 0 : 1,
      needed: reservation.neededBytes,
      capacity: memory.capacityBytes,
      rows: x.dim(0),
      x,
      x_at: targets.xPlace,
      weights: topkWeights ?? null,
      weights_at: targets.weightsPlace,
      stage_at:
        targets.stage === undefined || !reservation.complete ? -1 : memory.placeOf(targets.stage),
      forward_positions: handle.forwardPositions ?? null,
      past_caches: handle.numTokens * rowBytes >= pastCachesBytes ? 1 : 0,
      piece_rows: config?.rdmaSend ?? 32,
      payload: ops.payload,
      same_process: ops.sameProcess ? 1 : 0,
      copy: ops.sameProcess ? 0 : 1,
      bias0: biases[0] ?? null,
      bias1: biases[1] ?? null,
      out: address(targets.out),
      out_weights: address(targets.outWeights),
    },
    {
      operation: "combine",
      threads: config?.numWorkers ?? ops.numWorkers,
      keep,
    },
  );
}
