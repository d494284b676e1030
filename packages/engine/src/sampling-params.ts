// What a request asks of sampling, checked once and made complete. Nothing past this file sees an
// undefined default. It does not know generation_config.json: the caller merges those defaults.

import type { GenerateRequest, SamplingParams } from "./api.ts";
import { RequestError } from "./errors.ts";

/** Below this, temperature means greedy, as in vLLM. */
const GREEDY_BELOW = 1e-5;
const MAX_LOGPROBS = 20;
const MAX_STOP_STRINGS = 64;
const MAX_STOP_CHARS = 1024;
const MAX_BIASED_TOKENS = 4096;

/** Sampling settings with every default filled in. */
export interface ResolvedSampling {
  readonly greedy: boolean;
  /** Meaningless when greedy. */
  readonly temperature: number;
  /** 0 keeps all. */
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  readonly repetitionPenalty: number;
  /** Pairs of token id and what is added to its logit. */
  readonly logitBias: readonly (readonly [number, number])[];
  readonly stop: readonly string[];
  /** Tokens that end the text: the model's own unless `ignoreEos`, and the request's. */
  readonly stopTokenIds: ReadonlySet<number>;
  /** Those of `stopTokenIds` that the request named; only these are reported as the reason. */
  readonly ownStopTokenIds: ReadonlySet<number>;
  readonly maxTokens: number;
  readonly minTokens: number;
  /** Undefined: the engine draws one. */
  readonly seed: number | undefined;
  /** Alternatives to report; undefined reports nothing. */
  readonly logprobs: number | undefined;
  readonly promptLogprobs: boolean;
}

/** What a request is checked against. */
export interface RequestLimits {
  readonly vocabSize: number;
  readonly maxModelLen: number;
  readonly eosTokenIds: readonly number[];
}

/**
 * Checks a request and fills in its defaults.
 *
 * @throws RequestError naming the field, what came and what is allowed.
 */
export function resolveRequest(request: GenerateRequest, limits: RequestLimits): ResolvedSampling {
  const prompt = request.promptTokenIds;
  if (prompt.length === 0) {
    throw new RequestError("promptTokenIds", "empty", "at least one token");
  }
  checkTokenIds("promptTokenIds", prompt, limits.vocabSize);
  if (prompt.length >= limits.maxModelLen) {
    throw new RequestError(
      "promptTokenIds",
      `${prompt.length} tokens`,
      `at most ${limits.maxModelLen - 1}, so that one more fits the context of ` +
        String(limits.maxModelLen),
    );
  }
  const s = request.sampling;
  const room = limits.maxModelLen - prompt.length;
  const maxTokens = integer(s, "maxTokens", room, 1, Number.MAX_SAFE_INTEGER);
  if (maxTokens > room) {
    throw new RequestError(
      "sampling.maxTokens",
      `${maxTokens} on top of a prompt of ${prompt.length} tokens`,
      `at most ${room}: the context holds ${limits.maxModelLen}`,
    );
  }
  const own = s.stopTokenIds ?? [];
  checkTokenIds("sampling.stopTokenIds", own, limits.vocabSize);
  const temperature = number(s, "temperature", 1, 0, Number.MAX_VALUE);
  return {
    greedy: temperature < GREEDY_BELOW,
    temperature,
    topK: Math.max(0, integer(s, "topK", 0, -1, Number.MAX_SAFE_INTEGER)),
    topP: positive(s, "topP", 1, 1),
    minP: number(s, "minP", 0, 0, 1),
    presencePenalty: number(s, "presencePenalty", 0, -2, 2),
    frequencyPenalty: number(s, "frequencyPenalty", 0, -2, 2),
    repetitionPenalty: positive(s, "repetitionPenalty", 1, 1e4),
    logitBias: logitBias(s, limits.vocabSize),
    stop: stopStrings(s),
    stopTokenIds: new Set(s.ignoreEos ? own : [...own, ...limits.eosTokenIds]),
    ownStopTokenIds: new Set(own),
    maxTokens,
    minTokens: integer(s, "minTokens", 0, 0, maxTokens),
    seed: s.seed === undefined ? undefined : seedOf(s.seed),
    logprobs: s.logprobs === undefined ? undefined : integer(s, "logprobs", 0, 0, MAX_LOGPROBS),
    promptLogprobs: s.promptLogprobs ?? false,
  };
}

