// The bodies of POST /tokenize and /detokenize, as vLLM has them.

import { z } from "zod";
import { type TemplateRequest, templateFields } from "./chat.ts";
import { type Message, messages } from "./messages.ts";

export interface TokenizeRequest extends TemplateRequest {
  readonly model?: string | null | undefined;
  readonly prompt?: string | null | undefined;
  readonly messages?: readonly Message[] | null | undefined;
  readonly return_token_strs?: boolean | null | undefined;
}

export const tokenizeSchema: z.ZodType<TokenizeRequest> = z
  .object({
    ...templateFields,
    model: z.string().nullish(),
    prompt: z.string().nullish(),
    messages: messages.nullish(),
    return_token_strs: z.boolean().nullish(),
  })
  .refine((body) => (body.prompt == null) !== (body.messages == null), {
    error: "expected either prompt or messages",
    path: ["prompt"],
  });

export interface DetokenizeRequest {
  readonly model?: string | null | undefined;
  /** Checked one by one against the vocabulary where they are decoded. */
  readonly tokens: readonly unknown[];
}

export const detokenizeSchema: z.ZodType<DetokenizeRequest> = z.object({
  model: z.string().nullish(),
  tokens: z.custom<readonly unknown[]>((value) => Array.isArray(value), {
    error: "expected an array of token ids",
  }),
});
