// Where smallpond's jobs lie, and how the console's page gets at them.

import { stat } from "node:fs/promises";
import { homedir } from "node:os";
import { basename, join, resolve } from "node:path";
import type { JobViewerOptions } from "@open-infra/server";
import { JobLister } from "@open-infra/smallpond";
import type { CliContext } from "./context.ts";

/** Where jobs lie, unless the caller or the environment says otherwise. */
export function dataRootOf(flags: { readonly dataRoot?: string }, context: CliContext): string {
  const { SP_DATA_ROOT } = context.process.env;
  const standard = join(homedir(), ".cache", "open-infra", "smallpond");
  return resolve(flags.dataRoot ?? (SP_DATA_ROOT || standard));
}

/** Jobs under a data root, as the viewer wants them. */
export function jobsUnder(dataRoot: string): Pick<JobViewerOptions, "list" | "logOf"> {
  const jobs = new JobLister(dataRoot);
  return {
    list: async () => await jobs.list(),
    // Only names of the folder itself: nothing of a request becomes a path.
    logOf: async (job) => {
      if (job !== basename(job) || job.startsWith(".")) return undefined;
      const file = join(dataRoot, job, "log", "events.jsonl");
      return (await stat(file).catch(() => undefined))?.isFile() ? file : undefined;
    },
  };
}
