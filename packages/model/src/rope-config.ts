// Rotary position embedding as config.json asks for it: plain, linearly scaled, or YaRN, under the
// hub's old keys (rope_scaling, type) and transformers' new ones (rope_parameters, rope_type).

import type { FieldReader } from "./json-reader.ts";

/** YaRN's knobs; names as in DeepSeek's files. */
export interface YarnConfig {
  readonly factor: number;
  readonly originalMaxPositions: number;
  readonly betaFast: number;
  readonly betaSlow: number;
  readonly mscale: number;
  readonly mscaleAllDim: number;
  /** Round the correction range to whole dimensions, as DeepSeek's code does. */
  readonly truncate: boolean;
}

export interface RopeConfig {
  readonly type: "default" | "linear" | "yarn";
  readonly theta: number;
  /** Pairs are neighbours (2i, 2i+1), as DeepSeek trains them; else halves (i, i + d/2). */
  readonly interleaved: boolean;
  /** Positions are divided by this (`linear` only; 1 otherwise). */
  readonly linearFactor: number;
  readonly yarn: YarnConfig | undefined;
}

/** Reads the rotary part of a config. @throws ConfigError */
export function readRope(reader: FieldReader, dim: number): RopeConfig {
  const scaling = reader.object("rope_parameters") ?? reader.object("rope_scaling");
  const theta = scaling?.raw("rope_theta") === undefined ? reader : scaling;
  const typeKey = scaling?.raw("rope_type") === undefined ? "type" : "rope_type";
  const type =
    scaling === undefined
      ? "default"
      : scaling.choice(
          typeKey,
          ["default", "linear", "yarn"],
          scaling.raw("factor") === undefined ? "default" : undefined,
          ": this kind of rotary scaling is not implemented",
        );
  reader.raw("rope_theta");
  const partial = scaling?.raw("partial_rotary_factor") ?? reader.raw("partial_rotary_factor");
  if (partial !== undefined && partial !== 1) {
    reader.fail(
      "partial_rotary_factor",
      `is ${partial}: qk_rope_head_dim (${dim}) already says it`,
    );
  }
  return {
    type,
    theta: theta.number("rope_theta", 0, 10000),
    interleaved: reader.boolean("rope_interleave", true),
    linearFactor: type === "linear" ? (scaling as FieldReader).number("factor", 0) : 1,
    yarn: type === "yarn" ? readYarn(scaling as FieldReader, reader) : undefined,
  };
}

function readYarn(scaling: FieldReader, reader: FieldReader): YarnConfig {
  const factor = scaling.number("factor", 0);
  const attentionFactor = scaling.raw("attention_factor");
  if (attentionFactor !== undefined) {
    scaling.fail(
      "attention_factor",
      `${scaling.show("attention_factor")}: DeepSeek's code takes mscale and mscale_all_dim`,
    );
  }
  // DeepSeek's own code defaults to 4096 only in its layer; the files always say it.
  const original = scaling.optionalInteger("original_max_position_embeddings", 1);
  return {
    factor,
    originalMaxPositions: original ?? reader.integer("original_max_position_embeddings", 1, 4096),
    betaFast: scaling.number("beta_fast", 0, 32),
    betaSlow: scaling.number("beta_slow", 0, 1),
    mscale: scaling.number("mscale", -1, 1),
    mscaleAllDim: scaling.number("mscale_all_dim", -1, 0),
    truncate: scaling.boolean("truncate", true),
  };
}
