// Scores given tokens: the logits after the last one, and the log-probability of each but the
// first. For checks against other implementations; generation lives in the engine.

import type { CausalLM } from "./api.ts";
import { ForwardError } from "./errors.ts";

/** Field names as `open-infra score` prints them. */
export interface TokenScores {
  /** Logits of the token that would come next, [V]. */
  readonly last_logits: number[];
  /** Entry i is ln p(ids[i + 1] | ids[0 … i]); one fewer than there are ids. */
  readonly token_logprobs: number[];
}

export interface ScoreOptions {
  /** Tokens computed at once; the result does not depend on it. @default 128 */
  readonly chunkTokens?: number;
}

/** Scores `ids` from an empty cache. @throws ForwardError if there are none, or too many. */
export function scoreTokens(
  model: CausalLM,
  ids: readonly number[],
  options: ScoreOptions = {},
): TokenScores {
  if (ids.length === 0) throw new ForwardError("scoreTokens: no tokens; expected at least 1");
  for (const id of ids) {
    if (!Number.isSafeInteger(id)) throw new ForwardError(`scoreTokens: token id ${id}`);
  }
  const blockTokens = 64;
  const numBlocks = Math.ceil(ids.length / blockTokens);
  using cache = model.createKvCache({ numBlocks, blockTokens });
  const blocks = Array.from({ length: numBlocks }, (_, i) => i);
  const chunk = options.chunkTokens ?? 128;
  const logprobs: number[] = [];
  let last: number[] = [];
  for (let start = 0; start < ids.length; start += chunk) {
    const now = ids.slice(start, start + chunk);
    const logits = model.forward(
      {
        tokenIds: Int32Array.from(now),
        sequences: [{ queryTokens: now.length, contextTokens: start + now.length, blocks }],
        logitRows: Int32Array.from(now, (_, i) => i),
      },
      cache,
    );
    for (let row = 0; row < now.length; row++) {
      const values = logits.select(0, row).raw();
      const next = ids[start + row + 1];
      if (next === undefined) last = Array.from(values);
      else logprobs.push((values[next] as number) - logSumExp(values));
    }
  }
  return { last_logits: last, token_logprobs: logprobs };
}

/** ln Σ eˣ without overflow, in float64. */
export function logSumExp(values: Float32Array): number {
  let top = -Infinity;
  for (const x of values) if (x > top) top = x;
  let sum = 0;
  for (const x of values) sum += Math.exp(x - top);
  return top + Math.log(sum);
}
