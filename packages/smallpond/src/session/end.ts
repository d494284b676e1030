// How a job ends on disk: a line in `log/.STATUS`, and what is deleted.

import { appendFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";

/**
 * Appends `success@time` or `failure@time`, and after a success deletes what nobody needs.
 *
 * @param root The job's folder.
 */
export async function endJob(
  root: string,
  end: { readonly failed: boolean; readonly removeOutput: boolean },
): Promise<void> {
  const line = `${end.failed ? "failure" : "success"}@${new Date().toISOString()}\n`;
  appendFileSync(join(root, "log", ".STATUS"), line);
  if (end.failed) return;
  const names = ["staging", "queue", "temp", ...(end.removeOutput ? ["output", "items"] : [])];
  for (const name of names) await rm(join(root, name), { recursive: true, force: true });
}
