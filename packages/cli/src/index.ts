export { app } from "./app.ts";
export type { CliContext } from "./context.ts";
