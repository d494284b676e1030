// The body of POST /v1/chat/completions, and the part of it that /tokenize shares: what a chat
// template is given.

import { z } from "zod";
import {
  bounded,
  type CommonRequest,
  commonFields,
  type Fields,
  fewKeys,
  unsupported,
  unsupportedFields,
} from "./common.ts";
import { type Message, messages } from "./messages.ts";

const MAX_TOOLS = 128;
const MAX_TEMPLATE_VARIABLES = 128;

/** What a template may need beside the messages. */
export interface TemplateRequest {
  readonly tools?: readonly unknown[] | null | undefined;
  readonly add_generation_prompt?: boolean | null | undefined;
  readonly chat_template_kwargs?: Readonly<Record<string, unknown>> | null | undefined;
  readonly add_special_tokens?: boolean | null | undefined;
}

const tool = z.looseObject({
  type: z.literal("function"),
  function: z.looseObject({
    name: z.string().min(1).max(256),
    description: z.string().nullish(),
    parameters: z.looseObject({}).nullish(),
  }),
});

export const templateFields: Fields<TemplateRequest> = {
  tools: bounded(
    z.array(tool),
    (value) => !Array.isArray(value) || value.length <= MAX_TOOLS,
    `expected at most ${MAX_TOOLS} tools`,
  ).nullish(),
  add_generation_prompt: z.boolean().nullish(),
  chat_template_kwargs: bounded(
    z.record(z.string(), z.unknown()),
    fewKeys(MAX_TEMPLATE_VARIABLES),
    `expected at most ${MAX_TEMPLATE_VARIABLES} entries`,
  ).nullish(),
  add_special_tokens: z.boolean().nullish(),
};

const named = z.looseObject({
  type: z.literal("function"),
  function: z.looseObject({ name: z.string() }),
});

const toolChoice = z.union([z.enum(["none", "auto", "required"]), named], {
  error: "expected 'none', 'auto', 'required' or {type: 'function', function: {name}}",
});

const responseFormat = z.looseObject({
  type: z.literal("text", { error: "only 'text' is supported; output is not constrained" }),
});

const modality = z.literal("text", { error: "only 'text' is supported" });

export interface ChatRequest extends CommonRequest, TemplateRequest {
  readonly messages: readonly Message[];
  readonly tool_choice?: string | Readonly<Record<string, unknown>> | null | undefined;
  readonly max_tokens?: number | null | undefined;
  readonly max_completion_tokens?: number | null | undefined;
  readonly logprobs?: boolean | null | undefined;
  readonly top_logprobs?: number | null | undefined;
}

export const chatSchema: z.ZodType<ChatRequest> = z.object({
  ...commonFields,
  ...templateFields,
  ...unsupportedFields,
  messages,
  tool_choice: toolChoice.nullish(),
  max_tokens: z.int().min(1).nullish(),
  max_completion_tokens: z.int().min(1).nullish(),
  logprobs: z.boolean().nullish(),
  top_logprobs: z.int().min(0).max(20).nullish(),
  response_format: responseFormat.nullish(),
  modalities: z.array(modality).nullish(),
  audio: unsupported("the model writes text"),
  functions: unsupported("use tools"),
  function_call: unsupported("use tool_choice"),
  chat_template: unsupported("the model's own template is used"),
  continue_final_message: unsupported("end with a user message", false),
});
