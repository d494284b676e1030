// Lays a planned step out as the model wants it, and remembers which row of logits is for what.

import type { ForwardBatch, SequenceSlice } from "@open-infra/model";
import type { StepPlan } from "./scheduler.ts";
import type { Sequence } from "./sequence.ts";

/** A row of logits from which a sequence's next token is chosen. */
export interface SampleRow {
  readonly row: number;
  readonly sequence: Sequence;
}

/** A row of logits that scores a prompt token. */
export interface PromptRow {
  readonly row: number;
  readonly sequence: Sequence;
  /** The token it scores, one behind the row's own. */
  readonly position: number;
}

export interface StepBatch {
  readonly forward: ForwardBatch;
  readonly sampleRows: readonly SampleRow[];
  readonly promptRows: readonly PromptRow[];
}

export function buildStepBatch(plan: StepPlan): StepBatch {
  const tokenIds = new Int32Array(plan.totalTokens);
  const sequences: SequenceSlice[] = [];
  const logitRows: number[] = [];
  const sampleRows: SampleRow[] = [];
  const promptRows: PromptRow[] = [];
  let offset = 0;
  for (const { sequence, tokens } of plan.slices) {
    const first = sequence.computed;
    for (let i = 0; i < tokens; i++) {
      tokenIds[offset + i] = sequence.tokens[first + i] as number;
      const position = first + i + 1;
      if (!sequence.wantsPromptRows || position >= sequence.promptTokens) continue;
      // After a preemption the first ones are computed again, but are known already.
      if (position < (sequence.promptLogprobs?.length ?? 0)) continue;
      promptRows.push({ row: logitRows.length, sequence, position });
      logitRows.push(offset + i);
    }
    if (tokens === sequence.pending) {
      sampleRows.push({ row: logitRows.length, sequence });
      logitRows.push(offset + tokens - 1);
    }
    const blocks = sequence.table?.blocks;
    if (blocks === undefined) throw new Error(`scheduled sequence ${sequence.id} has no blocks`);
    sequences.push({ queryTokens: tokens, contextTokens: first + tokens, blocks });
    offset += tokens;
  }
  const forward = { tokenIds, sequences, logitRows: Int32Array.from(logitRows) };
  return { forward, sampleRows, promptRows };
}
