// Chooses what each step computes: one token of every sequence that is decoding, then pieces of
// prompts in order of arrival, within a budget of tokens. When cache blocks run out, the newest
// sequence gives its blocks back and is computed again later; its sampled tokens are kept, so its
// text does not change. It knows nothing of text, tensors or clocks.

import type { BlockManager } from "./block-manager.ts";
import { EngineOverloadedError } from "./errors.ts";
import type { Sequence } from "./sequence.ts";

export interface SchedulerOptions {
  /** Tokens computed in one step; at least `maxSequences`. */
  readonly maxBatchedTokens: number;
  /** Sequences computed at once. */
  readonly maxSequences: number;
  /** Sequences that may wait beyond those. */
  readonly maxQueue: number;
  /** Rows of logits one step may ask for; at least `maxSequences` + 1. */
  readonly maxLogitRows: number;
}

/** One sequence's part of a step: its next `tokens` tokens. */
export interface ScheduledSlice {
  readonly sequence: Sequence;
  readonly tokens: number;
}

export interface StepPlan {
  readonly slices: readonly ScheduledSlice[];
  readonly totalTokens: number;
  /** Sequences that lost their blocks while this step was planned. */
  readonly preempted: readonly Sequence[];
}

interface Draft {
  readonly slices: ScheduledSlice[];
  readonly preempted: Sequence[];
  budget: number;
  rows: number;
}

export class Scheduler {
  readonly options: SchedulerOptions;
  preemptions = 0;
  readonly #blocks: BlockManager;
  /** In order of arrival, except that preempted sequences return to the front. */
  #waiting: Sequence[] = [];
  /** The head of the queue that did not fit, and the block manager's `releases` at that time. */
  #stuck: { readonly sequence: Sequence; readonly releases: number } | undefined;
  /** In order of arrival. */
  readonly #running: Sequence[] = [];

  constructor(blocks: BlockManager, options: SchedulerOptions) {
    this.#blocks = blocks;
    this.options = options;
  }

  get running(): readonly Sequence[] {
    return this.#running;
  }

  get waiting(): readonly Sequence[] {
    return this.#waiting;
  }

  get hasWork(): boolean {
    return this.#running.length > 0 || this.#waiting.length > 0;
  }

  /**
   * Puts a sequence at the end of the queue.
   *
   * @throws EngineOverloadedError when all places, running and waiting, are taken.
   */
  add(sequence: Sequence, retryAfterSeconds: number): void {
    const pending = this.#running.length + this.#waiting.length;
    const limit = this.options.maxSequences + this.options.maxQueue;
    if (pending >= limit) throw new EngineOverloadedError(pending, limit, retryAfterSeconds);
    this.#waiting.push(sequence);
  }

  /** Takes a sequence out, wherever it is, and frees its blocks. */
  remove(sequence: Sequence): void {
    if (sequence.state === "finished") return;
    if (sequence.state === "running") this.#running.splice(this.#running.indexOf(sequence), 1);
    else this.#waiting = this.#waiting.filter((other) => other !== sequence);
    this.#closeTable(sequence);
    sequence.state = "finished";
  }

  /** The next step. Empty only when there is no work. */
  schedule(): StepPlan {
    const { maxBatchedTokens, maxLogitRows } = this.options;
    const draft: Draft = {
      slices: [],
      preempted: [],
      budget: maxBatchedTokens,
      rows: maxLogitRows,
    };
    this.#scheduleDecodes(draft);
    for (const sequence of this.#running) {
      if (sequence.pending > 1) this.#scheduleChunk(draft, sequence);
    }
    // Blocks were short a moment ago, so a newcomer would only be thrown out again.
    if (draft.preempted.length === 0) this.#admit(draft);
    const totalTokens = maxBatchedTokens - draft.budget;
    return { slices: draft.slices, totalTokens, preempted: draft.preempted };
  }

  /** Notes that the step was computed; blocks that two sequences computed at once become one. */
  complete(plan: StepPlan): void {
    for (const { sequence, tokens } of plan.slices) {
      sequence.computed += tokens;
      if (sequence.table !== undefined) {
        this.#blocks.register(sequence.table, sequence.tokens, sequence.computed, { join: true });
      }
    }
  }

