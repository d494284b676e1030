// POST /v1/completions: prompts as text or token ids, the answer in OpenAI's older shapes.

import type { SamplingParams } from "@open-infra/engine";
import type { Tokenizer } from "@open-infra/model";
import { parseBody, readJson } from "./body.ts";
import {
  answer,
  checkModel,
  choiceRequests,
  choicesPerPrompt,
  type DeltaEvent,
  type FinishEvent,
  type Head,
  headOf,
  type Writer,
} from "./completion-shared.ts";
import { badRequest } from "./errors.ts";
import type { ChoiceEvent, UsageBody } from "./generation.ts";
import {
  type BareToken,
  CompletionLogprobs,
  type CompletionLogprobsBody,
  joinCompletionLogprobs,
} from "./logprobs.ts";
import { answerTokens, completionPrompts, type Prompt } from "./prompts.ts";
import { samplingOf } from "./schema/common.ts";
import { type CompletionRequest, completionSchema } from "./schema/completions.ts";
import type { ServerContext } from "./scope.ts";
import type { Backend, ServerState } from "./state.ts";

/** OpenAI's default of this older endpoint. */
const DEFAULT_MAX_TOKENS = 16;

export async function postCompletions(state: ServerState, c: ServerContext): Promise<Response> {
  const backend = state.backend();
  const request = parseBody(
    completionSchema,
    await readJson(c.req.raw, state.options.maxBodyBytes),
  );
  checkModel(request.model, backend);
  checkFields(request);
  const scope = c.get("scope");
  if (state.options.logPrompts) scope.log.debug({ prompt: request.prompt }, "prompt");
  const prompts = await completionPrompts(
    request.prompt,
    {
      addSpecialTokens: request.add_special_tokens ?? true,
      maxPrompts: state.options.maxChoices,
    },
    { backend, signal: scope.signal },
  );
  const n = choicesPerPrompt(request, prompts.length, state.options.maxChoices);
  const head = headOf("cmpl", "text_completion", request.model, backend);
  const silent = request.max_tokens === 0;
  const writer = new CompletionWriter(head, {
    tokenizer: backend.encoder.tokenizer,
    echoes: await echoes(request, prompts, backend),
    choices: prompts.length * n,
    n,
    silent,
    includeUsage: request.stream_options?.include_usage === true,
  });
  return await answer(c, {
    state,
    backend,
    request,
    requests: choiceRequests(head.id, prompts, n, (p) => completionSampling(request, p, backend)),
    n,
    writer,
    ...(silent && { hiddenTokens: 1 }),
  });
}

function checkFields(request: CompletionRequest): void {
  const { best_of: bestOf, max_tokens: maxTokens, echo } = request;
  const n = request.n ?? 1;
  if (bestOf != null && bestOf !== n) {
    throw badRequest(
      "best_of",
      `best_of is ${bestOf}; only n (${n}) is supported: choices are not ranked`,
    );
  }
  if (maxTokens === 0 && echo !== true) {
    throw badRequest("max_tokens", "max_tokens is 0; expected at least 1, or echo: true");
  }
}

function completionSampling(
  request: CompletionRequest,
  prompt: Prompt,
  { engine }: Backend,
): SamplingParams {
  const { model } = engine;
  const size = { promptTokens: prompt.ids.length, model };
  // The engine always draws a token; with max_tokens 0 it is not shown.
  const asked = request.max_tokens === 0 ? 1 : (request.max_tokens ?? undefined);
  return {
    ...samplingOf(request, model),
    maxTokens: answerTokens("max_tokens", asked, DEFAULT_MAX_TOKENS, size),
    ...(request.logprobs != null && {
      logprobs: request.logprobs,
      promptLogprobs: request.echo === true,
    }),
  };
}

/** What stands before an answer. */
interface Echo {
  readonly text: string;
  /** It has no log-probability, so that the engine does not report it. */
  readonly firstToken: BareToken;
}

async function echoes(
  request: CompletionRequest,
  prompts: readonly Prompt[],
  { encoder }: Backend,
): Promise<Echo[] | undefined> {
  if (request.echo !== true) return undefined;
  const found: Echo[] = [];
  for (const { text, ids } of prompts) {
    const tokenId = ids[0] as number;
    const firstToken = { tokenId, text: await encoder.decode([tokenId]) };
    found.push({ text: text ?? plainText(ids, encoder.tokenizer), firstToken });
  }
  return found;
}

