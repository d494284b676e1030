// Counters into rates: restarts, gaps and silence must not draw nonsense.

import { describe, expect, it } from "vitest";
import {
  type Sample,
  StatsHistory,
  seriesOf,
  spanOf,
  totalHitRate,
} from "../web/src/api/stats-history.ts";
import type { StatsFacts } from "../web/src/api/wire.ts";
import { sampleStats } from "./helpers/sample-stats.ts";

/** Feeds readings of [client time, uptime, stats] and gives the samples. */
function samplesOf(
  readings: readonly (readonly [number, number, Partial<StatsFacts>])[],
): readonly Sample[] {
  const history = new StatsHistory();
  for (const [time, uptimeSeconds, stats] of readings) {
    history.add(sampleStats({ uptimeSeconds, stats }), time);
  }
  return history.samples;
}

describe("StatsHistory", () => {
  it("has gauges but no rates at first", () => {
    const [first] = samplesOf([[10, 5, { running: 2, generationTokens: 100 }]]);
    expect(first).toMatchObject({ time: 10, running: 2, generationTokensPerSecond: null });
  });

  it("takes rates by the server's clock, not by the arrival", () => {
    const samples = samplesOf([
      [0, 100, { generationTokens: 0, promptTokens: 10 }],
      [3.5, 102, { generationTokens: 50, promptTokens: 10 }],
    ]);
    expect(samples[1]).toMatchObject({ generationTokensPerSecond: 25, promptTokensPerSecond: 0 });
  });

  it("shows the last step only when one ran since", () => {
    const lastStep = { tokens: 9, sequences: 3, ms: 12 };
    const samples = samplesOf([
      [0, 0, { steps: 4, lastStep }],
      [1, 1, { steps: 5, lastStep }],
      [2, 2, { steps: 5, lastStep }],
    ]);
    expect(samples[1]).toMatchObject({ batchTokens: 9, batchSequences: 3, stepMs: 12 });
    expect(samples[2]).toMatchObject({ batchTokens: 0, batchSequences: 0, stepMs: null });
  });

  it("gives the hit rate of the tokens looked up since the sample before", () => {
    const samples = samplesOf([
      [0, 0, { prefixCacheQueriedTokens: 100, prefixCacheHitTokens: 100 }],
      [1, 1, { prefixCacheQueriedTokens: 140, prefixCacheHitTokens: 110 }],
      [2, 2, { prefixCacheQueriedTokens: 140, prefixCacheHitTokens: 110 }],
    ]);
    expect(samples[1]?.prefixHitRate).toBe(0.25);
    expect(samples[2]?.prefixHitRate).toBeNull();
  });

  it("draws a gap and no rate over a restart of the server", () => {
    const samples = samplesOf([
      [0, 50, { generationTokens: 900, steps: 40 }],
      [20, 3, { generationTokens: 10, steps: 2, running: 1 }],
      [21, 4, { generationTokens: 30, steps: 3 }],
    ]);
    expect(samples.map((sample) => sample.generationTokensPerSecond)).toEqual([
      null,
      null,
      null,
      20,
    ]);
    expect(samples[1]).toMatchObject({ time: 19, running: null });
    expect(samples[2]).toMatchObject({ time: 20, running: 1 });
  });

  it("measures nothing when the clock stood still", () => {
    const samples = samplesOf([
      [0, 5, { generationTokens: 1 }],
      [1, 5, { generationTokens: 9 }],
    ]);
    expect(samples[1]?.generationTokensPerSecond).toBeNull();
  });

  it("forgets what is older than five minutes", () => {
    const history = new StatsHistory();
    for (let time = 0; time <= 1000; time++)
      history.add(sampleStats({ uptimeSeconds: time }), time);
    expect(history.samples).toHaveLength(301);
    expect(history.samples[0]?.time).toBe(700);
  });

  it("hands out a new array with every change", () => {
    const history = new StatsHistory();
    const before = history.samples;
    history.add(sampleStats(), 1);
    expect(history.samples).not.toBe(before);
  });
});

describe("series for charts", () => {
  it("are ages and values of the same length", () => {
    const samples = samplesOf([
      [100, 0, { running: 1 }],
      [101, 1, { running: 2 }],
    ]);
    expect(seriesOf(samples, ["running", "stepMs"], 101)).toEqual([
      [-1, 0],
      [1, 2],
      [null, null],
    ]);
  });

  it("span whole minutes, one to five", () => {
    const span = (seconds: number): number =>
      spanOf(
        samplesOf([
          [0, 0, {}],
          [seconds, 1, {}],
        ]),
      );
    expect([spanOf([]), span(1), span(61), span(290)]).toEqual([60, 60, 120, 300]);
  });
});

describe("totalHitRate", () => {
  it("is unknown before the first lookup", () => {
    expect(totalHitRate(sampleStats())).toBeNull();
    const stats = { prefixCacheQueriedTokens: 8, prefixCacheHitTokens: 2 };
    expect(totalHitRate(sampleStats({ stats }))).toBe(0.25);
  });
});
