// The configuration of a DeepSeek-architecture model, read from config.json.

/** Completed by the model's owner; field names are the hub's in camelCase. */
export interface ModelConfig {
  readonly vocabSize: number;
  readonly maxPositionEmbeddings: number;
}
