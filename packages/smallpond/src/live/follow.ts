// Reads a job's log into a view, once or as it grows. The job may run in another process, on
// another host of the shared file system, or be over.

import { open, readdir, readFile, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { InputError } from "@open-infra/errors";
import { JobView } from "./job-view.ts";
import type { LogLine } from "./log-lines.ts";

const chunkBytes = 1 << 20;
const lockSilentMs = 10_000;

/** Follows one job. */
export class JobFollower {
  readonly view: JobView = new JobView();
  readonly root: string;
  #at = 0;
  #rest = "";
  readonly #decoder = new TextDecoder();
  #turn: Promise<unknown> = Promise.resolve();

  /** @param root The job's folder. */
  constructor(root: string) {
    this.root = root;
  }

  /** Takes what was written since; false if there was nothing, or no log yet. */
  async read(): Promise<boolean> {
    // One at a time: two side by side would take the same lines twice.
    const read = this.#turn.then(async () => await this.#readOn());
    this.#turn = read.catch(() => {});
    return await read;
  }

  async #readOn(): Promise<boolean> {
    const file = await open(join(this.root, "log", "events.jsonl")).catch(() => undefined);
    if (file === undefined) return false;
    let got = false;
    try {
      const buffer = new Uint8Array(chunkBytes);
      for (;;) {
        const { bytesRead } = await file.read(buffer, 0, chunkBytes, this.#at);
        if (bytesRead === 0) return got;
        got = true;
        this.#at += bytesRead;
        this.#feed(this.#decoder.decode(buffer.subarray(0, bytesRead), { stream: true }));
      }
    } finally {
      await file.close();
    }
  }

  #feed(text: string): void {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop() as string;
    for (const line of lines) {
      if (line === "") continue;
      try {
        this.view.take(JSON.parse(line) as LogLine);
      } catch {
        // A line that a killed writer left half; the next one begins anew.
      }
    }
  }
}

/** A job under a data root. */
export interface JobEntry {
  readonly jobId: string;
  readonly root: string;
  readonly state: "running" | "ended" | "killed";
  readonly startedMs: number;
  readonly lastMs: number;
  readonly tasks: number;
  readonly done: number;
  readonly failures: number;
}

/** Jobs that left a log under a data root, the latest first. */
export async function listJobs(dataRoot: string): Promise<JobEntry[]> {
  const names = await readdir(dataRoot).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw error;
  });
  const jobs: JobEntry[] = [];
  for (const name of names) {
    const root = join(dataRoot, name);
    const isJob = await stat(join(root, "log", "events.jsonl")).catch(() => undefined);
    if (isJob !== undefined) jobs.push(await entryOf(name, root));
  }
  return jobs.sort((a, b) => b.lastMs - a.lastMs);
}

async function entryOf(jobId: string, root: string): Promise<JobEntry> {
  const follower = new JobFollower(root);
  await follower.read();
  const { view } = follower;
  const { tasks, done } = view.progress;
  const { failures, startedMs = 0, lastMs } = view;
  const final = failures.filter((failure) => failure.final).length;
  const state = await jobState(root, view);
  return { jobId, root, state, startedMs, lastMs, tasks, done, failures: final };
}

/**
 * Whether a job that did not say that it ended still runs: its lock is renewed while it does, and on
 * this host there is its process.
 */
export async function jobState(
  root: string,
  view: Pick<JobView, "state" | "pid" | "host">,
): Promise<JobEntry["state"]> {
  if (view.state === "ended") return "ended";
  const lock = await stat(join(root, "lock")).catch(() => undefined);
  const isRenewed = lock !== undefined && Date.now() - lock.mtimeMs < lockSilentMs;
  if (!isRenewed || (view.host === hostname() && !isThere(view.pid))) return "killed";
  return "running";
}

function isThere(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // Another user's is there, too.
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/**
 * A job's folder by its id under a data root, or by its path.
 *
 * @throws InputError that names those there are
 */
export async function findJob(job: string, dataRoot: string): Promise<string> {
  for (const root of [join(dataRoot, job), job]) {
    const tasks = await readFile(join(root, "log", "events.jsonl")).catch(() => undefined);
    if (tasks !== undefined) return root;
  }
  const known = (await listJobs(dataRoot)).slice(0, 8).map(({ jobId }) => jobId);
  const list = known.length === 0 ? `no job lies under ${dataRoot}` : `one of ${known.join(", ")}`;
  throw new InputError("job", job, `a job's id or folder: ${list}`);
}
