// Changes to a row of logits before a token is chosen, in vLLM's order: tokens that may not come
// yet, logit_bias, then the repetition, frequency and presence penalties. Only the entries that a
// request touches are read or written; temperature and the filters come later, in nucleus.ts.

import type { ResolvedSampling } from "./sampling-params.ts";

/** What a request has seen so far. */
export interface TokenHistory {
  /** Tokens sampled so far. */
  readonly outputTokens: number;
  /** How often each was sampled; needed by every penalty. */
  readonly outputCounts: ReadonlyMap<number, number> | undefined;
  /** Tokens of the prompt; needed by the repetition penalty. */
  readonly promptSet: ReadonlySet<number> | undefined;
}

/** True if {@link applyProcessors} would change anything. */
export function hasProcessors(s: ResolvedSampling, history: TokenHistory): boolean {
  return (
    s.logitBias.length > 0 ||
    history.outputCounts !== undefined ||
    (history.outputTokens < s.minTokens && s.stopTokenIds.size > 0)
  );
}

/**
 * Changes `row` in place. Where `originals` is given, it receives what each changed entry was
 * before, so that log-probabilities of the model's own logits can still be told.
 */
export function applyProcessors(
  row: Float32Array,
  s: ResolvedSampling,
  history: TokenHistory,
  originals?: Map<number, number>,
): void {
  const set = (id: number, value: number): void => {
    if (originals !== undefined && !originals.has(id)) originals.set(id, row[id] as number);
    row[id] = value;
  };
  if (history.outputTokens < s.minTokens) {
    for (const id of s.stopTokenIds) set(id, Number.NEGATIVE_INFINITY);
  }
  for (const [id, bias] of s.logitBias) set(id, (row[id] as number) + bias);
  const counts = history.outputCounts;
  if (counts === undefined) return;
  if (s.repetitionPenalty !== 1) {
    const penalise = (id: number): void => {
      const x = row[id] as number;
      set(id, x > 0 ? x / s.repetitionPenalty : x * s.repetitionPenalty);
    };
    for (const id of counts.keys()) penalise(id);
    for (const id of history.promptSet ?? []) if (!counts.has(id)) penalise(id);
  }
  if (s.frequencyPenalty === 0 && s.presencePenalty === 0) return;
  for (const [id, count] of counts) {
    set(id, (row[id] as number) - s.frequencyPenalty * count - s.presencePenalty);
  }
}
