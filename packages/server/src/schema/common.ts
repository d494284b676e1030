// Fields that completions and chat completions share, and how they become the engine's sampling
// settings. Names and ranges are OpenAI's; the ones OpenAI lacks are vLLM's. A field that is not
// named is ignored, as OpenAI does; one that would change the text and is not built is refused.

import type { ModelInfo, SamplingParams } from "@open-infra/engine";
import { z } from "zod";
import { badRequest } from "../errors.ts";

const MAX_STOP_STRINGS = 16;
const MAX_STOP_CHARS = 1024;
const MAX_BIASED_TOKENS = 4096;

const integer = (low: number): z.ZodType<number> => z.int().min(low);

/** Within [low, high]; infinities and NaN are no numbers in JSON, nor here. */
const number = (low: number, high: number): z.ZodType<number> => z.number().min(low).max(high);

const stopString = z.string().min(1).max(MAX_STOP_CHARS);
const stop = z.union([stopString, z.array(stopString).max(MAX_STOP_STRINGS)], {
  error: `expected a string or an array of at most ${MAX_STOP_STRINGS} strings`,
});

/**
 * A field that is known elsewhere and not built here. It may be absent, or have one of the values
 * that change nothing.
 */
export function unsupported(instead: string, ...harmless: readonly unknown[]): z.ZodType<unknown> {
  return z
    .unknown()
    .refine((value) => value == null || harmless.includes(value), {
      error: `is not supported; ${instead}`,
    })
    .optional();
}

/**
 * A schema behind a check that looks at sizes only. Without it a body of a million small items
 * would hold the event loop while each is checked and its error written.
 */
export function bounded<T>(
  schema: z.ZodType<T>,
  fits: (value: unknown) => boolean,
  error: string,
): z.ZodType<T> {
  return z.unknown().refine(fits, { error, abort: true }).pipe(schema);
}

/** Whether an object has at most so many keys; what is no object is for the schema to say. */
export function fewKeys(most: number): (value: unknown) => boolean {
  return (value) =>
    typeof value !== "object" || value === null || Object.keys(value).length <= most;
}

/** A schema for each field of a request. */
export type Fields<T> = { readonly [K in keyof T]-?: z.ZodType<T[K]> };

/** What both endpoints take. */
export interface CommonRequest {
  readonly model: string;
  readonly temperature?: number | null | undefined;
  readonly top_p?: number | null | undefined;
  readonly n?: number | null | undefined;
  readonly stop?: string | readonly string[] | null | undefined;
  readonly seed?: number | null | undefined;
  readonly presence_penalty?: number | null | undefined;
  readonly frequency_penalty?: number | null | undefined;
  readonly logit_bias?: Readonly<Record<string, number>> | null | undefined;
  readonly stream?: boolean | null | undefined;
  readonly stream_options?:
    | { readonly include_usage?: boolean | null | undefined }
    | null
    | undefined;
  // vLLM's.
  readonly top_k?: number | null | undefined;
  readonly min_p?: number | null | undefined;
  readonly repetition_penalty?: number | null | undefined;
  readonly ignore_eos?: boolean | null | undefined;
  readonly min_tokens?: number | null | undefined;
  readonly stop_token_ids?: readonly number[] | null | undefined;
}

export const commonFields: Fields<CommonRequest> = {
  model: z.string({ error: "expected the name of a model; GET /v1/models lists them" }),
  temperature: number(0, 2).nullish(),
  top_p: z.number().gt(0).max(1).nullish(),
  n: integer(1).nullish(),
  stop: stop.nullish(),
  seed: integer(Number.MIN_SAFE_INTEGER).nullish(),
  presence_penalty: number(-2, 2).nullish(),
  frequency_penalty: number(-2, 2).nullish(),
  logit_bias: bounded(
    z.record(z.string(), number(-100, 100)),
    fewKeys(MAX_BIASED_TOKENS),
    `expected at most ${MAX_BIASED_TOKENS} entries`,
  ).nullish(),
  stream: z.boolean().nullish(),
  stream_options: z.object({ include_usage: z.boolean().nullish() }).nullish(),
  top_k: integer(-1).nullish(),
  min_p: number(0, 1).nullish(),
  repetition_penalty: z.number().gt(0).max(1e4).nullish(),
  ignore_eos: z.boolean().nullish(),
  min_tokens: integer(0).nullish(),
  stop_token_ids: z.array(integer(0)).max(1024).nullish(),
};

const notConstrained = unsupported("output is not constrained");

/** Known elsewhere and not built: saying so beats another text than the one that was asked for. */
export const unsupportedFields: Fields<
  Record<
    | "use_beam_search"
    | "include_stop_str_in_output"
    | "skip_special_tokens"
    | "prompt_logprobs"
    | "truncate_prompt_tokens"
    | "guided_json"
    | "guided_regex"
    | "guided_choice"
    | "guided_grammar"
    | "structured_outputs",
    unknown
  >
> = {
  use_beam_search: unsupported("beams are not searched", false),
  include_stop_str_in_output: unsupported("the stop string is never part of the text", false),
  skip_special_tokens: unsupported("special tokens are never part of the text", true),
  prompt_logprobs: unsupported("use /v1/completions with echo and logprobs"),
  truncate_prompt_tokens: unsupported("shorten the prompt before sending it"),
  guided_json: notConstrained,
  guided_regex: notConstrained,
  guided_choice: notConstrained,
  guided_grammar: notConstrained,
  structured_outputs: notConstrained,
};

/**
 * Sampling settings of a request over the model's own defaults; lengths, seeds of several choices
 * and logprobs are the endpoints' business.
 */
export function samplingOf(request: CommonRequest, model: ModelInfo): SamplingParams {
  const { stop } = request;
  const asked = {
    temperature: request.temperature,
    topP: request.top_p,
    topK: request.top_k,
    minP: request.min_p,
    presencePenalty: request.presence_penalty,
    frequencyPenalty: request.frequency_penalty,
    repetitionPenalty: request.repetition_penalty,
    seed: request.seed,
    ignoreEos: request.ignore_eos,
    minTokens: request.min_tokens,
    stopTokenIds: request.stop_token_ids,
    stop: typeof stop === "string" ? [stop] : stop,
    logitBias: request.logit_bias == null ? undefined : biasOf(request.logit_bias),
  };
  const given = Object.fromEntries(Object.entries(asked).filter(([, value]) => value != null));
  return { ...model.defaultSampling, ...given };
}

function biasOf(bias: Readonly<Record<string, number>>): Record<number, number> {
  for (const key of Object.keys(bias)) {
    if (/^\d{1,10}$/.test(key)) continue;
    throw badRequest("logit_bias", `logit_bias: key '${key.slice(0, 40)}' is not a token id`);
  }
  return bias;
}
