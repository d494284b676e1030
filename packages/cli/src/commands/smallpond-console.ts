// `open-infra smallpond console`: jobs of a data root in the browser, running or over.

import { basename, dirname } from "node:path";
import { consoleDir } from "@open-infra/console";
import { startJobViewer } from "@open-infra/server";
import { findJob } from "@open-infra/smallpond";
import { type CliContext, note, printLine } from "../context.ts";
import { dataRootOf, jobsUnder } from "../smallpond-jobs.ts";
import { openBrowser, stopSignal } from "../viewing.ts";

interface Flags {
  readonly dataRoot?: string;
  readonly port: number;
  readonly open: boolean;
}

export default async function show(this: CliContext, flags: Flags, job?: string): Promise<void> {
  const root = job === undefined ? undefined : await findJob(job, dataRootOf(flags, this));
  const dataRoot = root === undefined ? dataRootOf(flags, this) : dirname(root);
  const stopped = stopSignal();
  await using viewer = await startJobViewer({
    ...jobsUnder(dataRoot),
    ...(root !== undefined && { job: basename(root) }),
    ...{ console: consoleDir(), port: flags.port },
  });
  printLine(this, `ready on ${viewer.url}`);
  note(this, "Ctrl-C ends it");
  if (flags.open) openBrowser(this, viewer.url);
  await stopped;
}
