// How a finished task becomes visible: its folder is renamed from staging to `output/<key>`, once.
// Whoever is second (a retry, a speculative copy) throws its own work away and takes the first
// one's result. A folder under `output` is always whole, so a restarted job takes it as done; one
// that is damaged since (a truncated file) is removed, and its task runs again.

import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { rm } from "node:fs/promises";
import { join, relative } from "node:path";
import type { DataSet } from "../dataset/dataset.ts";
import { checkpointFolder, checkpointSuffix } from "./checkpoint-chain.ts";
import { expectSpace, namedDiskError, type StorageOptions } from "./disk.ts";
import type { TaskMetrics, TaskResult } from "./task.ts";

const resultFile = "result.json";
/** Times a damaged result is cleared away for a new one. */
const commitTries = 3;

/** Paths of a job. */
export class JobFolder {
  readonly root: string;
  readonly #storage: StorageOptions;
  readonly #outputs: string;
  /** Names under `output` when the job began. */
  #atStart: Set<string> | undefined;
  #serial = 0;
  #removals: Promise<void> = Promise.resolve();

  constructor(root: string, storage: StorageOptions = {}) {
    this.root = root;
    this.#storage = storage;
    this.#outputs = `${join(root, "output")}/`;
  }

  create(): void {
    for (const name of ["output", "staging", "items", "log"]) {
      mkdirSync(join(this.root, name), { recursive: true });
    }
  }

  /**
   * Removes what attempts of an earlier run left, but for checkpoints of tasks that are not done.
   * For whoever alone drives the job.
   */
  clearStaging(): void {
    for (const name of readdirSync(join(this.root, "staging"))) {
      const key = name.endsWith(checkpointSuffix) && name.slice(0, -checkpointSuffix.length);
      if (key !== false && !exists(this.output(key))) continue;
      this.#discard(join(this.root, "staging", name));
    }
  }

  output(key: string): string {
    return this.#outputs + key;
  }

