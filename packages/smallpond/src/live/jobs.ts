// Jobs that left a log under a data root, running or over, and one of them by its name.

import { readdir, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { InputError } from "@open-infra/errors";
import { isAlive } from "../process-alive.ts";
import { JobFollower } from "./follow.ts";
import type { JobEntry, JobView } from "./job-view.ts";

const lockSilentMs = 10_000;

/** What is known of a log of some length. */
interface Seen {
  readonly bytes: number;
  readonly entry: JobEntry;
  /** Of a job that runs: it goes on where it was. */
  readonly follower: JobFollower | undefined;
}

/** Lists jobs again and again: of each log only what is new is read. */
export class JobLister {
  readonly #dataRoot: string;
  #seen = new Map<string, Seen>();

  constructor(dataRoot: string) {
    this.#dataRoot = dataRoot;
  }

  /** The latest first. */
  async list(): Promise<JobEntry[]> {
    const names = await readdir(this.#dataRoot).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return [];
      throw error;
    });
    const now = new Map<string, Seen>();
    for (const name of names) {
      const bytes = await logBytes(join(this.#dataRoot, name));
      if (bytes !== undefined) now.set(name, await this.#look(name, bytes));
    }
    this.#seen = now;
    return [...now.values()].map(({ entry }) => entry).sort((a, b) => b.lastMs - a.lastMs);
  }

  async #look(jobId: string, bytes: number): Promise<Seen> {
    const seen = this.#seen.get(jobId);
    if (seen?.bytes === bytes && seen.entry.state !== "running") return seen;
    const root = join(this.#dataRoot, jobId);
    const goesOn = seen !== undefined && seen.bytes <= bytes;
    const follower = (goesOn ? seen.follower : undefined) ?? new JobFollower(root);
    await follower.read();
    const { view } = follower;
    const { tasks, done } = view.progress;
    const { failures, startedMs = 0, lastMs } = view;
    const final = failures.filter((failure) => failure.final).length;
    const state = await jobState(root, view);
    const entry = { jobId, root, state, startedMs, lastMs, tasks, done, failures: final };
    return { bytes, entry, follower: state === "running" ? follower : undefined };
  }
}

/** Jobs that left a log under a data root, the latest first. */
export async function listJobs(dataRoot: string): Promise<JobEntry[]> {
  return await new JobLister(dataRoot).list();
}

/** Undefined where no job wrote a log. */
async function logBytes(root: string): Promise<number | undefined> {
  const found = await stat(join(root, "log", "events.jsonl")).catch(() => undefined);
  return found?.isFile() ? found.size : undefined;
}

/**
 * Whether a job that did not say that it ended still runs: its lock is renewed while it does, and
 * on this host there is its process.
 */
export async function jobState(
  root: string,
  view: Pick<JobView, "state" | "pid" | "host">,
): Promise<JobEntry["state"]> {
  if (view.state === "ended") return "ended";
  const lock = await stat(join(root, "lock")).catch(() => undefined);
  const isRenewed = lock !== undefined && Date.now() - lock.mtimeMs < lockSilentMs;
  if (!isRenewed || (view.host === hostname() && !isAlive(view.pid))) return "killed";
  return "running";
}

/**
 * A job's folder by its id under a data root, or by its path.
 *
 * @throws InputError that names those there are
 */
export async function findJob(job: string, dataRoot: string): Promise<string> {
  for (const root of [join(dataRoot, job), job]) {
    if ((await logBytes(root)) !== undefined) return root;
  }
  const known = (await listJobs(dataRoot)).slice(0, 8).map(({ jobId }) => jobId);
  const list = known.length === 0 ? `no job lies under ${dataRoot}` : `one of ${known.join(", ")}`;
  throw new InputError("job", job, `a job's id or folder: ${list}`);
}
