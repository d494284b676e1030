// The engine without its thread: requests in, one step at a time, events out. Synchronous, so that
// tests run it in process and the worker decides when to look at its messages.

import type { InfraError } from "@open-infra/errors";
import type { Device } from "@open-infra/jit";
import type { CausalLM, KvCache, Tokenizer } from "@open-infra/model";
import { nullRecorder, type Recorder } from "@open-infra/profile";
import type { Tensor } from "@open-infra/tensor";
import type { FinishReason, GenerateEvent, GenerateRequest, TokenLogprobs } from "./api.ts";
import { BlockManager } from "./block-manager.ts";
import { nowMs } from "./clock.ts";
import { LogitsError } from "./errors.ts";
import { type RowLogprobs, type SampleOutcome, Sampler } from "./sampler.ts";
import { resolveRequest } from "./sampling-params.ts";
import { Scheduler, type StepPlan } from "./scheduler.ts";
import { Sequence } from "./sequence.ts";
import { retryAfterSeconds, StatsBoard } from "./stats.ts";
import { buildStepBatch, type PromptRow, type SampleRow } from "./step-batch.ts";
import { TextStream, TokenNames } from "./text.ts";

/** Tokens a cache block holds; what the attention kernels page by. */
export const BLOCK_TOKENS = 64;

/** Rows of prompt logits a step may hold beyond one a sequence. */
const PROMPT_LOGIT_ROWS = 64;

/** What a core runs on, and its sizes. Checked by options.ts; see there for defaults. */
export interface EngineCoreOptions {
  readonly model: CausalLM;
  readonly tokenizer: Tokenizer;
  /** Runs the sampling kernels. */
  readonly device: Device;
  readonly numBlocks: number;
  readonly maxBatchedTokens: number;
  readonly maxSequences: number;
  readonly maxQueue: number;
  readonly maxModelLen: number;
  readonly eosTokenIds: readonly number[];
  /** @default true */
  readonly prefixCaching?: boolean;
  readonly recorder?: Recorder;
}

/** What happened to one request in a step. */
export interface EngineOutput {
  readonly key: number;
  readonly events: readonly GenerateEvent[];
  /** Ends the request instead of a `finish` event. */
  readonly error?: InfraError;
}

interface Entry {
  readonly key: number;
  readonly sequence: Sequence;
  readonly text: TextStream;
  readonly events: GenerateEvent[];
  promptReported: boolean;
}

export class EngineCore implements Disposable {
  readonly board: StatsBoard = new StatsBoard();
  readonly blocks: BlockManager;
  readonly #options: EngineCoreOptions;
  readonly #cache: KvCache;
  readonly #scheduler: Scheduler;
  readonly #sampler: Sampler;
  readonly #names: TokenNames;
  readonly #recorder: Recorder;
  readonly #entries = new Map<number, Entry>();
  readonly #bySequence = new Map<Sequence, Entry>();
  #outbox: EngineOutput[] = [];
  #nextOrder = 0;

