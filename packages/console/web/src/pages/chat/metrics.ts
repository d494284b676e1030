// What a finished or running generation measured, from the client's side of the wire.

import type { TokenUsage } from "../../api/wire.ts";

/** Times are milliseconds of one steady clock. */
export interface GenerationTimes {
  readonly sentAt: number;
  readonly firstTextAt: number | null;
  readonly lastTextAt: number | null;
  /** Chunks that carried text; the server sends about one a token. */
  readonly textChunks: number;
}

export interface GenerationMetrics {
  readonly timeToFirstTokenMs: number | null;
  readonly tokensPerSecond: number | null;
  /** True while tokens are counted by chunks, before the server has told its usage. */
  readonly estimated: boolean;
  readonly completionTokens: number;
  readonly promptTokens: number | null;
  readonly cachedTokens: number | null;
}

/**
 * Tokens a second are those after the first, over the time since the first: waiting for the prompt
 * is what the time to the first token tells.
 */
export function metricsOf(
  times: GenerationTimes,
  usage: TokenUsage | undefined,
): GenerationMetrics {
  const { firstTextAt, lastTextAt, sentAt } = times;
  const tokens = usage?.completionTokens ?? times.textChunks;
  const spanMs = firstTextAt === null || lastTextAt === null ? 0 : lastTextAt - firstTextAt;
  return {
    timeToFirstTokenMs: firstTextAt === null ? null : firstTextAt - sentAt,
    tokensPerSecond: tokens > 1 && spanMs > 0 ? ((tokens - 1) / spanMs) * 1000 : null,
    estimated: usage === undefined,
    completionTokens: tokens,
    promptTokens: usage?.promptTokens ?? null,
    cachedTokens: usage?.cachedTokens ?? null,
  };
}
