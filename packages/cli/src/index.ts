// What a program may import of the command: the application and what its commands are given.

export { app } from "./app.ts";
export type { CliContext } from "./context.ts";
