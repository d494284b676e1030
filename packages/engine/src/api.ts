// What the rest of the house sees of the engine. The HTTP server talks to this interface; behind it
// a worker thread owns the model, so that no kernel ever runs on the event loop. Tensors never
// cross this seam: token ids, text and counts do.

import type { InfraError } from "@open-infra/errors";

/**
 * How to choose the next token, and when to stop. Names and defaults follow OpenAI's and vLLM's.
 */
export interface SamplingParams {
  /** 0 is greedy. @default 1 */
  readonly temperature?: number;
  /** Keep the k most likely tokens; 0 or -1 keeps all. @default 0 */
  readonly topK?: number;
  /** Keep the smallest set whose probability reaches p. @default 1 */
  readonly topP?: number;
  /** Drop tokens below minP times the best one's probability. @default 0 */
  readonly minP?: number;
  /** @default 0 */
  readonly presencePenalty?: number;
  /** @default 0 */
  readonly frequencyPenalty?: number;
  /** @default 1 */
  readonly repetitionPenalty?: number;
  /** Added to the logits, by token id. */
  readonly logitBias?: Readonly<Record<number, number>>;
  /** Strings that end the text; they are not part of it. */
  readonly stop?: readonly string[];
  readonly stopTokenIds?: readonly number[];
  /** @default what the context has left */
  readonly maxTokens?: number;
  /** No stop before this many. @default 0 */
  readonly minTokens?: number;
  /** @default false */
  readonly ignoreEos?: boolean;
  /** The same seed gives the same text, whatever else is in the batch. @default random */
  readonly seed?: number;
  /** Report the chosen token's log-probability and this many alternatives (0 to 20). */
  readonly logprobs?: number;
  /** Also report log-probabilities of the prompt's tokens. @default false */
  readonly promptLogprobs?: boolean;
}

export interface GenerateRequest {
  /** Shown in logs and traces; unique among running requests. */
  readonly id: string;
  readonly promptTokenIds: readonly number[];
  readonly sampling: SamplingParams;
}

export interface TokenLogprob {
  readonly tokenId: number;
  readonly text: string;
  /** The token's bytes, for clients that join partial characters themselves. */
  readonly bytes: readonly number[];
  readonly logprob: number;
}

export interface TokenLogprobs extends TokenLogprob {
  /** The most likely tokens, best first. */
  readonly top: readonly TokenLogprob[];
}

export type FinishReason = "stop" | "length" | "abort";

export type GenerateEvent =
  | {
      readonly type: "prompt";
      /** One entry a prompt token (the first is null), when `promptLogprobs` was asked. */
      readonly logprobs: readonly (TokenLogprobs | null)[];
    }
  | {
      readonly type: "delta";
      /**
       * Text that became certain with these tokens; may be empty while a character is incomplete.
       */
      readonly text: string;
      readonly tokenIds: readonly number[];
      readonly logprobs?: readonly TokenLogprobs[];
    }
  | {
      readonly type: "finish";
      readonly reason: FinishReason;
      /** The stop string or token id that ended the text, if one did. */
      readonly stopReason: string | number | null;
      readonly usage: Usage;
      readonly timings: Timings;
    };

export interface Usage {
  readonly promptTokens: number;
  readonly completionTokens: number;
  /** Prompt tokens taken from the prefix cache. */
  readonly cachedTokens: number;
}

export interface Timings {
  readonly queuedMs: number;
  readonly timeToFirstTokenMs: number;
  readonly totalMs: number;
}

/** Facts about the served model. */
export interface ModelInfo {
  readonly id: string;
  readonly dir: string;
  readonly architecture: string;
  readonly parameters: number;
  /** Weight bytes read to decode one token alone. */
  readonly activeWeightBytes: number;
  readonly dtype: string;
  readonly vocabSize: number;
  /** Prompt and completion together. */
  readonly maxModelLen: number;
  /** One line: backend, ISA, threads. */
  readonly device: string;
  readonly eosTokenIds: readonly number[];
  /** From generation_config.json; a request's own settings win. */
  readonly defaultSampling: SamplingParams;
}

/** Observations sorted into buckets, as Prometheus wants them. */
export interface Histogram {
  /** Upper bounds, ascending, the last one +Infinity left out. */
  readonly bounds: readonly number[];
  /** Observations at or below each bound and above the one before; one more entry for the rest. */
  readonly counts: readonly number[];
  readonly sum: number;
  readonly count: number;
}

/** Distributions since start; times in seconds, sizes in tokens. */
export interface EngineHistograms {
  /** Arrival to first token. */
  readonly timeToFirstTokenSeconds: Histogram;
  /** Between one token of a request and its next. */
  readonly interTokenLatencySeconds: Histogram;
  /** Arrival to finish. */
  readonly e2eRequestLatencySeconds: Histogram;
  /** Arrival to the first step that computes the request. */
  readonly requestQueueTimeSeconds: Histogram;
  /** Tokens computed in one step. */
  readonly iterationTokens: Histogram;
  readonly requestPromptTokens: Histogram;
  readonly requestGenerationTokens: Histogram;
}

/** Counters since start and gauges of now; the server turns them into Prometheus metrics. */
export interface EngineStats {
  readonly running: number;
  readonly waiting: number;
  readonly kvBlocksUsed: number;
  readonly kvBlocksTotal: number;
  readonly kvBlockTokens: number;
  readonly prefixCacheQueriedTokens: number;
  readonly prefixCacheHitTokens: number;
  readonly promptTokens: number;
  readonly generationTokens: number;
  readonly preemptions: number;
  readonly steps: number;
  /** The last step: tokens computed, sequences in the batch, milliseconds. */
  readonly lastStep: { readonly tokens: number; readonly sequences: number; readonly ms: number };
  readonly finished: Readonly<Record<FinishReason, number>>;
  /** Requests that ended in an error after they were admitted, e.g. non-finite logits. */
  readonly failedRequests: number;
  readonly histograms: EngineHistograms;
}

export interface EngineClient extends AsyncDisposable {
  readonly model: ModelInfo;
  /**
   * Queues a request and yields events until `finish`. Leaving the loop or aborting the signal
   * frees the sequence's blocks at the next step.
   *
   * @throws EngineOverloadedError when the queue is full, RequestError when the request cannot be
   * served as asked, EngineStoppedError when the engine has failed or is closing.
   */
  generate(
    request: GenerateRequest,
    options?: { readonly signal?: AbortSignal },
  ): AsyncIterable<GenerateEvent>;
  stats(): EngineStats;
  /** Refuses new requests, lets running ones finish for at most `timeoutMs`, then aborts them. */
  drain(timeoutMs: number): Promise<void>;
  close(): Promise<void>;
  /**
   * Rejects when the engine fails in the background; never resolves while it runs. After a clean
   * `close()` it resolves with an EngineStoppedError.
   */
  readonly failed: Promise<InfraError>;
}
