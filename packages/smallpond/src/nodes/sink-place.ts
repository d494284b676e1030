// Where a sink's files go, and where they lie until all are there: beside a new folder, so that it
// can come by one rename; inside one that has files, or is a file system of its own.

import { randomUUID } from "node:crypto";
import { readdirSync, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { isRemote } from "../dataset/remote.ts";
import { openFolder } from "../session/folder-writer.ts";
import { abandonSink } from "../task/ops/sink.ts";
import type { Task } from "../task/task.ts";
import type { NodeCall } from "./options.ts";

/** An absolute path. @throws PlanError for what is no place for files */
export function sinkPath(path: string, call: NodeCall): string {
  if (typeof path !== "string" || path === "") throw call.error("path must be given");
  if (isRemote(path)) {
    throw call.error(`files are linked or copied, which cannot be done to ${path}`);
  }
  const absolute = resolve(path);
  const info = statSync(absolute, { throwIfNoEntry: false });
  if (info !== undefined && !info.isDirectory())
    throw call.error(`${path} is a file, not a folder`);
  return absolute;
}

/** A staging folder for one run of a sink; not made yet. */
export function sinkStaging(path: string): string {
  // The process's number is how others find out that it has died.
  const name = `.staging-${process.pid}-${randomUUID().slice(0, 8)}`;
  const beside = join(dirname(path), `.${basename(path)}${name}`);
  const info = statSync(path, { throwIfNoEntry: false });
  if (info === undefined) return beside;
  const parent = statSync(dirname(path));
  return readdirSync(path).length === 0 && parent.dev === info.dev ? beside : join(path, name);
}

const placesOf = (tasks: readonly Task[]) =>
  tasks.flatMap(({ op }) => (op.kind === "sink-publish" ? [op.place] : []));

/** Finishes or undoes what earlier writes that crashed left where sinks will write. */
export async function openSinks(tasks: readonly Task[]): Promise<void> {
  for (const { path } of placesOf(tasks)) await openFolder(path, "append");
}

/** Removes what sinks of an action that failed have put aside. */
export async function abandonSinks(tasks: readonly Task[]): Promise<void> {
  for (const place of placesOf(tasks)) await abandonSink(place);
}

/** Whether a sink only lists files, which then must stay. */
export function listsFiles(tasks: readonly Task[]): boolean {
  return placesOf(tasks).some(({ kind }) => kind === "manifest");
}
