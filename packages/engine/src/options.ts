// The engine's options, checked once, and the one decision among them that takes thought: how much
// memory the KV cache gets. Pure; opening devices and models is in open.ts.

import type { ComputeDType } from "@open-infra/model";
import { EngineOptionError } from "./errors.ts";

/** What is being done before the engine is ready, in this order. */
export type LoadPhase = "weights" | "kernels";

export interface EngineOptions {
  /** A checkpoint folder in the hub's layout. */
  readonly modelDir: string;
  /** Shown as `model.id`. @default the folder's name */
  readonly modelId?: string;
  /** @default "auto" */
  readonly dtype?: ComputeDType;
  /** With dtype `w8a8`: which layers' inputs are FP8. @default "mlp" */
  readonly fp8Inputs?: "mlp" | "all";
  /** @default "auto" */
  readonly backend?: "auto" | "cpu" | "reference";
  /** @default the machine's available parallelism */
  readonly threads?: number;
  /** Memory for the KV cache; at most one of this and `numBlocks`. @default see README */
  readonly kvCacheBytes?: number;
  /** KV cache blocks of 64 tokens. */
  readonly numBlocks?: number;
  /**
   * Tokens computed in one step, at least `maxSequences`. @default 512, or `maxSequences` if more
   */
  readonly maxBatchedTokens?: number;
  /** Requests computed at once. @default 64 */
  readonly maxSequences?: number;
  /** Requests that may wait beyond those. @default 256 */
  readonly maxQueue?: number;
  /** Prompt and completion together. @default what the model and the cache allow */
  readonly maxModelLen?: number;
  /** Reuse the cache blocks of equal beginnings. @default true */
  readonly prefixCaching?: boolean;
  /** Compiled kernels. @default OPEN_INFRA_JIT_CACHE_DIR or ~/.cache/open-infra/jit */
  readonly cacheDir?: string;
  /** Write engine steps and kernel launches as a Chrome trace on close. */
  readonly tracePath?: string;
  /** Bytes of weights, then kernels: done so far, and in all. */
  readonly onProgress?: (phase: LoadPhase, done: number, total: number) => void;
  /** One line of news at a time. @default writes to stderr */
  readonly onLog?: (line: string) => void;
  /** Gives up loading. */
  readonly signal?: AbortSignal;
}

/** The options that cross to the worker: no functions, no signals, sizes filled in. */
export interface CheckedOptions {
  readonly modelDir: string;
  readonly modelId: string | undefined;
  readonly dtype: ComputeDType;
  readonly fp8Inputs: "mlp" | "all" | undefined;
  readonly backend: "auto" | "cpu" | "reference";
  readonly threads: number | undefined;
  readonly kvCacheBytes: number | undefined;
  readonly numBlocks: number | undefined;
  readonly maxBatchedTokens: number;
  readonly maxSequences: number;
  readonly maxQueue: number;
  readonly maxModelLen: number | undefined;
  readonly prefixCaching: boolean;
  readonly cacheDir: string | undefined;
  readonly tracePath: string | undefined;
}

/** @throws EngineOptionError naming the option, what came and what is allowed. */
export function checkOptions(options: EngineOptions): CheckedOptions {
  const maxSequences = count(options, "maxSequences", 1, 4096) ?? 64;
  const maxBatchedTokens =
    count(options, "maxBatchedTokens", 1, 1 << 20) ?? Math.max(512, maxSequences);
  if (maxBatchedTokens < maxSequences) {
    throw new EngineOptionError(
      "maxBatchedTokens",
      String(maxBatchedTokens),
      `at least maxSequences (${maxSequences}), so that every sequence can advance in a step`,
    );
  }
  if (options.kvCacheBytes !== undefined && options.numBlocks !== undefined) {
    throw new EngineOptionError("numBlocks", "given with kvCacheBytes", "only one of the two");
  }
  choice(options, "dtype", ["auto", "bf16", "f32", "w8a8"]);
  choice(options, "fp8Inputs", ["mlp", "all"]);
  choice(options, "backend", ["auto", "cpu", "reference"]);
  return {
    modelDir: options.modelDir,
    modelId: options.modelId,
    dtype: options.dtype ?? "auto",
    fp8Inputs: options.fp8Inputs,
    backend: options.backend ?? "auto",
    threads: count(options, "threads", 1, 1024),
    kvCacheBytes: count(options, "kvCacheBytes", 1, Number.MAX_SAFE_INTEGER),
    numBlocks: count(options, "numBlocks", 1, 0x7fffffff),
    maxBatchedTokens,
    maxSequences,
    maxQueue: count(options, "maxQueue", 0, 1 << 20) ?? 256,
    maxModelLen: count(options, "maxModelLen", 2, Number.MAX_SAFE_INTEGER),
    prefixCaching: options.prefixCaching ?? true,
    cacheDir: options.cacheDir,
    tracePath: options.tracePath,
  };
}

