// The JSON the app reads: GET /v1/models, /api/stats and the chunks of a completion stream. The
// types name only what the app shows; the engine's own types (packages/engine/src/api.ts) fit them,
// which a test checks. Reading is strict about what is needed and blind to what is extra.

/** Sampling settings a model brings along, in the engine's names. */
export interface DefaultSampling {
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  readonly repetitionPenalty?: number;
}

/** Facts about the served model. */
export interface ModelFacts {
  readonly id: string;
  readonly architecture: string;
  readonly parameters: number;
  readonly dtype: string;
  readonly vocabSize: number;
  /** Tokens, prompt and completion together. */
  readonly maxModelLen: number;
  /** One line: backend, ISA, threads. */
  readonly device: string;
  readonly defaultSampling: DefaultSampling;
}

/** Counters since start and gauges of now. */
export interface StatsFacts {
  readonly running: number;
  readonly waiting: number;
  readonly kvBlocksUsed: number;
  readonly kvBlocksTotal: number;
  readonly kvBlockTokens: number;
  readonly prefixCacheQueriedTokens: number;
  readonly prefixCacheHitTokens: number;
  readonly promptTokens: number;
  readonly generationTokens: number;
  readonly preemptions: number;
  readonly steps: number;
  readonly lastStep: { readonly tokens: number; readonly sequences: number; readonly ms: number };
  readonly finished: Readonly<Record<string, number>>;
}

/** What /api/stats answers and /api/stats/stream sends once a second. */
export interface StatsMessage {
  readonly model: ModelFacts;
  readonly stats: StatsFacts;
  readonly uptimeSeconds: number;
}

/** One chunk of /v1/completions or /v1/chat/completions, reduced to what the app uses. */
export interface CompletionChunk {
  readonly text: string;
  readonly finishReason?: string;
  readonly usage?: TokenUsage;
}

export interface TokenUsage {
  readonly promptTokens: number;
  readonly completionTokens: number;
  /** Prompt tokens taken from the prefix cache; absent when the server does not say. */
  readonly cachedTokens?: number;
}

/** The JSON is not what the API promises; the message names the field. */
export class WireError extends Error {
  override readonly name: string = "WireError";
}

type Json = Readonly<Record<string, unknown>>;

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function objectAt(parent: Json, key: string, where: string): Json {
  const value = parent[key];
  if (isObject(value)) return value;
  throw new WireError(`${where}.${key} is ${describe(value)}, expected an object`);
}

function numberAt(parent: Json, key: string, where: string): number {
  const value = parent[key];
  if (typeof value === "number" && Number.isFinite(value)) return value;
  throw new WireError(`${where}.${key} is ${describe(value)}, expected a number`);
}

function stringAt(parent: Json, key: string, where: string): string {
  const value = parent[key];
  if (typeof value === "string") return value;
  throw new WireError(`${where}.${key} is ${describe(value)}, expected a string`);
}

function describe(value: unknown): string {
  if (value === undefined) return "missing";
  const text = JSON.stringify(value);
  return text.length > 40 ? `${text.slice(0, 40)}…` : text;
}

function parseJson(text: string, where: string): Json {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new WireError(`${where} is not JSON: ${describe(text)}`);
  }
  if (isObject(value)) return value;
  throw new WireError(`${where} is ${describe(value)}, expected an object`);
}

/** @throws WireError naming the field that is missing or of the wrong type. */
export function parseStatsMessage(text: string): StatsMessage {
  const json = parseJson(text, "stats");
  const model = objectAt(json, "model", "stats");
  const stats = objectAt(json, "stats", "stats");
  return {
    model: parseModel(model),
    stats: parseStats(stats),
    uptimeSeconds: numberAt(json, "uptimeSeconds", "stats"),
  };
}

function parseModel(model: Json): ModelFacts {
  const text = (key: string): string => stringAt(model, key, "model");
  const count = (key: string): number => numberAt(model, key, "model");
  return {
    id: text("id"),
    architecture: text("architecture"),
    parameters: count("parameters"),
    dtype: text("dtype"),
    vocabSize: count("vocabSize"),
    maxModelLen: count("maxModelLen"),
    device: text("device"),
    defaultSampling: parseDefaults(model.defaultSampling),
  };
}

const DEFAULT_KEYS = ["temperature", "topK", "topP", "minP", "repetitionPenalty"] as const;

function parseDefaults(value: unknown): DefaultSampling {
  if (!isObject(value)) return {};
  const found: Partial<Record<(typeof DEFAULT_KEYS)[number], number>> = {};
  for (const key of DEFAULT_KEYS) {
    const setting = value[key];
    if (typeof setting === "number") found[key] = setting;
  }
  return found;
}

function parseStats(stats: Json): StatsFacts {
  const count = (key: string): number => numberAt(stats, key, "stats");
  const step = objectAt(stats, "lastStep", "stats");
  const finished = objectAt(stats, "finished", "stats");
  return {
    running: count("running"),
    waiting: count("waiting"),
    kvBlocksUsed: count("kvBlocksUsed"),
    kvBlocksTotal: count("kvBlocksTotal"),
    kvBlockTokens: count("kvBlockTokens"),
    prefixCacheQueriedTokens: count("prefixCacheQueriedTokens"),
    prefixCacheHitTokens: count("prefixCacheHitTokens"),
    promptTokens: count("promptTokens"),
    generationTokens: count("generationTokens"),
    preemptions: count("preemptions"),
    steps: count("steps"),
    lastStep: {
      tokens: numberAt(step, "tokens", "lastStep"),
      sequences: numberAt(step, "sequences", "lastStep"),
      ms: numberAt(step, "ms", "lastStep"),
    },
    finished: Object.fromEntries(
      Object.keys(finished).map((reason) => [reason, numberAt(finished, reason, "finished")]),
    ),
  };
}

/** Ids in the order the server lists them. @throws WireError */
export function parseModels(text: string): string[] {
  const { data } = parseJson(text, "models");
  if (!Array.isArray(data)) {
    throw new WireError(`models.data is ${describe(data)}, expected an array`);
  }
  return data.map((entry: unknown, index) => {
    if (isObject(entry)) return stringAt(entry, "id", `models.data[${index}]`);
    throw new WireError(`models.data[${index}] is ${describe(entry)}, expected an object`);
  });
}

/**
 * Reads a chunk of either endpoint: `choices[0].text` or `choices[0].delta.content`.
 * @throws WireError when the chunk has neither choices nor usage.
 */
export function parseChunk(text: string): CompletionChunk {
  const json = parseJson(text, "chunk");
  const { choices } = json;
  if (!Array.isArray(choices)) {
    throw new WireError(`chunk.choices is ${describe(choices)}, expected an array`);
  }
  const choice: unknown = choices[0];
  const usage = isObject(json.usage) ? parseUsage(json.usage) : undefined;
  if (!isObject(choice)) return { text: "", ...(usage && { usage }) };
  const delta = isObject(choice.delta) ? choice.delta.content : choice.text;
  const reason = choice.finish_reason;
  return {
    text: typeof delta === "string" ? delta : "",
    ...(typeof reason === "string" && { finishReason: reason }),
    ...(usage && { usage }),
  };
}

function parseUsage(usage: Json): TokenUsage {
  const details = usage.prompt_tokens_details;
  const cached = isObject(details) ? details.cached_tokens : undefined;
  return {
    promptTokens: numberAt(usage, "prompt_tokens", "usage"),
    completionTokens: numberAt(usage, "completion_tokens", "usage"),
    ...(typeof cached === "number" && { cachedTokens: cached }),
  };
}