  #scheduleDecodes(draft: Draft): void {
    // A copy, because a preemption shortens the list from its end.
    for (const sequence of this.#running.slice()) {
      if (sequence.state !== "running" || sequence.pending !== 1) continue;
      if (draft.budget === 0) return;
      if (!this.#makeRoom(draft, sequence)) continue;
      this.#plan(draft, sequence, 1);
      draft.rows--;
    }
  }

  #scheduleChunk(draft: Draft, sequence: Sequence): void {
    // Every prompt token of such a request wants its logits; those of a vocabulary are large.
    const everyRow = sequence.wantsPromptRows;
    const tokens = Math.min(sequence.pending, draft.budget, everyRow ? draft.rows : draft.budget);
    if (tokens <= 0 || draft.rows <= 0) return;
    this.#plan(draft, sequence, tokens);
    if (everyRow) draft.rows -= tokens;
    else if (tokens === sequence.pending) draft.rows--;
  }

  #plan(draft: Draft, sequence: Sequence, tokens: number): void {
    draft.slices.push({ sequence, tokens });
    draft.budget -= tokens;
    // A layer writes all of a step's latents before it reads any, so a newcomer of this very step
    // may build on what this one is about to compute. Nothing planned is preempted any more: what
    // is planned is older than every later victim.
    if (sequence.table !== undefined) {
      this.#blocks.register(sequence.table, sequence.tokens, sequence.computed + tokens);
    }
  }

  #admit(draft: Draft): void {
    while (draft.budget > 0 && draft.rows > 0 && this.#running.length < this.options.maxSequences) {
      const sequence = this.#waiting[0];
      if (sequence === undefined || this.#isStuck(sequence)) return;
      const opened = this.#blocks.open(sequence.tokens, {
        lookup: !sequence.wantsPromptRows,
        count: sequence.preemptions === 0,
        // Room for everyone who runs to grow by a block before anyone must go.
        spare: this.#running.length,
      });
      if (opened === undefined) {
        this.#stuck = { sequence, releases: this.#blocks.releases };
        return;
      }
      this.#waiting.shift();
      sequence.table = opened.table;
      sequence.computed = opened.cachedTokens;
      if (sequence.preemptions === 0) sequence.cachedTokens = opened.cachedTokens;
      sequence.state = "running";
      this.#insertRunning(sequence);
      this.#scheduleChunk(draft, sequence);
    }
  }

  /** Spares looking a long prompt up in the cache at every step of a wait. */
  #isStuck(sequence: Sequence): boolean {
    return this.#stuck?.sequence === sequence && this.#stuck.releases === this.#blocks.releases;
  }

  /** Keeps arrival order, which decides who is preempted. */
  #insertRunning(sequence: Sequence): void {
    let at = this.#running.length;
    while (at > 0 && (this.#running[at - 1] as Sequence).order > sequence.order) at--;
    this.#running.splice(at, 0, sequence);
  }

  /** A block for the sequence's next token, at the newest one's cost; false if that is itself. */
  #makeRoom(draft: Draft, sequence: Sequence): boolean {
    const table = sequence.table;
    if (table === undefined) throw new Error(`running sequence ${sequence.id} has no block table`);
    while (!this.#blocks.reserve(table, sequence.computed + 1)) {
      const victim = this.#running.at(-1) as Sequence;
      this.#preempt(draft, victim);
      if (victim === sequence) return false;
    }
    return true;
  }

  #preempt(draft: Draft, victim: Sequence): void {
    this.#running.pop();
    this.#closeTable(victim);
    victim.state = "waiting";
    victim.preemptions++;
    this.preemptions++;
    this.#waiting.unshift(victim);
    draft.preempted.push(victim);
  }

  #closeTable(sequence: Sequence): void {
    if (sequence.table !== undefined) this.#blocks.close(sequence.table);
    sequence.table = undefined;
    sequence.computed = 0;
  }
}
