export type * from "./api.ts";
export {
  EngineOptionError,
  EngineOverloadedError,
  EngineStoppedError,
  LogitsError,
  RequestError,
} from "./errors.ts";
