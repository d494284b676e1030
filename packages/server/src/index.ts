// OpenAI-compatible HTTP API over the engine.

export { createApp } from "./app.ts";
export {
  ApiError,
  type ErrorBody,
  ListenError,
  PortInUseError,
  ServerOptionError,
} from "./errors.ts";
export { type JobViewerOptions, startJobViewer } from "./job-viewer.ts";
export type { ConsoleFiles, LoadProgress, LogLevel, ServerOptions } from "./options.ts";
export type { ServerEnv } from "./scope.ts";
export { type RunningServer, type StartServerOptions, startServer } from "./server.ts";
export { type Phase, type ServerParts, version } from "./state.ts";
export { startViewer, type ViewerOptions } from "./viewer.ts";
export type { RunningViewer } from "./viewer-app.ts";
