// `open-infra trace view`: the console's timeline of one trace, served on this machine until
// stopped.

import { spawn } from "node:child_process";
import { consoleDir } from "@open-infra/console";
import { startViewer } from "@open-infra/server";
import { type CliContext, note, printLine } from "../context.ts";
import { UsageError } from "../parse.ts";

interface Flags {
  readonly port: number;
  readonly open: boolean;
}

export default async function traceView(
  this: CliContext,
  flags: Flags,
  file: string,
): Promise<void> {
  if (file === "-") {
    throw new UsageError("trace view needs a file: the browser reads it again when it reloads");
  }
  const stopped = stopSignal();
  await using viewer = await startViewer({ file, console: consoleDir(), port: flags.port });
  printLine(this, `ready on ${viewer.url}`);
  note(this, "Ctrl-C ends it");
  if (flags.open) openBrowser(this, viewer.url);
  await stopped;
}

/** Resolves at the first SIGINT or SIGTERM; there is nothing to finish. */
function stopSignal(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => resolve());
  });
}

const openers: Readonly<Partial<Record<NodeJS.Platform, readonly [string, ...string[]]>>> = {
  darwin: ["open"],
  // The empty word is the title of a window, which `start` takes first.
  win32: ["cmd", "/c", "start", ""],
};

/** Asks the system for a browser. That there is none is told, and no failure. */
function openBrowser(context: CliContext, url: string): void {
  const [program, ...args] = openers[process.platform] ?? ["xdg-open"];
  const child = spawn(program, [...args, url], { stdio: "ignore", detached: true });
  child.on("error", () => note(context, `no browser could be started (${program}): open the URL`));
  child.unref();
}
