// Scheduling metadata in the original's two forms. The new form is an object that the first launch
// fills and later launches of the same step reuse; the old form is the two tensors of the tile
// scheduler, for callers and tests that know it. Our kernels need only the first.

import { availableParallelism } from "node:os";
import { expectContiguous, expectTensor, Tensor } from "@open-infra/tensor";
import { BLOCK_KEYS, SPLIT_KEYS } from "./call.ts";
import { ArgumentError, StaleMetadataError } from "./errors.ts";
import { Plan, type PlanProblem } from "./plan.ts";

/** What a filled {@link SchedMeta} belongs to. */
export type SchedConfig = Readonly<Record<string, string | number>>;

/** Numbers a plan was made from, by the name a message calls them. */
export type SchedValues = Readonly<Record<string, Int32Array>>;

/**
 * Scheduling metadata of one step: made once, passed to the attention of every layer. Filled by the
 * first launch; a later launch with another shape, or with other values in the sequence lengths or
 * list lengths, is refused.
 */
export class SchedMeta {
  #plan: Plan | undefined;
  #config: SchedConfig = {};
  #values: SchedValues = {};
  #keyLengths: Int32Array = new Int32Array(0);

  get haveInitialized(): boolean {
    return this.#plan !== undefined;
  }

  /** Shape the metadata was filled for; empty before. */
  get config(): SchedConfig {
    return this.#config;
  }

  /** i32 `[items, 8]`: request, kv head, first row, end row, first split, end split, slot, 0. */
  get tileSchedulerMetadata(): Tensor<"i32"> | undefined {
    const plan = this.#plan?.fill();
    return plan?.items.slice(0, 0, plan.itemCount);
  }

