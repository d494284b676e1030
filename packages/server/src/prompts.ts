// From what a client sends to token ids that fit the context: the four shapes of a completion's
// prompt, a chat through the model's template, and the room that is left for an answer.

import type { ModelInfo } from "@open-infra/engine";
import type { ChatTemplateOptions } from "@open-infra/model";
import { type ApiError, badRequest } from "./errors.ts";
import type { TemplateRequest } from "./schema/chat.ts";
import { type Message, templateMessages } from "./schema/messages.ts";
import type { Backend } from "./state.ts";

export interface Prompt {
  readonly ids: readonly number[];
  /** As it was sent; undefined when token ids were. */
  readonly text: string | undefined;
}

export interface PromptContext {
  readonly backend: Backend;
  readonly signal: AbortSignal;
}

/** `prompt` of a completion: a text, token ids, or a list of these. @throws ApiError 400 */
export async function completionPrompts(
  prompt: unknown,
  options: { readonly addSpecialTokens: boolean; readonly maxPrompts: number },
  context: PromptContext,
): Promise<Prompt[]> {
  const entries = promptEntries(prompt, options.maxPrompts);
  const prompts: Prompt[] = [];
  for (const { param, value } of entries) {
    const read =
      typeof value === "string"
        ? textPrompt(param, value, options.addSpecialTokens, context)
        : { ids: tokenPrompt(param, value, context.backend.engine.model), text: undefined };
    prompts.push(await read);
  }
  return prompts;
}

interface Entry {
  /** Where in the request it stands. */
  readonly param: string;
  readonly value: string | readonly unknown[];
}

function promptEntries(prompt: unknown, maxPrompts: number): Entry[] {
  if (typeof prompt === "string") return [{ param: "prompt", value: prompt }];
  const expected =
    "expected a string, an array of strings, token ids, or an array of token id arrays";
  if (!Array.isArray(prompt)) throw badRequest("prompt", `prompt: ${expected}`);
  const list: readonly unknown[] = prompt;
  if (list.length === 0) throw badRequest("prompt", "prompt: is empty");
  if (typeof list[0] === "number") return [{ param: "prompt", value: list }];
  if (list.length > maxPrompts) {
    throw badRequest("prompt", `prompt: ${list.length} prompts; expected at most ${maxPrompts}`);
  }
  return list.map((value, i): Entry => {
    const param = `prompt[${i}]`;
    if (typeof value === "string" || Array.isArray(value)) return { param, value };
    throw badRequest(param, `${param}: expected a string or an array of token ids`);
  });
}

async function textPrompt(
  param: string,
  text: string,
  addSpecialTokens: boolean,
  { backend, signal }: PromptContext,
): Promise<Prompt> {
  if (text === "") throw badRequest(param, `${param}: is empty`);
  const { engine, encoder } = backend;
  const least = encoder.leastTokens(text);
  if (least >= engine.model.maxModelLen) throw tooLong(param, `at least ${least}`, engine.model);
  const ids = await encoder.encode(text, { addSpecialTokens, signal });
  if (ids.length === 0) throw badRequest(param, `${param}: has no tokens`);
  checkLength(param, ids.length, engine.model);
  return { ids, text };
}

/** Length first: a list of millions is refused before its ids are looked at. */
function tokenPrompt(
  param: string,
  value: readonly unknown[],
  model: ModelInfo,
): readonly number[] {
  if (value.length === 0) throw badRequest(param, `${param}: is empty`);
  checkLength(param, value.length, model);
  return checkTokenIds(param, value, model);
}

/** @throws ApiError 400 naming the first entry that is no token id. */
export function checkTokenIds(
  param: string,
  ids: readonly unknown[],
  model: ModelInfo,
): readonly number[] {
  return ids.map((id, i) => {
    if (typeof id === "number" && Number.isInteger(id) && id >= 0 && id < model.vocabSize) {
      return id;
    }
    const shown = typeof id === "number" ? String(id) : `a ${typeof id}`;
    const last = model.vocabSize - 1;
    const message = `${param}[${i}] is ${shown}; expected a token id from 0 to ${last}`;
    throw badRequest(`${param}[${i}]`, message, "invalid_token_id");
  });
}

/** The prompt of a chat: its messages through the model's template. */
export async function chatPrompt(
  messages: readonly Message[],
  request: TemplateRequest & { readonly tool_choice?: unknown },
  context: PromptContext,
): Promise<Prompt> {
  const text = renderChat(messages, request, context.backend);
  const prompt = await textPrompt("messages", text, request.add_special_tokens ?? false, context);
  return { ...prompt, text: undefined };
}

/** @throws ChatTemplateError */
export function renderChat(
  messages: readonly Message[],
  request: TemplateRequest & { readonly tool_choice?: unknown },
  { encoder }: Backend,
): string {
  const { tools, tool_choice: choice, chat_template_kwargs: variables } = request;
  const offered = choice === "none" ? undefined : tools;
  const options: ChatTemplateOptions = {
    addGenerationPrompt: request.add_generation_prompt ?? true,
    ...(offered != null && offered.length > 0 && { tools: offered }),
    variables: { ...variables, ...(choice != null && { tool_choice: choice }) },
  };
  return encoder.tokenizer.applyChatTemplate(templateMessages(messages), options);
}

function tooLong(param: string, tokens: string, model: ModelInfo): ApiError {
  return badRequest(
    param,
    `this model's context is ${model.maxModelLen} tokens, prompt and answer together; ` +
      `${param} has ${tokens} and leaves no room for an answer`,
    "context_length_exceeded",
  );
}

function checkLength(param: string, tokens: number, model: ModelInfo): void {
  if (tokens >= model.maxModelLen) throw tooLong(param, String(tokens), model);
}

/**
 * Tokens an answer may have. What was asked for is given or refused; a default is cut to the room.
 *
 * @throws ApiError 400
 */
export function answerTokens(
  param: string,
  asked: number | undefined,
  fallback: number,
  { promptTokens, model }: { readonly promptTokens: number; readonly model: ModelInfo },
): number {
  const room = model.maxModelLen - promptTokens;
  if (asked === undefined) return Math.min(fallback, room);
  if (asked <= room) return asked;
  throw badRequest(
    param,
    `${param} is ${asked}, but this model's context is ${model.maxModelLen} tokens and the ` +
      `prompt has ${promptTokens}; expected at most ${room}`,
    "context_length_exceeded",
  );
}
