// The indexer's logits under the original's names: keys in rows (prefill) and keys in the pages of
// a cache (decode). What they compute is in mqa-operation.ts, how decode is shared out in
// mqa-metadata.ts.

import type { Device } from "@open-infra/jit";
import { expectContiguous, expectTensor, ShapeError, Tensor } from "@open-infra/tensor";
import { ArgumentError } from "./errors.ts";
import { type MqaCall, type MqaQuery, queryData } from "./mqa-call.ts";
import { runsOf, scheduleOf } from "./mqa-metadata.ts";
import { mqaOperation } from "./mqa-operation.ts";
import { isScaled, type ScaledTensor } from "./operand.ts";

/** What both functions take. */
export interface MqaOptions {
  /** Type of a new `out`. @default "f32" */
  readonly logitsDtype?: "f32" | "bf16" | undefined;
  /** Written instead of a new tensor; rows may be apart. */
  readonly out?: Tensor | undefined;
  /** Threads to use at most; never changes a result. @default the device's */
  readonly threads?: number | undefined;
}

/** Arguments of {@link fp8MqaLogits}. */
export interface Fp8MqaLogitsArgs extends MqaOptions {
  /** [S,H,D]: e4m3, its scale folded into `weights`; or e2m1 with packed ue8m0 scales i32 [S,H]. */
  readonly q: MqaQuery;
  /** e4m3 [N,D] with f32 scales [N], or e2m1 with packed ue8m0 scales i32 [N]. */
  readonly kv: ScaledTensor;
  /** f32 or bf16 [S,H], of any sign. */
  readonly weights: Tensor;
  /** i32 [S]: first key of each token's window; below 0 counts as 0. */
  readonly cuSeqLenKStart: Tensor;
  /**
   * i32 [S]: the key after the last; beyond N counts as N. Not after the start: an empty window.
   */
  readonly cuSeqLenKEnd: Tensor;
  /** Whether columns outside the window become −∞ or are left alone. @default true */
  readonly cleanLogits?: boolean | undefined;
  /**
   * Above 0: out is [S, maxSeqlenK] and column j is key cuSeqLenKStart + j. @default 0, all keys
   */
  readonly maxSeqlenK?: number | undefined;
}

/**
 * out[i, j] = scale[j] · Σ_h weights[i, h] · max(0, q[i, h] · kv[j]) for the keys j of token i's
 * window, [S,N] (DeepGEMM `fp8_mqa_logits`, `fp8_fp4_mqa_logits`: the lightning indexer of DSA). A
 * logit depends on its token and key alone, to the bit, whatever else is computed beside it.
 *
 * @throws DTypeError, ShapeError, ArgumentError naming the argument, before anything is written.
 */
export function fp8MqaLogits(device: Device, args: Fp8MqaLogitsArgs): Tensor {
  const operation = "fp8MqaLogits";
  const { q, kv, weights, cuSeqLenKStart, cuSeqLenKEnd } = args;
  const width = args.maxSeqlenK ?? 0;
  if (!Number.isSafeInteger(width) || width < 0) {
    throw new ArgumentError(operation, "maxSeqlenK", `${width}`, "an integer of at least 0");
  }
  const data = queryData(q);
  expectRank(operation, "q", data, 3, "[S, H, D]");
  expectRank(operation, "kv.data", kv.data, 2, "[N, D]");
  const shape = [data.dim(0), width > 0 ? width : kv.data.dim(0)];
  const out = outOf(operation, args, shape);
  const call: MqaCall = {
    operation,
    q: withBatch(q),
    keys: { kind: "rows", data: kv.data, scales: kv.scales },
    weights,
    starts: cuSeqLenKStart,
    ends: cuSeqLenKEnd,
    out,
    compressed: width > 0,
    clean: args.cleanLogits ?? true,
    threads: args.threads,
  };
  device.run(mqaOperation(operation), call);
  return out;
}

/** Arguments of {@link fp8PagedMqaLogits}. */
export interface Fp8PagedMqaLogitsArgs extends MqaOptions {
  /** [B,nextN,H,D]: e4m3; or e2m1 with packed ue8m0 scales i32 [B,nextN,H]. */
  readonly q: MqaQuery;
  /**
   * u8 [pages, blockKv, 1, D + 4] (e2m1: D/2 + 4). The bytes of a page are the codes of its blockKv
   * keys, then their scales: f32, or four packed ue8m0. Pages may be apart.
   */
  readonly kvCache: Tensor;
  /** f32 or bf16 [B · nextN, H]. */
  readonly weights: Tensor;
  /** i32 [B,nextN]: keys that each token sees, from the first. */
  readonly contextLens: Tensor;
  /** i32 [B, pages of a sequence]; what lies beyond a sequence's keys is never looked at. */
  readonly blockTable: Tensor;
  /** From {@link getPagedMqaLogitsMetadata} for these lengths. @default made here */
  readonly scheduleMeta?: Tensor | undefined;
  /**
   * i32 [B], where nextN is 1 and sequences have different numbers of tokens: neighbours with the
   * same index are tokens of one sequence, whose pages they all name, and its keys are read once
   * for all of them. Changes no result.
   */
  readonly indices?: Tensor | undefined;
  /** Columns of out. */
  readonly maxContextLen: number;
  /** Whether columns beyond the context become −∞ or are left alone. @default false */
  readonly cleanLogits?: boolean | undefined;
}

