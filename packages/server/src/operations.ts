// What operators and the console ask: is it there, what is it, how is it doing.

import type { EngineStats, ModelInfo } from "@open-infra/engine";
import { ApiError } from "./errors.ts";
import { metricsText } from "./metrics.ts";
import { expositionContentType } from "./prometheus.ts";
import type { ServerContext } from "./scope.ts";
import { sseResponse } from "./sse.ts";
import { type Backend, type ServerState, version } from "./state.ts";

const STATS_INTERVAL_MS = 1000;

/** 200 once requests can be served, else 503 and why. */
export function getHealth(state: ServerState, c: ServerContext): Response {
  const { phase } = state;
  if (phase === "ready") return c.json({ status: "ok" });
  const progress = phase === "loading" ? state.options.loadProgress() : undefined;
  return c.json({ status: phase, ...(progress !== undefined && { progress }) }, 503, {
    "retry-after": "2",
  });
}

export function getVersion(c: ServerContext): Response {
  return c.json({ version });
}

export function getMetrics(state: ServerState, c: ServerContext): Response {
  return c.body(metricsText(state), 200, { "content-type": expositionContentType });
}

function modelBody(id: string, { engine, names }: Backend, state: ServerState): unknown {
  return {
    id,
    object: "model",
    created: Math.floor(state.startedAtMs / 1000),
    owned_by: "open-infra",
    root: names[0],
    parent: null,
    max_model_len: engine.model.maxModelLen,
  };
}

export function getModels(state: ServerState, c: ServerContext): Response {
  const backend = state.backend();
  const data = backend.names.map((name) => modelBody(name, backend, state));
  return c.json({ object: "list", data });
}

export function getModel(state: ServerState, c: ServerContext, name: string): Response {
  const backend = state.backend();
  if (!backend.names.includes(name)) {
    throw new ApiError(404, `the model '${name.slice(0, 100)}' does not exist`, {
      param: "model",
      code: "model_not_found",
    });
  }
  return c.json(modelBody(name, backend, state));
}

/** What the console reads. The folder of the model is nobody's business over HTTP. */
interface StatsBody {
  readonly model: Omit<ModelInfo, "dir">;
  readonly stats: EngineStats;
  readonly uptimeSeconds: number;
}

function statsBody(state: ServerState, { engine }: Backend): StatsBody {
  const { dir: _, ...model } = engine.model;
  return {
    model,
    stats: engine.stats(),
    uptimeSeconds: (Date.now() - state.startedAtMs) / 1000,
  };
}

export function getStats(state: ServerState, c: ServerContext): Response {
  return c.json(statsBody(state, state.backend()));
}

/** The same once a second, until the client leaves or the server drains. */
export async function getStatsStream(state: ServerState, c: ServerContext): Promise<Response> {
  const backend = state.backend();
  const scope = c.get("scope");
  const signal = AbortSignal.any([scope.signal, state.drainSignal]);
  const response = await sseResponse(statsMessages(state, backend, signal), {
    keepAliveMs: state.options.keepAliveMs,
    onGone: () => {
      scope.leave();
      scope.end(200);
    },
    onEnd: () => scope.end(200),
    done: false,
  });
  scope.stream();
  return response;
}

async function* statsMessages(
  state: ServerState,
  backend: Backend,
  signal: AbortSignal,
): AsyncGenerator<StatsBody, void, void> {
  while (!signal.aborted) {
    yield statsBody(state, backend);
    await pause(STATS_INTERVAL_MS, signal);
  }
}

/** Resolves after `ms`, or as soon as the signal aborts. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
  });
}