  /**
   * i32 `[b + 1]`: prefix sum of the fixed-length splits of each request; of each query, `[b·s_q +
   * 1]`, for sparse decode.
   */
  get numSplits(): Tensor<"i32"> | undefined {
    if (this.#plan === undefined) return undefined;
    const sums = [0];
    for (const keys of this.#keyLengths) {
      sums.push((sums.at(-1) as number) + Math.max(1, Math.ceil(keys / SPLIT_KEYS)));
    }
    return Tensor.from(sums, [sums.length], "i32", "numSplits");
  }

  /**
   * The plan for a problem: made on first use, checked afterwards.
   *
   * @param values The lengths the problem came from, by name. Left out, its own lengths.
   * @throws StaleMetadataError naming what changed since the first use.
   */
  planFor(
    operation: string,
    config: SchedConfig,
    problem: PlanProblem,
    values: SchedValues = {
      "query length": problem.queryLengths,
      "sequence length": problem.keyLengths,
    },
  ): Plan {
    if (this.#plan === undefined) {
      this.#config = config;
      this.#values = Object.fromEntries(Object.entries(values).map(([k, v]) => [k, v.slice()]));
      const keyLengths = problem.keyLengths.slice();
      const queryLengths = problem.queryLengths.slice();
      this.#keyLengths = keyLengths;
      this.#plan = new Plan().pose({ ...problem, keyLengths, queryLengths });
      return this.#plan;
    }
    for (const key of new Set([...Object.keys(config), ...Object.keys(this.#config)])) {
      const was = this.#config[key] ?? "none";
      const now = config[key] ?? "none";
      if (was !== now) throw new StaleMetadataError(operation, key, was, now);
    }
    for (const [what, now] of Object.entries(values)) {
      sameLengths(operation, what, this.#values[what] as Int32Array, now);
    }
    return this.#plan;
  }
}

function sameLengths(operation: string, what: string, was: Int32Array, now: Int32Array): void {
  for (let r = 0; r < was.length; r++) {
    if (was[r] === now[r]) continue;
    const entry = `${what} of request ${r}`;
    throw new StaleMetadataError(operation, entry, was[r] as number, now[r] as number);
  }
}

/** Empty metadata, to be filled by the first launch (`get_mla_metadata`, new form). */
export function getMlaMetadata(): SchedMeta {
  return new SchedMeta();
}

export interface LegacyMetadataOptions {
  /** Query heads; needed with `topk`. */
  readonly numHeadsQ?: number;
  /** Sparse decode: keys per query instead of the sequence lengths. */
  readonly topk?: number;
  /** Sparse decode, i32 `[b]`: as many of `topk` as count. */
  readonly topkLength?: Tensor;
  /** Sparse decode: keys per query in the extra scope, counted in whole blocks of its own. */
  readonly extraTopk?: number;
  /** i32 `[b]`: as many of `extraTopk` as count. */
  readonly extraTopkLength?: Tensor;
  /** Processors to divide the work among. @default the machine's available parallelism */
  readonly numSms?: number;
  /** Fixes the number of parts instead of deriving it from `numSms`. */
  readonly numSmParts?: number;
  /** Cost of starting a request, in blocks. @default 5 */
  readonly overheadBlocks?: number;
}

export interface LegacyMetadata {
  /**
   * i32 `[numSmParts, 8]`: begin request, end request (inclusive), begin block, end block
   * (exclusive), begin split, first request is split, last request is split, 0. An idle part begins
   * at request b and ends at b − 1.
   */
  readonly tileSchedulerMetadata: Tensor<"i32">;
  /** i32 `[b + 1]`: prefix sum of splits per request. */
  readonly numSplits: Tensor<"i32">;
}

/**
 * The tile scheduler of the original (`get_mla_metadata`, old form): parts of near-equal payload,
 * each a run of 64-key blocks over consecutive requests.
 *
 * @throws ArgumentError for a count that is not a positive integer or a negative length.
 */
export function getMlaMetadataLegacy(
  cacheSeqlens: Tensor,
  numQTokensPerHeadK: number,
  numHeadsK: number,
  options: LegacyMetadataOptions = {},
): LegacyMetadata {
  const name = "getMlaMetadataLegacy";
  expectTensor(name, "cacheSeqlens", cacheSeqlens, ["i32"], ["b"], {});
  expectContiguous(name, "cacheSeqlens", cacheSeqlens);
  const parts = partCount(name, numQTokensPerHeadK, numHeadsK, options);
  const overhead = options.overheadBlocks ?? 5;
  const blocks = blockCounts(name, cacheSeqlens, options);
  const total = blocks.reduce((sum, n) => sum + n + overhead, 0);
  return walk(blocks, parts, Math.ceil(total / parts) + overhead, overhead);
}

/** Blocks of each request, at least one; both scopes of sparse decode in whole blocks. */
function blockCounts(name: string, cacheSeqlens: Tensor, options: LegacyMetadataOptions): number[] {
  const b = cacheSeqlens.dim(0);
  const lengths = (argument: string, tensor: Tensor | undefined, most: number): Int32Array => {
    if (tensor === undefined) return new Int32Array(b).fill(most);
    expectTensor(name, argument, tensor, ["i32"], ["b"], { b });
    return tensor.contiguous().raw() as Int32Array;
  };
  const { topk, extraTopk = 0 } = options;
  const main =
    topk === undefined
      ? (cacheSeqlens.raw() as Int32Array)
      : lengths("topkLength", options.topkLength, topk);
  const extra = lengths("extraTopkLength", options.extraTopkLength, extraTopk);
  return Array.from(main, (keys, r) => {
    if (keys < 0) {
      const argument = topk === undefined ? "cacheSeqlens" : "topkLength";
      throw new ArgumentError(name, `${argument}[${r}]`, `${keys}`, "0 or more");
    }
    const more = Math.ceil(Math.max(0, extra[r] as number) / BLOCK_KEYS);
    return Math.max(1, Math.ceil(keys / BLOCK_KEYS)) + more;
  });
}

function partCount(
  name: string,
  tokensPerHeadK: number,
  headsK: number,
  options: LegacyMetadataOptions,
): number {
  const { numSmParts, topk, numHeadsQ, numSms = availableParallelism() } = options;
  const { overheadBlocks, extraTopk } = options;
  const counts = {
    numQTokensPerHeadK: tokensPerHeadK,
    numHeadsK: headsK,
    numSms,
    numSmParts,
    numHeadsQ,
    overheadBlocks,
    topk,
    extraTopk,
  };
  for (const [key, n] of Object.entries(counts)) {
    const least = ["overheadBlocks", "topk", "extraTopk"].includes(key) ? 0 : 1;
    if (n !== undefined && !(Number.isSafeInteger(n) && n >= least)) {
      throw new ArgumentError(name, key, `${n}`, `an integer of at least ${least}`);
    }
  }
  if (numSmParts !== undefined) return numSmParts;
  if (topk === undefined) {
    return Math.max(1, Math.floor(Math.floor(numSms / headsK) / Math.ceil(tokensPerHeadK / 64)));
  }
  if (numHeadsQ === undefined) {
    throw new ArgumentError(name, "numHeadsQ", "missing", "the number of query heads, with topk");
  }
  const tokens = Math.max(1, Math.floor((tokensPerHeadK * headsK) / numHeadsQ));
  return Math.max(1, Math.floor(Math.floor(numSms / tokens) / Math.ceil(numHeadsQ / 64)));
}

/** Deals blocks to parts in order; see LegacyMetadata for what a row holds. */
function walk(
  blocks: readonly number[],
  parts: number,
  payload: number,
  overhead: number,
): LegacyMetadata {
  const b = blocks.length;
  const rows: number[][] = [];
  const sums = [0];
  let request = 0;
  let block = 0;
  let split = 0;
  for (let part = 0; part < parts; part++) {
    const begin = { request, block, split };
    let remain = payload;
    while (request < b) {
      const left = (blocks[request] as number) - block;
      if (remain >= left + overhead) {
        remain -= left + overhead;
        sums.push((sums[request] as number) + split + 1);
        request++;
        block = 0;
        split = 0;
      } else {
        if (remain > overhead) {
          block += remain - overhead;
          split++;
        }
        break;
      }
    }
    const endRequest = block > 0 ? request : request - 1;
    const endBlock = block > 0 ? block : (blocks[endRequest] ?? 0);
    const whole = (r: number): boolean =>
      (r !== begin.request || begin.block === 0) &&
      (r !== endRequest || endBlock === blocks[endRequest]);
    const idle = begin.request >= b;
    rows.push(
      idle
        ? [b, b - 1, 0, 0, 0, 0, 0, 0]
        : [
            begin.request,
            endRequest,
            begin.block,
            endBlock,
            begin.split,
            whole(begin.request) ? 0 : 1,
            whole(endRequest) ? 0 : 1,
            0,
          ],
    );
  }
  return {
    tileSchedulerMetadata: Tensor.from(rows.flat(), [parts, 8], "i32", "tileSchedulerMetadata"),
    numSplits: Tensor.from(sums, [b + 1], "i32", "numSplits"),
  };
}