type NumberField = {
  [K in keyof SamplingParams]-?: Exclude<SamplingParams[K], undefined> extends number ? K : never;
}[keyof SamplingParams];

function number(
  s: SamplingParams,
  field: NumberField,
  fallback: number,
  low: number,
  high: number,
): number {
  const value = s[field] ?? fallback;
  if (typeof value === "number" && value >= low && value <= high) return value;
  const allowed = high === Number.MAX_VALUE ? `a number from ${low} up` : `${low} to ${high}`;
  throw new RequestError(`sampling.${field}`, String(value), allowed);
}

/** Like {@link number}, but 0 itself is refused. */
function positive(s: SamplingParams, field: NumberField, fallback: number, high: number): number {
  const value = number(s, field, fallback, 0, high);
  if (value > 0) return value;
  throw new RequestError(`sampling.${field}`, String(value), `above 0, at most ${high}`);
}

function integer(
  s: SamplingParams,
  field: NumberField,
  fallback: number,
  low: number,
  high: number,
): number {
  const value = s[field] ?? fallback;
  if (Number.isSafeInteger(value) && value >= low && value <= high) return value;
  const allowed =
    high === Number.MAX_SAFE_INTEGER
      ? `an integer from ${low} up`
      : `an integer from ${low} to ${high}`;
  throw new RequestError(`sampling.${field}`, String(value), allowed);
}

function seedOf(seed: number): number {
  if (Number.isSafeInteger(seed)) return seed;
  throw new RequestError("sampling.seed", String(seed), "an integer within ±(2^53 − 1)");
}

function checkTokenIds(field: string, ids: readonly number[], vocabSize: number): void {
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i] as number;
    if (Number.isInteger(id) && id >= 0 && id < vocabSize) continue;
    throw new RequestError(`${field}[${i}]`, String(id), `a token id from 0 to ${vocabSize - 1}`);
  }
}

function logitBias(s: SamplingParams, vocabSize: number): [number, number][] {
  const entries = Object.entries(s.logitBias ?? {});
  if (entries.length > MAX_BIASED_TOKENS) {
    throw new RequestError(
      "sampling.logitBias",
      `${entries.length} entries`,
      `at most ${MAX_BIASED_TOKENS}`,
    );
  }
  return entries.map(([key, bias]) => {
    const id = Number(key);
    if (!(Number.isInteger(id) && id >= 0 && id < vocabSize)) {
      throw new RequestError(
        "sampling.logitBias",
        `key ${key}`,
        `token ids from 0 to ${vocabSize - 1}`,
      );
    }
    if (!(typeof bias === "number" && Math.abs(bias) <= 100)) {
      throw new RequestError(`sampling.logitBias[${key}]`, String(bias), "−100 to 100");
    }
    return [id, bias];
  });
}

function stopStrings(s: SamplingParams): readonly string[] {
  const stop = s.stop ?? [];
  if (stop.length > MAX_STOP_STRINGS) {
    throw new RequestError(
      "sampling.stop",
      `${stop.length} strings`,
      `at most ${MAX_STOP_STRINGS}`,
    );
  }
  for (const [i, text] of stop.entries()) {
    if (typeof text === "string" && text.length > 0 && text.length <= MAX_STOP_CHARS) continue;
    throw new RequestError(
      `sampling.stop[${i}]`,
      typeof text === "string" ? `${text.length} characters` : typeof text,
      `a string of 1 to ${MAX_STOP_CHARS} characters`,
    );
  }
  return stop;
}
