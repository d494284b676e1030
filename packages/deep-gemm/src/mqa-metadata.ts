// How paged logits are shared out: sequences are cut into splits of 256 keys, and parts (the
// original's SMs) get runs of them that differ by one split at most.

import { expectContiguous, expectTensor, ShapeError, Tensor } from "@open-infra/tensor";
import { ArgumentError } from "./errors.ts";
import { longestOf } from "./mqa-call.ts";

/** Keys of a split; part of the metadata's meaning, and of no result. */
export const SPLIT_KEYS = 256;

export interface PagedMqaLogitsMetadataOptions {
  /** i32 [B, nextN]: keys that each token sees. */
  readonly contextLens: Tensor;
  /** Keys of a page; any number will do, the original wants a divisor of 256. */
  readonly blockKv: number;
  /** Parts to cut the work into: more than threads, so that they even out. */
  readonly numSms: number;
  /** i32 [B], as {@link Fp8PagedMqaLogitsArgs} has it; nextN is 1 then. */
  readonly indices?: Tensor | undefined;
}

/**
 * i32 [numSms + 1, 2]: the (sequence, split of 256 keys) where each part begins; the last row is
 * the end, (B, 0). A sequence is as long as its longest token (DeepGEMM
 * `get_paged_mqa_logits_metadata`). With `indices`, sequences are the runs of equal ones.
 *
 * @throws DTypeError, ShapeError, ArgumentError
 */
export function getPagedMqaLogitsMetadata(options: PagedMqaLogitsMetadataOptions): Tensor {
  const operation = "getPagedMqaLogitsMetadata";
  const { contextLens, blockKv, numSms } = options;
  expectTensor(operation, "contextLens", contextLens, ["i32"], ["B", "nextN"], {});
  expectContiguous(operation, "contextLens", contextLens);
  for (const [name, value] of [["blockKv", blockKv] as const, ["numSms", numSms] as const]) {
    if (Number.isSafeInteger(value) && value > 0) continue;
    throw new ArgumentError(operation, name, `${value}`, "a positive integer");
  }
  for (const [i, length] of (contextLens.raw() as Int32Array).entries()) {
    if (length >= 0) continue;
    throw new ArgumentError(operation, `contextLens[${i}]`, `${length}`, "at least 0");
  }
  const runs = runsOf(operation, options.indices, contextLens);
  return scheduleOf(contextLens, numSms, runs);
}

/**
 * Where each run of equal indices begins, i32 [runs + 1]; undefined without indices.
 *
 * @throws DTypeError, ShapeError
 */
export function runsOf(
  operation: string,
  indices: Tensor | undefined,
  contextLens: Tensor,
): Tensor | undefined {
  if (indices === undefined) return undefined;
  const rows = contextLens.dim(0);
  expectTensor(operation, "indices", indices, ["i32"], [rows], {});
  if (contextLens.dim(1) !== 1) {
    const got = `[${contextLens.shape}] with indices`;
    throw new ShapeError(operation, "contextLens", got, `[${rows}, 1]: a row for each token`);
  }
  const ids = indices.contiguous().raw() as Int32Array;
  const starts: number[] = [];
  ids.forEach((id, t) => {
    if (t === 0 || id !== ids[t - 1]) starts.push(t);
  });
  return Tensor.from([...starts, rows], [starts.length + 1], "i32", "runs");
}

/** The schedule of checked lengths; `runs` as in {@link runsOf}. */
export function scheduleOf(contextLens: Tensor, parts: number, runs?: Tensor): Tensor {
  const tokens = contextLens.dim(1);
  const sequences = runs === undefined ? contextLens.dim(0) : runs.size - 1;
  const starts = runs?.raw();
  const first = (b: number): number => (starts === undefined ? b * tokens : (starts[b] as number));
  const splits = Array.from({ length: sequences }, (_, b) =>
    Math.ceil(longestOf(contextLens, first(b), first(b + 1)) / SPLIT_KEYS),
  );
  const total = splits.reduce((a, b) => a + b, 0);
  const schedule = Tensor.empty([parts + 1, 2], "i32", "scheduleMeta");
  const rows = schedule.raw();
  const share = Math.floor(total / parts);
  const rest = total % parts;
  let sequence = 0;
  let before = 0; // Splits of the sequences before this one.
  for (let part = 0; part <= parts; part++) {
    const start = part * share + Math.min(part, rest);
    while (sequence < sequences && before + (splits[sequence] as number) <= start) {
      before += splits[sequence] as number;
      sequence++;
    }
    rows[2 * part] = sequence;
    rows[2 * part + 1] = start - before;
  }
  return schedule;
}
