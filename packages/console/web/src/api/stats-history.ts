// Five minutes of engine statistics: turns counters that only grow into rates, and keeps the series
// the charts draw. Pure data; drawing and connecting are elsewhere.

import type { StatsMessage } from "./wire.ts";

/** One second of the engine's life. A null is a gap: there was nothing to measure. */
export interface Sample {
  /** The client's clock in seconds. */
  readonly time: number;
  readonly generationTokensPerSecond: number | null;
  readonly promptTokensPerSecond: number | null;
  readonly running: number | null;
  readonly waiting: number | null;
  /** Tokens in the last step; 0 when no step ran since the sample before. */
  readonly batchTokens: number | null;
  readonly batchSequences: number | null;
  readonly stepMs: number | null;
  readonly kvBlocksUsed: number | null;
  /** Of the tokens looked up since the sample before, 0 to 1. */
  readonly prefixHitRate: number | null;
}

export type SeriesName = Exclude<keyof Sample, "time">;

/** Seconds the charts reach back. */
export const HISTORY_SECONDS = 300;
/** A pause between messages longer than this is drawn as a gap, not as a line. */
const GAP_SECONDS = 5;

interface Reading {
  readonly message: StatsMessage;
  readonly time: number;
}

/** Samples of the last five minutes, oldest first. */
export class StatsHistory {
  readonly #seconds: number;
  #samples: Sample[] = [];
  #last: Reading | undefined;

  constructor(options: { readonly seconds?: number } = {}) {
    this.#seconds = options.seconds ?? HISTORY_SECONDS;
  }

  /** A new array after every change. */
  get samples(): readonly Sample[] {
    return this.#samples;
  }

  /** Adds a message that came at `time` (seconds of any steady clock). */
  add(message: StatsMessage, time: number): void {
    const last = this.#last;
    this.#last = { message, time };
    const added: Sample[] = [];
    if (last !== undefined && time - last.time > GAP_SECONDS) added.push(gapAt(time - 1));
    const restarted = last !== undefined && isRestart(last.message, message);
    added.push(sampleOf(restarted ? undefined : last, { message, time }));
    const oldest = time - this.#seconds;
    this.#samples = [...this.#samples, ...added].filter((sample) => sample.time >= oldest);
  }
}

/** Counters start anew with the process; a rate over both lives would be nonsense. */
function isRestart(before: StatsMessage, after: StatsMessage): boolean {
  return (
    after.uptimeSeconds < before.uptimeSeconds ||
    after.stats.steps < before.stats.steps ||
    after.stats.generationTokens < before.stats.generationTokens
  );
}

function gapAt(time: number): Sample {
  return {
    time,
    generationTokensPerSecond: null,
    promptTokensPerSecond: null,
    running: null,
    waiting: null,
    batchTokens: null,
    batchSequences: null,
    stepMs: null,
    kvBlocksUsed: null,
    prefixHitRate: null,
  };
}

function sampleOf(last: Reading | undefined, now: Reading): Sample {
  const { stats, uptimeSeconds } = now.message;
  const gauges = {
    ...gapAt(now.time),
    running: stats.running,
    waiting: stats.waiting,
    kvBlocksUsed: stats.kvBlocksUsed,
  };
  if (last === undefined) return gauges;
  const before = last.message.stats;
  // The server's own clock: messages may be late, the counters inside are not.
  const seconds = uptimeSeconds - last.message.uptimeSeconds;
  if (seconds <= 0) return gauges;
  const queried = stats.prefixCacheQueriedTokens - before.prefixCacheQueriedTokens;
  const hits = stats.prefixCacheHitTokens - before.prefixCacheHitTokens;
  const stepped = stats.steps > before.steps;
  return {
    ...gauges,
    generationTokensPerSecond: (stats.generationTokens - before.generationTokens) / seconds,
    promptTokensPerSecond: (stats.promptTokens - before.promptTokens) / seconds,
    batchTokens: stepped ? stats.lastStep.tokens : 0,
    batchSequences: stepped ? stats.lastStep.sequences : 0,
    stepMs: stepped ? stats.lastStep.ms : null,
    prefixHitRate: queried > 0 ? hits / queried : null,
  };
}

/** One series with its times, as seconds before `now` (negative), for a chart. */
export function seriesOf(
  samples: readonly Sample[],
  names: readonly SeriesName[],
  now: number,
): [number[], ...(number | null)[][]] {
  const ages = samples.map((sample) => sample.time - now);
  return [ages, ...names.map((name) => samples.map((sample) => sample[name]))];
}

/** Seconds an axis needs for these samples: whole minutes, so that a young chart is not empty. */
export function spanOf(samples: readonly Sample[]): number {
  const age = (samples.at(-1)?.time ?? 0) - (samples[0]?.time ?? 0);
  return Math.min(Math.max(Math.ceil(age / 60), 1) * 60, HISTORY_SECONDS);
}

/** Hits over lookups since the server started; null before the first lookup. */
export function totalHitRate(message: StatsMessage): number | null {
  const { prefixCacheHitTokens, prefixCacheQueriedTokens } = message.stats;
  return prefixCacheQueriedTokens > 0 ? prefixCacheHitTokens / prefixCacheQueriedTokens : null;
}
