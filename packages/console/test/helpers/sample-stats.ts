// Statistics of an imaginary engine, for tests that need a plausible message.

import type { StatsFacts, StatsMessage } from "../../web/src/api/wire.ts";

/** A message with some fields replaced. */
export function sampleStats(
  change: {
    readonly model?: Partial<StatsMessage["model"]>;
    readonly stats?: Partial<StatsFacts>;
    readonly uptimeSeconds?: number;
  } = {},
): StatsMessage {
  return {
    model: {
      id: "demo",
      architecture: "DeepseekV3ForCausalLM",
      parameters: 9_670_000,
      dtype: "fp8",
      vocabSize: 2048,
      maxModelLen: 1024,
      device: "cpu, avx512, 2 threads",
      defaultSampling: { temperature: 0.6, topP: 0.95 },
      ...change.model,
    },
    stats: {
      running: 0,
      waiting: 0,
      kvBlocksUsed: 0,
      kvBlocksTotal: 512,
      kvBlockTokens: 64,
      prefixCacheQueriedTokens: 0,
      prefixCacheHitTokens: 0,
      promptTokens: 0,
      generationTokens: 0,
      preemptions: 0,
      steps: 0,
      lastStep: { tokens: 0, sequences: 0, ms: 0 },
      finished: { stop: 0, length: 0, abort: 0 },
      ...change.stats,
    },
    uptimeSeconds: change.uptimeSeconds ?? 1,
  };
}
