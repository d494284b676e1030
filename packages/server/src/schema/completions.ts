// The body of POST /v1/completions.

import { z } from "zod";
import { type CommonRequest, commonFields, unsupported, unsupportedFields } from "./common.ts";

export interface CompletionRequest extends CommonRequest {
  /** Checked in prompts.ts. */
  readonly prompt?: unknown;
  readonly max_tokens?: number | null | undefined;
  readonly echo?: boolean | null | undefined;
  readonly logprobs?: number | null | undefined;
  readonly best_of?: number | null | undefined;
  readonly add_special_tokens?: boolean | null | undefined;
}

const responseFormat = z.looseObject({
  type: z.literal("text", { error: "only 'text' is supported; output is not constrained" }),
});

export const completionSchema: z.ZodType<CompletionRequest> = z.object({
  ...commonFields,
  ...unsupportedFields,
  // Its four shapes are told apart in prompts.ts: a list of a million tokens needs no schema.
  prompt: z.unknown().optional(),
  max_tokens: z.int().min(0).nullish(),
  echo: z.boolean().nullish(),
  logprobs: z.int().min(0).max(20).nullish(),
  best_of: z.int().min(1).nullish(),
  add_special_tokens: z.boolean().nullish(),
  suffix: unsupported("the model only continues a text", ""),
  prompt_embeds: unsupported("send text or token ids"),
  response_format: responseFormat.nullish(),
});