  /** The task in whose output a file lies; undefined for others' files. */
  ownerOf(path: string): string | undefined {
    if (!path.startsWith(this.#outputs)) return undefined;
    const from = this.#outputs.length;
    const to = path.indexOf("/", from);
    return to < 0 ? undefined : path.slice(from, to);
  }

  /** Where the driver keeps rows that came from memory. */
  item(name: string): string {
    return join(this.root, "items", name);
  }

  /** A folder for one attempt; different for every attempt of every executor. */
  staging(key: string, attempt: string): string {
    return join(this.root, "staging", `${key}.${attempt}`);
  }

  /** A folder for an attempt on an executor, found again by {@link abandoned}. */
  attempt(key: string, attempt: number, executor: string): string {
    return this.staging(key, `${attempt}.${this.#serial++}.${executor}`);
  }

  /** Where an executor's engines spill. */
  spill(executor: string): string {
    return join(this.root, "staging", `spill.${executor}`);
  }

  /** Removes what the attempts of an executor left that is gone. */
  abandoned(executor: string): void {
    let names: string[];
    try {
      names = readdirSync(join(this.root, "staging"));
    } catch {
      return;
    }
    for (const name of names) {
      const owner = /^(?:[0-9a-f]+\.\d+\.\d+|spill)\.(.*)$/.exec(name)?.[1];
      if (owner === executor) this.#discard(join(this.root, "staging", name));
    }
  }

  /** All removals that were begun are done. */
  async settled(): Promise<void> {
    await this.#removals;
  }

  /**
   * The result of a task that some attempt has finished, or undefined. A damaged one is removed.
   *
   * @param fresh False: only what was there when the job began; a look at a folder's names rather
   *   than one at each task's folder.
   */
  finished(key: string, fresh = true): TaskResult | undefined {
    if (!fresh) {
      this.#atStart ??= new Set(namesIn(this.#outputs));
      if (!this.#atStart.has(key)) return undefined;
    }
    const folder = this.output(key);
    let record: Pick<TaskResult, "outputs" | "metrics">;
    try {
      record = JSON.parse(readFileSync(join(folder, resultFile), "utf8"));
      const absolute = (path: string): string => (path.startsWith("/") ? path : join(folder, path));
      const outputs = record.outputs.map((data) => mapPaths(data, absolute));
      if (outputs.every((data) => this.#intact(data))) {
        return { key, outputs, metrics: record.metrics };
      }
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "ENOENT" && !exists(folder)) return undefined;
      // Rights or a network that fails are no damage.
      if (code !== undefined && code !== "ENOENT") throw error;
    }
    this.remove(key);
    return undefined;
  }

  /** Whether the job's own files of a result are there in full. */
  #intact(data: DataSet): boolean {
    return data.parts.every((part) => {
      if (this.ownerOf(part.path) === undefined) return true;
      const info = statSync(part.path, { throwIfNoEntry: false });
      return info?.isFile() === true && (part.bytes === undefined || info.size === part.bytes);
    });
  }

  /** Takes a result out of sight by one rename, then deletes it. */
  remove(key: string): void {
    this.#discard(this.output(key));
  }

  /** Out of sight at once, off the disk soon. */
  #discard(path: string): void {
    const trash = this.staging(`trash.${process.pid}`, `${Date.now()}.${this.#serial++}`);
    try {
      renameSync(path, trash);
    } catch {
      return;
    }
    const removal = rm(trash, { recursive: true, force: true }).catch(() => {});
    this.#removals = Promise.all([this.#removals, removal]).then(() => {});
  }

  /**
   * Publishes an attempt's folder. Gives the result that counts, its own or an earlier one's.
   *
   * @throws DiskError if there is no room; nothing is visible then
   */
  commit(
    key: string,
    staging: string,
    outputs: readonly DataSet[],
    metrics: TaskMetrics,
  ): TaskResult {
    const inside = `${staging}/`;
    const local = (path: string): string =>
      path.startsWith(inside) ? relative(staging, path) : path;
    const record = { outputs: outputs.map((data) => mapPaths(data, local)), metrics };
    try {
      expectSpace(this.root, this.#storage.minFreeDiskBytes ?? 0);
      writeFileSync(join(staging, resultFile), JSON.stringify(record));
      if (this.#storage.durable) syncTree(staging);
      const earlier = this.#publish(key, staging);
      // What led to it is of no more use; an attempt that still adds to it finds no folder.
      const checkpoints = checkpointFolder(staging, key);
      if (checkpoints !== undefined && exists(checkpoints)) this.#discard(checkpoints);
      if (earlier !== undefined) return earlier;
      if (this.#storage.durable) syncFolder(this.#outputs);
    } catch (error) {
      throw namedDiskError(error, this.root);
    }
    const moved = (path: string): string =>
      path.startsWith(inside) ? `${this.output(key)}/${path.slice(inside.length)}` : path;
    return { key, outputs: outputs.map((data) => mapPaths(data, moved)), metrics };
  }

  /** Renames; gives the result of whoever was first, if it was another. */
  #publish(key: string, staging: string): TaskResult | undefined {
    for (let tries = 1; ; tries++) {
      try {
        renameSync(staging, this.output(key));
        return undefined;
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        if ((code !== "ENOTEMPTY" && code !== "EEXIST") || tries >= commitTries) throw error;
      }
      const earlier = this.finished(key);
      if (earlier === undefined) continue;
      rmSync(staging, { recursive: true, force: true });
      return earlier;
    }
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function exists(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}

function syncFolder(path: string): void {
  const file = openSync(path, "r");
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

/** Every file, then the folders that name them. */
function syncTree(folder: string): void {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) syncTree(path);
    else if (entry.isFile()) syncFolder(path);
  }
  syncFolder(folder);
}

function mapPaths(data: DataSet, change: (path: string) => string): DataSet {
  const parts = data.parts.map((part) => ({ ...part, path: change(part.path) }));
  return { ...data, parts } as DataSet;
}
