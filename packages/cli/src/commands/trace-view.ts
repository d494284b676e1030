// `open-infra trace view`: the console's timeline of one trace, served on this machine until
// stopped.

import { consoleDir } from "@open-infra/console";
import { startViewer } from "@open-infra/server";
import { type CliContext, note, printLine } from "../context.ts";
import { UsageError } from "../parse.ts";
import { openBrowser, stopSignal } from "../viewing.ts";

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
