// What commands share that show something in the browser until they are stopped.

import { spawn } from "node:child_process";
import { type CliContext, note } from "./context.ts";

/** Resolves at the first SIGINT or SIGTERM; there is nothing to finish. */
export function stopSignal(): Promise<void> {
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
export function openBrowser(context: CliContext, url: string): void {
  const [program, ...args] = openers[process.platform] ?? ["xdg-open"];
  const child = spawn(program, [...args, url], { stdio: "ignore", detached: true });
  child.on("error", () => note(context, `no browser could be started (${program}): open the URL`));
  child.unref();
}
