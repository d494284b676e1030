// One request inside the engine: its tokens, how far they are computed, its blocks, and the clock
// marks that its timings come from. The scheduler moves it; text.ts turns its tokens into text.

import type { GenerateRequest, TokenLogprobs } from "./api.ts";
import type { BlockTable } from "./block-manager.ts";
import type { ResolvedSampling } from "./sampling-params.ts";

export type SequenceState = "waiting" | "running" | "finished";

export class Sequence {
  readonly id: string;
  /** Position in order of arrival; smaller goes first, larger is preempted first. */
  readonly order: number;
  readonly sampling: ResolvedSampling;
  readonly seed: number;
  readonly promptTokens: number;
  /** Prompt, then what was sampled. A preemption keeps them all. */
  readonly tokens: number[];
  /** Tokens whose latents are in the cache. */
  computed = 0;
  /** Present while running. */
  table: BlockTable | undefined;
  state: SequenceState = "waiting";
  /** Prompt tokens taken from the prefix cache when it was first admitted. */
  cachedTokens = 0;
  preemptions = 0;
  /** How often each sampled token came; kept only if a penalty needs it. */
  readonly outputCounts: Map<number, number> | undefined;
  /** Kept only if the repetition penalty needs it. */
  readonly promptSet: ReadonlySet<number> | undefined;
  /** Entry i belongs to prompt token i; filled while the prompt is computed, if asked for. */
  readonly promptLogprobs: (TokenLogprobs | null)[] | undefined;
  readonly arrivalMs: number;
  /** First step that computed it; undefined while it has never run. */
  startedMs: number | undefined;
  firstTokenMs: number | undefined;
  lastTokenMs: number | undefined;

  constructor(
    request: GenerateRequest,
    sampling: ResolvedSampling,
    place: { readonly order: number; readonly seed: number; readonly arrivalMs: number },
  ) {
    this.id = request.id;
    this.order = place.order;
    this.seed = place.seed;
    this.arrivalMs = place.arrivalMs;
    this.sampling = sampling;
    this.promptTokens = request.promptTokenIds.length;
    this.tokens = request.promptTokenIds.slice();
    const { repetitionPenalty, presencePenalty, frequencyPenalty } = sampling;
    const repeats = repetitionPenalty !== 1;
    const counts = repeats || presencePenalty !== 0 || frequencyPenalty !== 0;
    this.outputCounts = counts ? new Map() : undefined;
    this.promptSet = repeats ? new Set(request.promptTokenIds) : undefined;
    this.promptLogprobs = sampling.promptLogprobs ? [null] : undefined;
  }

  /** Tokens sampled so far. */
  get outputTokens(): number {
    return this.tokens.length - this.promptTokens;
  }

  /** Tokens that the next steps must compute before one can be sampled. */
  get pending(): number {
    return this.tokens.length - this.computed;
  }

  /** True while logits of prompt positions must still be computed and reported. */
  get wantsPromptRows(): boolean {
    return this.promptLogprobs !== undefined && this.promptLogprobs.length < this.promptTokens;
  }

  append(tokenId: number): void {
    this.tokens.push(tokenId);
    this.outputCounts?.set(tokenId, (this.outputCounts.get(tokenId) ?? 0) + 1);
  }
}