/** Without special tokens, as the answer will be. */
function plainText(ids: readonly number[], tokenizer: Tokenizer): string {
  // At most a context of them: no need to stop on the way.
  return tokenizer.decode(ids, { skipSpecialTokens: true });
}

interface CompletionChoice {
  text: string;
  readonly logprobs: CompletionLogprobs;
  readonly pieces: CompletionLogprobsBody[];
  finishReason: string | null;
  stopReason: string | number | null;
  echoed: boolean;
}

interface CompletionWriterOptions {
  readonly tokenizer: Tokenizer;
  /** One a prompt, where they are wanted. */
  readonly echoes: readonly Echo[] | undefined;
  readonly choices: number;
  /** Choices of one prompt. */
  readonly n: number;
  /** Only the prompt is wanted. */
  readonly silent: boolean;
  readonly includeUsage: boolean;
}

/** Chunks of completions, and what they add up to. */
class CompletionWriter implements Writer {
  readonly #head: Head;
  readonly #options: CompletionWriterOptions;
  readonly #choices: CompletionChoice[];

  constructor(head: Head, options: CompletionWriterOptions) {
    this.#head = head;
    this.#options = options;
    this.#choices = Array.from({ length: options.choices }, () => ({
      text: "",
      logprobs: new CompletionLogprobs(options.tokenizer),
      pieces: [],
      finishReason: null,
      stopReason: null,
      echoed: options.echoes === undefined,
    }));
  }

  begin(): unknown[] {
    return [];
  }

  chunks({ index, event }: ChoiceEvent): unknown[] {
    const choice = this.#choices[index];
    if (choice === undefined) return [];
    const echo = choice.echoed ? [] : [this.#echo(choice, index, event)];
    if (event.type === "prompt") return echo;
    const chunk =
      event.type === "delta"
        ? this.#delta(choice, index, event)
        : this.#finish(choice, index, event);
    return chunk === undefined ? echo : [...echo, chunk];
  }

  usage(usage: UsageBody): unknown {
    return { ...this.#head, choices: [], usage };
  }

  whole(usage: UsageBody): unknown {
    const choices = this.#choices.map((choice, index) => ({
      index,
      text: choice.text,
      logprobs: choice.pieces.length === 0 ? null : joinCompletionLogprobs(choice.pieces),
      finish_reason: choice.finishReason,
      stop_reason: choice.stopReason,
    }));
    return { ...this.#head, choices, usage };
  }

  #echo(choice: CompletionChoice, index: number, event: ChoiceEvent["event"]): unknown {
    choice.echoed = true;
    const echo = this.#options.echoes?.[Math.floor(index / this.#options.n)];
    if (echo === undefined) throw new Error(`choice ${index} has no prompt to echo`);
    const tokens =
      event.type === "prompt" ? event.logprobs.map((t) => t ?? echo.firstToken) : undefined;
    return this.#text(choice, index, echo.text, tokens);
  }

  #delta(choice: CompletionChoice, index: number, event: DeltaEvent): unknown {
    if (this.#options.silent || (event.text === "" && event.logprobs === undefined)) {
      return undefined;
    }
    return this.#text(choice, index, event.text, event.logprobs);
  }

  #text(
    choice: CompletionChoice,
    index: number,
    text: string,
    tokens: Parameters<CompletionLogprobs["take"]>[0] | undefined,
  ): unknown {
    choice.text += text;
    const logprobs = tokens === undefined ? null : choice.logprobs.take(tokens);
    if (logprobs !== null) choice.pieces.push(logprobs);
    return this.#chunk({ index, text, logprobs, finish_reason: null });
  }

  #finish(choice: CompletionChoice, index: number, event: FinishEvent): unknown {
    choice.finishReason = event.reason;
    choice.stopReason = event.stopReason;
    const end = { finish_reason: event.reason, stop_reason: event.stopReason };
    return this.#chunk({ index, text: "", logprobs: null, ...end });
  }

  #chunk(choice: unknown): unknown {
    const { includeUsage } = this.#options;
    return { ...this.#head, choices: [choice], ...(includeUsage && { usage: null }) };
  }
}