  constructor(options: EngineCoreOptions) {
    const { model, numBlocks, maxSequences } = options;
    this.#options = options;
    this.#recorder = options.recorder ?? nullRecorder;
    this.#cache = model.createKvCache({ numBlocks, blockTokens: BLOCK_TOKENS });
    this.blocks = new BlockManager({
      numBlocks,
      blockTokens: BLOCK_TOKENS,
      prefixCaching: options.prefixCaching ?? true,
    });
    this.#scheduler = new Scheduler(this.blocks, {
      maxBatchedTokens: options.maxBatchedTokens,
      maxSequences,
      maxQueue: options.maxQueue,
      maxLogitRows: maxSequences + PROMPT_LOGIT_ROWS,
    });
    this.#sampler = new Sampler(options.device, model.config.vocabSize);
    this.#names = new TokenNames(options.tokenizer);
    this.board.set("kvBlocksTotal", numBlocks);
    this.board.set("kvBlockTokens", BLOCK_TOKENS);
  }

  /** Compiles the sampling kernels; the model's own are its own business. */
  async warmup(): Promise<void> {
    await this.#sampler.warmup();
  }

  /** True while a step would do something, or events wait to be taken. */
  get hasWork(): boolean {
    return this.#scheduler.hasWork || this.#outbox.length > 0;
  }

  /**
   * Queues a request under a key of the caller's.
   *
   * @throws RequestError, EngineOverloadedError
   */
  add(key: number, request: GenerateRequest, arrivalMs: number = nowMs()): void {
    const { model, maxModelLen, eosTokenIds, tokenizer } = this.#options;
    const limits = { vocabSize: model.config.vocabSize, maxModelLen, eosTokenIds };
    const sampling = resolveRequest(request, limits);
    const seed = sampling.seed ?? Math.floor(Math.random() * Number.MAX_SAFE_INTEGER);
    const place = { order: this.#nextOrder++, seed, arrivalMs };
    const sequence = new Sequence(request, sampling, place);
    this.#scheduler.add(sequence, retryAfterSeconds(this.board));
    const text = new TextStream(tokenizer, sampling);
    const entry: Entry = { key, sequence, text, events: [], promptReported: false };
    this.#entries.set(key, entry);
    this.#bySequence.set(sequence, entry);
    this.#updateGauges();
  }

  /** Ends a request with what it has; its blocks are free on return. Unknown keys are ignored. */
  abort(key: number): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    this.#finish(entry, "abort", null);
    this.#flush(entry);
    this.#updateGauges();
  }

  abortAll(): void {
    for (const key of [...this.#entries.keys()]) this.abort(key);
  }

  /** Computes one step, if there is work, and returns what happened since the last call. */
  step(): readonly EngineOutput[] {
    if (this.#scheduler.hasWork) this.#compute();
    const outputs = this.#outbox;
    this.#outbox = [];
    return outputs;
  }

  [Symbol.dispose](): void {
    this.#cache[Symbol.dispose]();
  }

  #compute(): void {
    const startMs = nowMs();
    const startUs = this.#recorder.now();
    const plan = this.#scheduler.schedule();
    if (plan.slices.length === 0) throw new Error("the scheduler has work but planned nothing");
    for (const { sequence } of plan.slices) this.#noteStart(sequence, startMs);
    const batch = buildStepBatch(plan);
    const forwardUs = this.#recorder.now();
    const logits = this.#options.model.forward(batch.forward, this.#cache);
    const sampleUs = this.#recorder.now();
    this.#scheduler.complete(plan);
    this.#scorePrompts(logits, batch.promptRows);
    this.#sampleTokens(logits, batch.sampleRows);
    for (const { sequence } of plan.slices) {
      const entry = this.#bySequence.get(sequence);
      if (entry !== undefined) this.#flush(entry);
    }
    this.#countStep(plan, startMs);
    if (this.#recorder.enabled) this.#trace(plan, { startUs, forwardUs, sampleUs });
  }

  #noteStart(sequence: Sequence, startMs: number): void {
    if (sequence.startedMs !== undefined) return;
    sequence.startedMs = startMs;
    this.board.observe("requestQueueTimeSeconds", (startMs - sequence.arrivalMs) / 1000);
    this.board.observe("requestPromptTokens", sequence.promptTokens);
    this.board.add("promptTokens", sequence.promptTokens);
  }

  #scorePrompts(logits: Tensor<"f32">, rows: readonly PromptRow[]): void {
    if (rows.length === 0) return;
    const scores = this.#sampler.score(
      logits,
      rows.map(({ row, sequence, position }) => ({
        row,
        tokenId: sequence.tokens[position] as number,
        top: sequence.sampling.logprobs ?? 0,
      })),
    );
    for (const [i, { sequence, position }] of rows.entries()) {
      const score = scores[i] as RowLogprobs | string;
      const entry = this.#bySequence.get(sequence);
      if (entry === undefined) continue;
      if (typeof score === "string") this.#fail(entry, position - 1, score);
      else
        sequence.promptLogprobs?.push(
          this.#names.logprobs(sequence.tokens[position] as number, score),
        );
    }
  }

  #sampleTokens(logits: Tensor<"f32">, all: readonly SampleRow[]): void {
    // A sequence that failed while its prompt was scored has nothing left to sample.
    const rows = all.filter(({ sequence }) => this.#bySequence.has(sequence));
    const outcomes = this.#sampler.sample(
      logits,
      rows.map(({ row, sequence }) => ({
        row,
        sampling: sequence.sampling,
        seed: sequence.seed,
        outputTokens: sequence.outputTokens,
        outputCounts: sequence.outputCounts,
        promptSet: sequence.promptSet,
      })),
    );
    const atMs = nowMs();
    for (const [i, { sequence }] of rows.entries()) {
      const entry = this.#bySequence.get(sequence) as Entry;
      const outcome = outcomes[i] as SampleOutcome;
      if ("problem" in outcome) this.#fail(entry, sequence.tokens.length - 1, outcome.problem);
      else this.#accept(entry, outcome.tokenId, outcome.logprobs, atMs);
    }
  }

  #accept(entry: Entry, tokenId: number, row: RowLogprobs | undefined, atMs: number): void {
    const { sequence, text } = entry;
    const { sampling } = sequence;
    this.#noteToken(sequence, atMs);
    sequence.append(tokenId);
    const logprobs = row === undefined ? undefined : [this.#names.logprobs(tokenId, row)];
    if (sequence.promptLogprobs !== undefined && !entry.promptReported) {
      entry.promptReported = true;
      entry.events.push({ type: "prompt", logprobs: sequence.promptLogprobs });
    }
    if (sampling.stopTokenIds.has(tokenId)) {
      const own = sampling.ownStopTokenIds.has(tokenId) ? tokenId : null;
      const rest = text.finish();
      this.#delta(entry, rest.text, tokenId, logprobs);
      this.#finish(entry, "stop", rest.stop ?? own);
      return;
    }
    const piece = text.push(tokenId);
    const last = piece.stop === null && sequence.outputTokens >= sampling.maxTokens;
    const rest = last ? text.finish() : undefined;
    const stop = piece.stop ?? rest?.stop ?? null;
    this.#delta(entry, piece.text + (rest?.text ?? ""), tokenId, logprobs);
    if (stop !== null) this.#finish(entry, "stop", stop);
    else if (last) this.#finish(entry, "length", null);
  }

  #noteToken(sequence: Sequence, atMs: number): void {
    this.board.add("generationTokens", 1);
    if (sequence.lastTokenMs !== undefined) {
      this.board.observe("interTokenLatencySeconds", (atMs - sequence.lastTokenMs) / 1000);
    } else {
      sequence.firstTokenMs = atMs;
      this.board.observe("timeToFirstTokenSeconds", (atMs - sequence.arrivalMs) / 1000);
    }
    sequence.lastTokenMs = atMs;
  }

  #delta(
    entry: Entry,
    text: string,
    tokenId: number,
    logprobs: readonly TokenLogprobs[] | undefined,
  ): void {
    const event = { type: "delta", text, tokenIds: [tokenId] } as const;
    entry.events.push(logprobs === undefined ? event : { ...event, logprobs });
  }

  #finish(entry: Entry, reason: FinishReason, stopReason: string | number | null): void {
    const { sequence } = entry;
    this.#scheduler.remove(sequence);
    const endMs = nowMs();
    const startedMs = sequence.startedMs ?? endMs;
    entry.events.push({
      type: "finish",
      reason,
      stopReason,
      usage: {
        promptTokens: sequence.promptTokens,
        completionTokens: sequence.outputTokens,
        cachedTokens: sequence.cachedTokens,
      },
      timings: {
        queuedMs: startedMs - sequence.arrivalMs,
        timeToFirstTokenMs: (sequence.firstTokenMs ?? endMs) - sequence.arrivalMs,
        totalMs: endMs - sequence.arrivalMs,
      },
    });
    this.board.finished(reason);
    this.board.observe("e2eRequestLatencySeconds", (endMs - sequence.arrivalMs) / 1000);
    this.board.observe("requestGenerationTokens", sequence.outputTokens);
    this.#entries.delete(entry.key);
  }

  #fail(entry: Entry, position: number, problem: string): void {
    this.#scheduler.remove(entry.sequence);
    this.#entries.delete(entry.key);
    this.#bySequence.delete(entry.sequence);
    this.board.add("failedRequests", 1);
    const error = new LogitsError(entry.sequence.id, position, problem);
    this.#outbox.push({ key: entry.key, events: entry.events.splice(0), error });
  }

  /** Moves an entry's events to the outbox, and forgets it if it has ended. */
  #flush(entry: Entry): void {
    if (entry.events.length > 0) {
      this.#outbox.push({ key: entry.key, events: entry.events.splice(0) });
    }
    if (entry.sequence.state === "finished") this.#bySequence.delete(entry.sequence);
  }

  #countStep(plan: StepPlan, startMs: number): void {
    this.board.add("steps", 1);
    this.board.observe("iterationTokens", plan.totalTokens);
    this.board.set("lastStepTokens", plan.totalTokens);
    this.board.set("lastStepSequences", plan.slices.length);
    this.board.set("lastStepMs", nowMs() - startMs);
    this.#updateGauges();
  }

  #updateGauges(): void {
    const { board, blocks } = this;
    board.set("running", this.#scheduler.running.length);
    board.set("waiting", this.#scheduler.waiting.length);
    board.set("preemptions", this.#scheduler.preemptions);
    board.set("kvBlocksUsed", blocks.used);
    board.set("prefixCacheQueriedTokens", blocks.prefixCache.queriedTokens);
    board.set("prefixCacheHitTokens", blocks.prefixCache.hitTokens);
  }

  #trace(
    plan: StepPlan,
    at: { readonly startUs: number; readonly forwardUs: number; readonly sampleUs: number },
  ): void {
    const recorder = this.#recorder;
    const endUs = recorder.now();
    const decodes = plan.slices.filter(
      ({ sequence, tokens }) => tokens === 1 && sequence.tokens.length > sequence.promptTokens + 1,
    ).length;
    recorder.span(
      "engine",
      "step",
      at.startUs,
      {
        sequences: plan.slices.length,
        tokens: plan.totalTokens,
        decodes,
        preempted: plan.preempted.length,
      },
      endUs - at.startUs,
    );
    recorder.span("engine", "schedule", at.startUs, undefined, at.forwardUs - at.startUs);
    recorder.span("engine", "forward", at.forwardUs, undefined, at.sampleUs - at.forwardUs);
    recorder.span("engine", "sample", at.sampleUs, undefined, endUs - at.sampleUs);
    recorder.counter("engine", "requests", {
      running: this.#scheduler.running.length,
      waiting: this.#scheduler.waiting.length,
    });
    recorder.counter("engine", "KV blocks", { used: this.blocks.used });
  }
}
