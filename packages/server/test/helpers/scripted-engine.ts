// An engine that does what a test says, for tests of the HTTP layer alone. It keeps to the seam: it
// ends a request when its signal aborts or its reader leaves, and remembers that it did.

import { demoModelDir } from "@open-infra/demo-model";
import {
  type EngineClient,
  type EngineStats,
  EngineStoppedError,
  type FinishReason,
  type GenerateEvent,
  type GenerateRequest,
  type Histogram,
  type InfraError,
  type ModelInfo,
  type TokenLogprobs,
} from "@open-infra/engine";

/** What one request does; it may wait on the signal, and need not look at it otherwise. */
export type Script = (
  request: GenerateRequest,
  signal: AbortSignal,
) => AsyncGenerator<GenerateEvent, void, void>;

const histogram: Histogram = {
  bounds: [0.1, 1, 10],
  counts: [3, 2, 0, 1],
  sum: 42.5,
  count: 6,
};

/** The texts as deltas of one token each, then the end. */
export function says(
  texts: readonly string[],
  options: { readonly reason?: FinishReason; readonly cachedTokens?: number } = {},
): Script {
  return async function* script(request) {
    for (const [i, text] of texts.entries()) {
      const logprobs = request.sampling.logprobs === undefined ? {} : { logprobs: [logprob(text)] };
      yield { type: "delta", text, tokenIds: [i + 1], ...logprobs };
    }
    yield finish(request, texts.length, options.reason ?? "stop", options.cachedTokens ?? 0);
  };
}

export function logprob(text: string): TokenLogprobs {
  const token = { tokenId: 1, text, bytes: [...Buffer.from(text)], logprob: -0.5 };
  return { ...token, top: [token, { ...token, tokenId: 2, text: "other", logprob: -1.5 }] };
}

export function finish(
  request: GenerateRequest,
  completionTokens: number,
  reason: FinishReason = "stop",
  cachedTokens = 0,
): GenerateEvent {
  return {
    type: "finish",
    reason,
    stopReason: null,
    usage: { promptTokens: request.promptTokenIds.length, completionTokens, cachedTokens },
    timings: { queuedMs: 1, timeToFirstTokenMs: 2, totalMs: 3 },
  };
}

/** Tokens for ever, one every few milliseconds, until the signal aborts. */
export async function* endless(
  _request: GenerateRequest,
  signal: AbortSignal,
): AsyncGenerator<GenerateEvent, void, void> {
  while (!signal.aborted) {
    yield { type: "delta", text: "x", tokenIds: [1] };
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** Nothing, until the signal aborts. */
export async function* silence(
  _request: GenerateRequest,
  signal: AbortSignal,
): AsyncGenerator<GenerateEvent, void, void> {
  if (signal.aborted) return;
  await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
}

export class ScriptedEngine implements EngineClient {
  readonly model: ModelInfo = {
    id: "demo",
    dir: demoModelDir,
    architecture: "DeepseekV3ForCausalLM",
    parameters: 9_670_000,
    activeWeightBytes: 5_000_000,
    dtype: "bf16",
    vocabSize: 2048,
    maxModelLen: 1024,
    device: "scripted",
    eosTokenIds: [1],
    defaultSampling: { topP: 0.95 },
  };
  readonly failed: Promise<InfraError>;
  readonly requests: GenerateRequest[] = [];
  /** Requests whose script was left before its end. */
  aborted = 0;
  running = 0;
  script: Script;
  #settle: { readonly reject: (error: Error) => void };

  constructor(script: Script = says(["Hello", ", ", "world"])) {
    this.script = script;
    const { promise, reject } = Promise.withResolvers<InfraError>();
    this.failed = promise;
    promise.catch(() => {});
    this.#settle = { reject };
  }

  async *generate(
    request: GenerateRequest,
    { signal = new AbortController().signal }: { readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<GenerateEvent, void, void> {
    this.requests.push(request);
    this.running++;
    let done = false;
    try {
      for await (const event of this.script(request, signal)) {
        if (signal.aborted) break;
        if (event.type === "finish") done = true;
        yield event;
      }
      if (signal.aborted && !done) yield finish(request, 0, "abort");
    } finally {
      this.running--;
      if (!done) this.aborted++;
    }
  }

  stats(): EngineStats {
    return {
      running: this.running,
      waiting: 2,
      kvBlocksUsed: 5,
      kvBlocksTotal: 20,
      kvBlockTokens: 64,
      prefixCacheQueriedTokens: 100,
      prefixCacheHitTokens: 64,
      promptTokens: 300,
      generationTokens: 200,
      preemptions: 1,
      steps: 50,
      lastStep: { tokens: 4, sequences: 2, ms: 1.5 },
      finished: { stop: 3, length: 2, abort: 1 },
      failedRequests: 0,
      histograms: {
        timeToFirstTokenSeconds: histogram,
        interTokenLatencySeconds: histogram,
        e2eRequestLatencySeconds: histogram,
        requestQueueTimeSeconds: histogram,
        iterationTokens: histogram,
        requestPromptTokens: histogram,
        requestGenerationTokens: histogram,
      },
    };
  }

  /** As if the worker had died. */
  fail(error: Error): void {
    this.#settle.reject(error);
    this.script = () => {
      throw new EngineStoppedError(`the engine has failed: ${error.message}`);
    };
  }

  async drain(): Promise<void> {}
  async close(): Promise<void> {}
  async [Symbol.asyncDispose](): Promise<void> {}
}
