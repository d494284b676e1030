export type * from "./api.ts";
export type { ModelConfig } from "./config.ts";