/** Parts a thread gets where the caller brought no schedule. */
const partsPerThread = 8;

/**
 * The same logits of keys in pages, [B · nextN, maxContextLen] (DeepGEMM `fp8_paged_mqa_logits`,
 * `fp8_fp4_paged_mqa_logits`); bit for bit those of {@link fp8MqaLogits} on the gathered keys.
 *
 * @throws DTypeError, ShapeError, ArgumentError naming the argument, before anything is written;
 *   also for a schedule made for other lengths.
 */
export function fp8PagedMqaLogits(device: Device, args: Fp8PagedMqaLogitsArgs): Tensor {
  const operation = "fp8PagedMqaLogits";
  const { q, kvCache, weights, contextLens, blockTable, maxContextLen } = args;
  if (!Number.isSafeInteger(maxContextLen) || maxContextLen < 0) {
    throw new ArgumentError(operation, "maxContextLen", `${maxContextLen}`, "an integer from 0 on");
  }
  const data = queryData(q);
  expectRank(operation, "q", data, 4, "[B, nextN, H, D]");
  const [sequences, tokens] = [data.dim(0), data.dim(1)];
  expectTensor(operation, "contextLens", contextLens, ["i32"], [sequences, tokens], {});
  expectContiguous(operation, "contextLens", contextLens);
  const out = outOf(operation, args, [sequences * tokens, maxContextLen]);
  const runs = runsOf(operation, args.indices, contextLens);
  const parts = device.threads * partsPerThread;
  const schedule = args.scheduleMeta ?? scheduleOf(contextLens, parts, runs);
  if (args.scheduleMeta !== undefined) expectFresh(operation, schedule, contextLens, runs);
  const call: MqaCall = {
    operation,
    q,
    keys: { kind: "pages", cache: kvCache, table: blockTable, schedule, runs },
    weights,
    starts: null,
    ends: contextLens.reshape([sequences * tokens]),
    out,
    compressed: false,
    clean: args.cleanLogits ?? false,
    threads: args.threads,
  };
  device.run(mqaOperation(operation), call);
  return out;
}

/** The original's newer names for the same functions. */
export { fp8MqaLogits as fp8Fp4MqaLogits, fp8PagedMqaLogits as fp8Fp4PagedMqaLogits };

function expectRank(
  operation: string,
  argument: string,
  tensor: Tensor,
  rank: number,
  allowed: string,
): void {
  if (tensor.rank === rank) return;
  throw new ShapeError(operation, argument, `[${tensor.shape}]`, allowed);
}

function outOf(operation: string, { out, logitsDtype }: MqaOptions, shape: number[]): Tensor {
  if (out === undefined) return Tensor.empty(shape, logitsDtype ?? "f32", "logits");
  expectTensor(operation, "out", out, logitsDtype ? [logitsDtype] : ["f32", "bf16"], shape, {});
  return out;
}

/** A leading dimension of one sequence. */
function withBatch(q: MqaQuery): MqaQuery {
  const view = (tensor: Tensor): Tensor =>
    new Tensor({
      dtype: tensor.dtype,
      shape: [1, ...tensor.shape],
      strides: [0, ...tensor.strides],
      offset: tensor.offset,
      storage: tensor.storage,
      name: tensor.name,
    });
  return isScaled(q) ? { data: view(q.data), scales: view(q.scales) } : view(q);
}

/** Requires the schedule that these lengths give. */
function expectFresh(
  operation: string,
  schedule: Tensor,
  contextLens: Tensor,
  runs: Tensor | undefined,
): void {
  expectTensor(operation, "scheduleMeta", schedule, ["i32"], ["parts + 1", 2], {});
  expectContiguous(operation, "scheduleMeta", schedule);
  if (schedule.dim(0) < 2) {
    throw new ShapeError(operation, "scheduleMeta", `[${schedule.shape}]`, "[parts + 1, 2]");
  }
  const want = scheduleOf(contextLens, schedule.dim(0) - 1, runs).raw();
  const at = (schedule.raw() as Int32Array).findIndex((value, i) => value !== want[i]);
  if (at < 0) return;
  const got = `${schedule.raw()[at]} at [${at >> 1}, ${at & 1}]`;
  throw new ArgumentError(
    operation,
    "scheduleMeta",
    got,
    `${want[at]}, by these contextLens${runs === undefined ? "" : " and indices"}`,
  );
}
