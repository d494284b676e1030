// Entry of the `open-infra` command: runs the application on this process and sets its exit status.

import { ExitCode, run } from "@stricli/core";
import { app } from "./app.ts";
import type { CliContext } from "./context.ts";

// Node types an unset exit code as undefined, stricli as absent; they mean the same.
const context: CliContext = { process: process as CliContext["process"] };

// Whoever reads our output may have enough of it: `open-infra trace analyze FILE | head`.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
  process.exit();
});
// The parser takes a flag of one letter with one dash only; two mean the same. What comes after a
// lone `--` is another program's.
const given = process.argv.slice(2);
const end = given.indexOf("--");
const args = given.map((arg, i) =>
  end >= 0 && i > end ? arg : arg.replace(/^--(?=[a-z](?:=|$))/i, "-"),
);
await run(app, args, context);

// Stricli's own codes are negative; a shell knows 2 as 'wrong usage' and 1 as 'failed'.
const code = process.exitCode;
if (code === ExitCode.InvalidArgument || code === ExitCode.UnknownCommand) process.exitCode = 2;
else if (typeof code === "number" && code < 0) process.exitCode = 1;
