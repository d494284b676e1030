// The steps that both completion endpoints take around their own shapes: the model's name, the
// engine's requests, answering whole or as a stream.

import { randomUUID } from "node:crypto";
import type { GenerateEvent, GenerateRequest, SamplingParams } from "@open-infra/engine";
import { ApiError, badRequest } from "./errors.ts";
import { type ChoiceEvent, runChoices, type UsageBody, UsageSum } from "./generation.ts";
import type { Prompt } from "./prompts.ts";
import type { CommonRequest } from "./schema/common.ts";
import type { ServerContext } from "./scope.ts";
import { sseResponse } from "./sse.ts";
import type { Backend, ServerState } from "./state.ts";

/** @throws ApiError 404 unless the model is this server's. */
export function checkModel(name: string, backend: Backend): void {
  if (backend.names.includes(name)) return;
  const shown = name.length > 100 ? `${name.slice(0, 100)}…` : name;
  throw new ApiError(
    404,
    `the model '${shown}' does not exist; this server has ${backend.names.join(", ")}`,
    { param: "model", code: "model_not_found" },
  );
}

/** `n`, for so many prompts. @throws ApiError 400 */
export function choicesPerPrompt(
  request: CommonRequest,
  prompts: number,
  maxChoices: number,
): number {
  const n = request.n ?? 1;
  if (n * prompts <= maxChoices) return n;
  throw badRequest(
    "n",
    `n is ${n} for ${prompts} ${prompts === 1 ? "prompt" : "prompts"}; this server gives at most ` +
      `${maxChoices} choices a request`,
  );
}

/** The engine's requests: all choices of the first prompt, then of the second, … */
export function choiceRequests(
  responseId: string,
  prompts: readonly Prompt[],
  n: number,
  samplingFor: (prompt: Prompt) => SamplingParams,
): GenerateRequest[] {
  return prompts.flatMap((prompt, p) => {
    const sampling = samplingFor(prompt);
    return Array.from({ length: n }, (_, i) => ({
      id: `${responseId}-${p * n + i}`,
      promptTokenIds: prompt.ids,
      sampling:
        sampling.seed === undefined ? sampling : { ...sampling, seed: seedOf(sampling.seed, i) },
    }));
  });
}

/** One seed, n different choices. */
function seedOf(seed: number, choice: number): number {
  return Number.isSafeInteger(seed + choice) ? seed + choice : seed - choice;
}

/** The head of every answer and chunk of a request. */
export interface Head {
  readonly id: string;
  readonly object: string;
  readonly created: number;
  readonly model: string;
  readonly system_fingerprint: string;
}

export function headOf(prefix: string, object: string, model: string, backend: Backend): Head {
  return {
    id: `${prefix}-${randomUUID().replaceAll("-", "")}`,
    object,
    created: Math.floor(Date.now() / 1000),
    model,
    system_fingerprint: backend.fingerprint,
  };
}

export type FinishEvent = Extract<GenerateEvent, { readonly type: "finish" }>;
export type DeltaEvent = Extract<GenerateEvent, { readonly type: "delta" }>;

/** How an endpoint writes what the engine says. */
export interface Writer {
  /** Chunks before the first event. */
  begin(): readonly unknown[];
  /** Chunks of one event; an event may be worth none. */
  chunks(event: ChoiceEvent): readonly unknown[];
  /** The usage chunk of a stream. */
  usage(usage: UsageBody): unknown;
  /** The whole answer, after every event went through `chunks`. */
  whole(usage: UsageBody): unknown;
}

export interface RunOptions {
  readonly state: ServerState;
  readonly backend: Backend;
  readonly request: CommonRequest;
  readonly requests: readonly GenerateRequest[];
  /** Choices of one prompt. */
  readonly n: number;
  readonly writer: Writer;
  /** Completion tokens that are not part of the answer, a choice. @default 0 */
  readonly hiddenTokens?: number;
}

/** Runs the choices and answers in one piece or as a stream, as the request asks. */
export async function answer(c: ServerContext, options: RunOptions): Promise<Response> {
  const { state, request, writer } = options;
  const scope = c.get("scope");
  scope.note({ model: request.model, choices: options.requests.length });
  if (request.stream !== true) {
    const sum = new UsageSum(options.n);
    for await (const event of events(c, options, sum)) writer.chunks(event);
    return c.json(writer.whole(sum.body));
  }
  scope.note({ stream: true });
  const response = await sseResponse(streamChunks(c, options), {
    keepAliveMs: state.options.keepAliveMs,
    onGone: () => scope.leave(),
    onEnd: (failure) => scope.end(200, failure),
  });
  scope.stream();
  return response;
}

async function* streamChunks(
  c: ServerContext,
  options: RunOptions,
): AsyncGenerator<unknown, void, void> {
  const { writer, request } = options;
  const sum = new UsageSum(options.n);
  let begun = false;
  try {
    for await (const event of events(c, options, sum)) {
      if (!begun) yield* writer.begin();
      begun = true;
      yield* writer.chunks(event);
    }
    if (request.stream_options?.include_usage === true) yield writer.usage(sum.body);
  } finally {
    const scope = c.get("scope");
    // A client that left never reads the end of its stream; its line is written all the same.
    if (scope.signal.aborted) scope.end(499);
  }
}

/** The engine's events; usage and the log learn of finished choices on the way. */
async function* events(
  c: ServerContext,
  { backend, requests, hiddenTokens = 0 }: RunOptions,
  sum: UsageSum,
): AsyncGenerator<ChoiceEvent, void, void> {
  const scope = c.get("scope");
  for await (const item of runChoices(backend.engine, requests, scope.signal)) {
    if (item.event.type === "finish") {
      const { usage, timings, reason } = item.event;
      const completionTokens = usage.completionTokens - hiddenTokens;
      sum.add(item.index, { ...usage, completionTokens });
      scope.note({
        promptTokens: sum.body.prompt_tokens,
        completionTokens: sum.body.completion_tokens,
        finishReason: reason,
        queuedMs: timings.queuedMs,
        timeToFirstTokenMs: timings.timeToFirstTokenMs,
      });
    }
    yield item;
  }
}
