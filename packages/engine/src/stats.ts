// Counters, gauges and histograms of the engine, kept in shared memory: the worker writes them, the
// client reads them at any moment without asking. A reader may see a step half counted, never a
// torn number.

import type { EngineStats, FinishReason, Histogram } from "./api.ts";

const scalars = [
  "running",
  "waiting",
  "kvBlocksUsed",
  "kvBlocksTotal",
  "kvBlockTokens",
  "prefixCacheQueriedTokens",
  "prefixCacheHitTokens",
  "promptTokens",
  "generationTokens",
  "preemptions",
  "steps",
  "failedRequests",
  "lastStepTokens",
  "lastStepSequences",
  "lastStepMs",
  "finishedStop",
  "finishedLength",
  "finishedAbort",
] as const;

export type ScalarName = (typeof scalars)[number];

const latencySeconds = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
  160, 640, 2560,
];
const interTokenSeconds = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5,
  7.5, 10, 20, 40, 80,
];
const requestSeconds = [
  0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960,
  1920, 7680,
];
const stepTokens = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384];
const requestTokens = [
  1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000,
];

export type HistogramName =
  | "timeToFirstTokenSeconds"
  | "interTokenLatencySeconds"
  | "e2eRequestLatencySeconds"
  | "requestQueueTimeSeconds"
  | "iterationTokens"
  | "requestPromptTokens"
  | "requestGenerationTokens";

const histogramBounds: Readonly<Record<HistogramName, readonly number[]>> = {
  timeToFirstTokenSeconds: latencySeconds,
  interTokenLatencySeconds: interTokenSeconds,
  e2eRequestLatencySeconds: requestSeconds,
  requestQueueTimeSeconds: requestSeconds,
  iterationTokens: stepTokens,
  requestPromptTokens: requestTokens,
  requestGenerationTokens: requestTokens,
};

/** Where each histogram begins: its counts (one more than bounds), then sum. */
const offsets: Readonly<Record<HistogramName, number>> = (() => {
  const at: Partial<Record<HistogramName, number>> = {};
  let next = scalars.length;
  for (const name of Object.keys(histogramBounds) as HistogramName[]) {
    at[name] = next;
    next += histogramBounds[name].length + 2;
  }
  return at as Record<HistogramName, number>;
})();

const words =
  scalars.length + Object.values(histogramBounds).reduce((n, bounds) => n + bounds.length + 2, 0);

const scalarIndex = new Map<ScalarName, number>(scalars.map((name, i) => [name, i]));

const finishScalar: Readonly<Record<FinishReason, ScalarName>> = {
  stop: "finishedStop",
  length: "finishedLength",
  abort: "finishedAbort",
};

export class StatsBoard {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Float64Array;

  /** A new board, or a view of one that another thread made. */
  constructor(buffer?: SharedArrayBuffer) {
    this.buffer = buffer ?? new SharedArrayBuffer(words * 8);
    this.#words = new Float64Array(this.buffer);
  }

  set(name: ScalarName, value: number): void {
    this.#words[scalarIndex.get(name) as number] = value;
  }

  get(name: ScalarName): number {
    return this.#words[scalarIndex.get(name) as number] as number;
  }

  add(name: ScalarName, amount: number): void {
    this.set(name, this.get(name) + amount);
  }

  finished(reason: FinishReason): void {
    this.add(finishScalar[reason], 1);
  }

  observe(name: HistogramName, value: number): void {
    const bounds = histogramBounds[name];
    let bucket = bounds.findIndex((bound) => value <= bound);
    if (bucket < 0) bucket = bounds.length;
    const at = offsets[name];
    this.#words[at + bucket] = (this.#words[at + bucket] as number) + 1;
    const sumAt = at + bounds.length + 1;
    this.#words[sumAt] = (this.#words[sumAt] as number) + value;
  }

  /** A copy of everything, in the shape of the seam. */
  snapshot(): EngineStats {
    const get = (name: ScalarName): number => this.get(name);
    return {
      running: get("running"),
      waiting: get("waiting"),
      kvBlocksUsed: get("kvBlocksUsed"),
      kvBlocksTotal: get("kvBlocksTotal"),
      kvBlockTokens: get("kvBlockTokens"),
      prefixCacheQueriedTokens: get("prefixCacheQueriedTokens"),
      prefixCacheHitTokens: get("prefixCacheHitTokens"),
      promptTokens: get("promptTokens"),
      generationTokens: get("generationTokens"),
      preemptions: get("preemptions"),
      steps: get("steps"),
      failedRequests: get("failedRequests"),
      lastStep: {
        tokens: get("lastStepTokens"),
        sequences: get("lastStepSequences"),
        ms: get("lastStepMs"),
      },
      finished: {
        stop: get("finishedStop"),
        length: get("finishedLength"),
        abort: get("finishedAbort"),
      },
      histograms: {
        timeToFirstTokenSeconds: this.#histogram("timeToFirstTokenSeconds"),
        interTokenLatencySeconds: this.#histogram("interTokenLatencySeconds"),
        e2eRequestLatencySeconds: this.#histogram("e2eRequestLatencySeconds"),
        requestQueueTimeSeconds: this.#histogram("requestQueueTimeSeconds"),
        iterationTokens: this.#histogram("iterationTokens"),
        requestPromptTokens: this.#histogram("requestPromptTokens"),
        requestGenerationTokens: this.#histogram("requestGenerationTokens"),
      },
    };
  }

  #histogram(name: HistogramName): Histogram {
    const bounds = histogramBounds[name];
    const at = offsets[name];
    const counts = Array.from(this.#words.subarray(at, at + bounds.length + 1));
    const sum = this.#words[at + bounds.length + 1] as number;
    return { bounds, counts, sum, count: counts.reduce((a, b) => a + b, 0) };
  }
}

/** A guess of when a place becomes free, from how long requests took so far: 1 to 60 seconds. */
export function retryAfterSeconds(board: StatsBoard): number {
  const { sum, count } = board.snapshot().histograms.e2eRequestLatencySeconds;
  const mean = count === 0 ? 1 : sum / count;
  return Math.min(60, Math.max(1, Math.ceil(mean)));
}
