// The checks of a dispatch: what is wrong with it is said here, before any rank hears of it.

import { InputError } from "@open-infra/errors";
import { dtypeBits, expectContiguous, type Tensor } from "@open-infra/tensor";
import { expectCount } from "../config.ts";
import { BufferCapacityError } from "../errors.ts";
import { tokensOf } from "../fp8.ts";
import { checkExperts, expectTopk } from "../layout.ts";
import { planDispatch } from "./capacity.ts";
import type { ElasticCore } from "./core.ts";
import type { DispatchOptions, StreamOptions, TokenInput } from "./dispatch-options.ts";
import type { EPHandle } from "./handle.ts";

/** What a dispatch is about, checked. */
export interface Job {
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

/** @throws InputError for a previous event without memory of the communication stream's */
export function checkStreamOptions(options: StreamOptions): void {
  expectCount("numSms", options.numSms ?? 0, 0);
  if (options.previousEvent === undefined || options.allocateOnCommStream) return;
  throw new InputError("allocateOnCommStream", "false", "true where previousEvent is given");
}

/** Checks all that came, and gathers it. @throws InputError */
export function checkJob(
  core: ElasticCore,
  input: TokenInput,
  options: DispatchOptions,
  defaultMaxTokens: number,
): Job {
  const { handle } = options;
  const [x, sf] = tokensOf(input);
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

/** Before any rank hears of it: one bad index must not leave the others waiting. */
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

/** @throws InputError, BufferCapacityError where the window is too small for it */
export function checkRoom(core: ElasticCore, job: Job): void {
  const experts = core.plan.countsStride;
  if (job.numExperts + 2 * core.size + 24 > experts) {
    const most = experts - 2 * core.size - 24;
    const allowed = `at most ${most}, by numMaxExperts of the buffer`;
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
