// POST /v1/chat/completions: messages through the model's template, the answer in OpenAI's shapes.

import type { SamplingParams } from "@open-infra/engine";
import { parseBody, readJson } from "./body.ts";
import {
  answer,
  checkModel,
  choiceRequests,
  choicesPerPrompt,
  type Head,
  headOf,
  type Writer,
} from "./completion-shared.ts";
import { badRequest } from "./errors.ts";
import type { ChoiceEvent, UsageBody } from "./generation.ts";
import { type ChatLogprobsBody, chatLogprobs } from "./logprobs.ts";
import { answerTokens, chatPrompt, type Prompt } from "./prompts.ts";
import { type ChatRequest, chatSchema } from "./schema/chat.ts";
import { samplingOf } from "./schema/common.ts";
import type { ServerContext } from "./scope.ts";
import type { Backend, ServerState } from "./state.ts";

export async function postChatCompletions(state: ServerState, c: ServerContext): Promise<Response> {
  const backend = state.backend();
  const request = parseBody(chatSchema, await readJson(c.req.raw, state.options.maxBodyBytes));
  checkModel(request.model, backend);
  if ((request.top_logprobs ?? 0) > 0 && request.logprobs !== true) {
    throw badRequest("top_logprobs", "top_logprobs: needs logprobs: true");
  }
  const n = choicesPerPrompt(request, 1, state.options.maxChoices);
  const scope = c.get("scope");
  if (state.options.logPrompts) scope.log.debug({ messages: request.messages }, "prompt");
  const prompt = await chatPrompt(request.messages, request, { backend, signal: scope.signal });
  const sampling = chatSampling(request, prompt, backend);
  const object = request.stream === true ? "chat.completion.chunk" : "chat.completion";
  const head = headOf("chatcmpl", object, request.model, backend);
  return await answer(c, {
    state,
    backend,
    request,
    requests: choiceRequests(head.id, [prompt], n, () => sampling),
    n,
    writer: new ChatWriter(head, n, request.stream_options?.include_usage === true),
  });
}

function chatSampling(request: ChatRequest, prompt: Prompt, { engine }: Backend): SamplingParams {
  const { model } = engine;
  const sampling = samplingOf(request, model);
  const { max_tokens: older, max_completion_tokens: newer } = request;
  const param = newer == null ? "max_tokens" : "max_completion_tokens";
  const fallback = model.defaultSampling.maxTokens ?? model.maxModelLen;
  const size = { promptTokens: prompt.ids.length, model };
  return {
    ...sampling,
    maxTokens: answerTokens(param, newer ?? older ?? undefined, fallback, size),
    ...(request.logprobs === true && { logprobs: request.top_logprobs ?? 0 }),
  };
}

interface ChatChoice {
  content: string;
  logprobs: ChatLogprobsBody | null;
  finishReason: string | null;
  stopReason: string | number | null;
}

/** Chunks of a chat, and what they add up to. */
class ChatWriter implements Writer {
  readonly #head: Head;
  readonly #includeUsage: boolean;
  readonly #choices: ChatChoice[];

  constructor(head: Head, n: number, includeUsage: boolean) {
    this.#head = head;
    this.#includeUsage = includeUsage;
    this.#choices = Array.from({ length: n }, () => ({
      content: "",
      logprobs: null,
      finishReason: null,
      stopReason: null,
    }));
  }

  begin(): unknown[] {
    const delta = { role: "assistant", content: "", refusal: null };
    return this.#choices.map((_, index) =>
      this.#chunk({ index, delta, logprobs: null, finish_reason: null }),
    );
  }

  chunks({ index, event }: ChoiceEvent): unknown[] {
    const choice = this.#choices[index];
    if (choice === undefined || event.type === "prompt") return [];
    if (event.type === "finish") {
      choice.finishReason = event.reason;
      choice.stopReason = event.stopReason;
      const end = { finish_reason: event.reason, stop_reason: event.stopReason };
      return [this.#chunk({ index, delta: {}, logprobs: null, ...end })];
    }
    const logprobs = event.logprobs === undefined ? null : chatLogprobs(event.logprobs);
    // While a character or a stop string is incomplete there is nothing to show yet.
    if (event.text === "" && logprobs === null) return [];
    choice.content += event.text;
    if (logprobs !== null) {
      const content = [...(choice.logprobs?.content ?? []), ...logprobs.content];
      choice.logprobs = { content, refusal: null };
    }
    const delta = { content: event.text };
    return [this.#chunk({ index, delta, logprobs, finish_reason: null })];
  }

  usage(usage: UsageBody): unknown {
    return { ...this.#head, choices: [], usage };
  }

  whole(usage: UsageBody): unknown {
    const choices = this.#choices.map((choice, index) => ({
      index,
      message: { role: "assistant", content: choice.content, refusal: null },
      logprobs: choice.logprobs,
      finish_reason: choice.finishReason,
      stop_reason: choice.stopReason,
    }));
    return { ...this.#head, choices, usage };
  }

  #chunk(choice: unknown): unknown {
    // OpenAI writes `usage: null` on every chunk but the last when usage was asked for.
    return { ...this.#head, choices: [choice], ...(this.#includeUsage && { usage: null }) };
  }
}
