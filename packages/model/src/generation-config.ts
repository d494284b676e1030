// What generation_config.json recommends for sampling, and which tokens end a text.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { readTokenIds } from "./config.ts";
import { FieldReader, type JsonObject, readJsonObject } from "./json-reader.ts";

/** Settings a model's authors recommend; what they leave out is undefined. */
export interface GenerationDefaults {
  readonly eosTokenIds: readonly number[];
  readonly bosTokenId: number | undefined;
  /** False means greedy. */
  readonly doSample: boolean | undefined;
  readonly temperature: number | undefined;
  readonly topP: number | undefined;
  readonly topK: number | undefined;
  readonly minP: number | undefined;
  readonly repetitionPenalty: number | undefined;
  readonly maxNewTokens: number | undefined;
}

/** Reads `<dir>/generation_config.json`; all undefined if there is none. @throws ConfigError */
export function loadGenerationDefaults(dir: string): GenerationDefaults {
  const path = join(dir, "generation_config.json");
  const json = existsSync(path) ? readJsonObject(path, "generation_config.json") : {};
  return parseGenerationDefaults(json);
}

export function parseGenerationDefaults(json: JsonObject): GenerationDefaults {
  const reader: FieldReader = new FieldReader("generation_config.json", json);
  const number = (
    key: string,
    least: number,
    most = Number.POSITIVE_INFINITY,
  ): number | undefined => {
    const value = reader.raw(key);
    if (value === undefined) return undefined;
    if (typeof value !== "number" || !(value >= least && value <= most)) {
      reader.fail(key, `${reader.show(key)}; expected a number from ${least} to ${most}`);
    }
    return value;
  };
  const doSample = reader.raw("do_sample");
  return {
    eosTokenIds: readTokenIds(reader, "eos_token_id"),
    bosTokenId: reader.optionalInteger("bos_token_id", 0),
    doSample: doSample === undefined ? undefined : reader.boolean("do_sample", false),
    temperature: number("temperature", 0),
    topP: number("top_p", 0, 1),
    topK: number("top_k", -1),
    minP: number("min_p", 0, 1),
    repetitionPenalty: number("repetition_penalty", 0),
    maxNewTokens: reader.optionalInteger("max_new_tokens", 1),
  };
}
