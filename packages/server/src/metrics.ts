// What /metrics tells, under vLLM's names after the prefix `open_infra:`, so that boards made for
// vLLM need only another prefix.

import type { EngineHistograms, EngineStats } from "@open-infra/engine";
import { Exposition, type Labels } from "./prometheus.ts";
import type { ServerState } from "./state.ts";

const PREFIX = "open_infra:";

type HistogramRow = readonly [key: keyof EngineHistograms, name: string, help: string];

const histograms: readonly HistogramRow[] = [
  [
    "timeToFirstTokenSeconds",
    "time_to_first_token_seconds",
    "Arrival of a request to its first token.",
  ],
  [
    "interTokenLatencySeconds",
    "inter_token_latency_seconds",
    "Between a token of a request and its next.",
  ],
  ["e2eRequestLatencySeconds", "e2e_request_latency_seconds", "Arrival of a request to its end."],
  [
    "requestQueueTimeSeconds",
    "request_queue_time_seconds",
    "Arrival of a request to the first step that computes it.",
  ],
  // A histogram in spite of its name, which is vLLM's.
  ["iterationTokens", "iteration_tokens_total", "Tokens computed in a step."],
  ["requestPromptTokens", "request_prompt_tokens", "Tokens of a request's prompt."],
  ["requestGenerationTokens", "request_generation_tokens", "Tokens generated for a request."],
];

/** The exposition; while the model loads it holds the process and HTTP metrics alone. */
export function metricsText(state: ServerState): string {
  const out = new Exposition();
  const { loaded } = state;
  if (loaded !== undefined) {
    const labels = { model_name: loaded.engine.model.id };
    engineMetrics(out, loaded.engine.stats(), labels);
  }
  out.counter(
    `${PREFIX}http_requests_total`,
    "Answers by route, method and status.",
    state.counters.counts.map(({ route, method, status, count }) => ({
      labels: { handler: route, method, status: String(status) },
      value: count,
    })),
  );
  out.gauge("process_start_time_seconds", "Start of the server, seconds since 1970.", [
    { value: state.startedAtMs / 1000 },
  ]);
  out.gauge("process_resident_memory_bytes", "Memory of the process.", [
    { value: process.memoryUsage.rss() },
  ]);
  return out.text();
}

function engineMetrics(out: Exposition, stats: EngineStats, labels: Labels): void {
  const gauge = (name: string, help: string, value: number): void =>
    out.gauge(PREFIX + name, help, [{ labels, value }]);
  const counter = (name: string, help: string, value: number): void =>
    out.counter(PREFIX + name, help, [{ labels, value }]);
  const usage = stats.kvBlocksTotal === 0 ? 0 : stats.kvBlocksUsed / stats.kvBlocksTotal;
  gauge("num_requests_running", "Requests in the batch.", stats.running);
  gauge("num_requests_waiting", "Requests in the queue.", stats.waiting);
  gauge("kv_cache_usage_perc", "KV cache blocks in use, 0 to 1.", usage);
  counter(
    "prefix_cache_queries_total",
    "Prompt tokens looked up in the prefix cache.",
    stats.prefixCacheQueriedTokens,
  );
  counter(
    "prefix_cache_hits_total",
    "Prompt tokens found in the prefix cache.",
    stats.prefixCacheHitTokens,
  );
  counter("prompt_tokens_total", "Prompt tokens computed.", stats.promptTokens);
  counter("generation_tokens_total", "Tokens generated.", stats.generationTokens);
  counter("num_preemptions_total", "Requests pushed out of the batch.", stats.preemptions);
  counter("engine_steps_total", "Steps of the engine.", stats.steps);
  out.counter(
    `${PREFIX}request_success_total`,
    "Requests that ended, by reason.",
    Object.entries(stats.finished).map(([reason, value]) => ({
      labels: { ...labels, finished_reason: reason },
      value,
    })),
  );
  counter("request_failure_total", "Requests that ended in an error.", stats.failedRequests);
  for (const [key, name, help] of histograms) {
    out.histogram(PREFIX + name, help, labels, stats.histograms[key]);
  }
}
