// How a finished task becomes visible: its folder is renamed from staging to `output/<key>`, once.
// Whoever is second (a retry, a speculative copy) throws its own work away and takes the first
// one's result. A folder under `output` is always whole, so a restarted job takes it as done.

import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import type { DataSet } from "../dataset/dataset.ts";
import type { TaskMetrics, TaskResult } from "./task.ts";

const resultFile = "result.json";

/** Paths of a job. */
export class JobFolder {
  readonly root: string;

  constructor(root: string) {
    this.root = root;
  }

  create(): void {
    for (const name of ["output", "staging", "items", "log"]) {
      mkdirSync(join(this.root, name), { recursive: true });
    }
  }

  output(key: string): string {
    return join(this.root, "output", key);
  }

  /** Where the driver keeps rows that came from memory. */
  item(name: string): string {
    return join(this.root, "items", name);
  }

  /** A folder for one attempt; different for every attempt of every executor. */
  staging(key: string, attempt: string): string {
    return join(this.root, "staging", `${key}.${attempt}`);
  }

  /** The result of a task that some attempt has finished, or undefined. */
  finished(key: string): TaskResult | undefined {
    let text: string;
    try {
      text = readFileSync(join(this.output(key), resultFile), "utf8");
    } catch {
      return undefined;
    }
    const { outputs, metrics } = JSON.parse(text) as Pick<TaskResult, "outputs" | "metrics">;
    const absolute = (path: string): string =>
      path.startsWith("/") ? path : join(this.output(key), path);
    return { key, outputs: outputs.map((data) => mapPaths(data, absolute)), metrics };
  }

  /** Takes a result out of sight by one rename, then deletes it. */
  remove(key: string): void {
    const trash = this.staging(key, `trash.${process.pid}.${Date.now()}`);
    try {
      renameSync(this.output(key), trash);
    } catch {
      return;
    }
    rmSync(trash, { recursive: true, force: true });
  }

  /** Publishes an attempt's folder. Gives the result that counts, its own or an earlier one's. */
  commit(
    key: string,
    staging: string,
    outputs: readonly DataSet[],
    metrics: TaskMetrics,
  ): TaskResult {
    const local = (path: string): string =>
      path.startsWith(`${staging}/`) ? relative(staging, path) : path;
    const record = { outputs: outputs.map((data) => mapPaths(data, local)), metrics };
    writeFileSync(join(staging, resultFile), JSON.stringify(record));
    try {
      renameSync(staging, this.output(key));
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== "ENOTEMPTY" && code !== "EEXIST") throw error;
      rmSync(staging, { recursive: true, force: true });
    }
    const result = this.finished(key);
    if (result === undefined) throw new Error(`output of ${key} vanished`);
    return result;
  }
}

function mapPaths(data: DataSet, change: (path: string) => string): DataSet {
  const parts = data.parts.map((part) => ({ ...part, path: change(part.path) }));
  return { ...data, parts } as DataSet;
}