type CountName =
  | "threads"
  | "kvCacheBytes"
  | "numBlocks"
  | "maxBatchedTokens"
  | "maxSequences"
  | "maxQueue"
  | "maxModelLen";

function count(
  options: EngineOptions,
  name: CountName,
  low: number,
  high: number,
): number | undefined {
  const value = options[name];
  if (value === undefined) return undefined;
  if (Number.isSafeInteger(value) && value >= low && value <= high) return value;
  throw new EngineOptionError(name, String(value), `an integer from ${low} to ${high}`);
}

function choice(
  options: EngineOptions,
  name: "dtype" | "fp8Inputs" | "backend",
  allowed: readonly string[],
): void {
  const value = options[name];
  if (value === undefined || allowed.includes(value)) return;
  throw new EngineOptionError(name, `'${value}'`, allowed.join(", "));
}

/** What the size of the cache is decided from. */
export interface CacheFacts {
  readonly blockTokens: number;
  readonly bytesPerBlock: number;
  /** The model's own limit. */
  readonly maxPositions: number;
  /** Memory that could be had now. */
  readonly availableBytes: number;
}

export interface CachePlan {
  readonly numBlocks: number;
  readonly maxModelLen: number;
  /** One line for people. */
  readonly note: string;
}

/** Share of the available memory that the cache takes when nobody says how much. */
const DEFAULT_SHARE = 0.25;
/** Tokens a sequence is expected to hold, when nobody says how much. */
const EXPECTED_TOKENS = 2048;

/**
 * Blocks of the cache and the longest sequence. A context that was asked for is given or refused;
 * one that is only the model's own is cut to what the cache holds, and the note says so.
 *
 * @throws EngineOptionError
 */
export function planCache(options: CheckedOptions, facts: CacheFacts): CachePlan {
  const { blockTokens, bytesPerBlock, maxPositions } = facts;
  const asked = options.maxModelLen;
  if (asked !== undefined && asked > maxPositions) {
    throw new EngineOptionError(
      "maxModelLen",
      String(asked),
      `at most ${maxPositions}, the model's max_position_embeddings`,
    );
  }
  const wanted = asked ?? maxPositions;
  const wantedBlocks = Math.ceil(wanted / blockTokens);
  const numBlocks = chooseBlocks(options, facts, wanted);
  if (asked !== undefined && numBlocks < wantedBlocks) {
    throw new EngineOptionError(
      "maxModelLen",
      `${asked}, which takes ${wantedBlocks} cache blocks of ${bytesPerBlock} bytes`,
      `at most ${numBlocks * blockTokens}, what ${numBlocks} blocks hold; ` +
        "lower it or give the cache more memory",
    );
  }
  const maxModelLen = Math.min(wanted, numBlocks * blockTokens);
  const cut = maxModelLen < wanted ? ` (the model allows ${wanted})` : "";
  return {
    numBlocks,
    maxModelLen,
    note:
      `KV cache: ${numBlocks} blocks of ${blockTokens} tokens, ` +
      `${formatBytes(numBlocks * bytesPerBlock)}; context ${maxModelLen} tokens${cut}`,
  };
}

function chooseBlocks(options: CheckedOptions, facts: CacheFacts, wanted: number): number {
  const { blockTokens, bytesPerBlock, availableBytes } = facts;
  if (options.numBlocks !== undefined) return options.numBlocks;
  if (options.kvCacheBytes !== undefined) {
    const blocks = Math.floor(options.kvCacheBytes / bytesPerBlock);
    if (blocks > 0) return blocks;
    throw new EngineOptionError(
      "kvCacheBytes",
      String(options.kvCacheBytes),
      `at least ${bytesPerBlock}, one block of ${blockTokens} tokens`,
    );
  }
  const oneSequence = Math.ceil(wanted / blockTokens);
  const perSequence = Math.ceil(Math.min(wanted, EXPECTED_TOKENS) / blockTokens);
  const useful = Math.max(oneSequence, options.maxSequences * perSequence);
  const bound = Math.floor((availableBytes * DEFAULT_SHARE) / bytesPerBlock);
  // A context asked for by name may take more than the usual share, as long as it fits at all.
  const most = Math.floor((availableBytes * 0.9) / bytesPerBlock);
  const floor = options.maxModelLen === undefined ? 1 : Math.min(oneSequence, most);
  return Math.max(1, floor, Math.min(useful, bound));
}

function formatBytes(bytes: number): string {
  const mib = bytes / 2 ** 20;
  return mib >= 1024 ? `${(mib / 1024).toFixed(1)} GiB` : `${mib.toFixed(1)} MiB`;
}
