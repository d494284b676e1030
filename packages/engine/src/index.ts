// Base of all errors here and the type of `EngineClient.failed`.
export { InfraError } from "@open-infra/errors";
export type * from "./api.ts";
export { startEngine } from "./client.ts";
export {
  EngineOptionError,
  EngineOverloadedError,
  EngineStoppedError,
  LogitsError,
  RequestError,
} from "./errors.ts";
export type { EngineOptions, LoadPhase } from "./options.ts";
