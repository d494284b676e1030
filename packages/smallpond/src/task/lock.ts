// One driver at a time: a file in the job's folder names the process that drives it, and its time
// is renewed while that process lives. A lock whose process is dead, or on another host silent, is
// taken over.

import { randomUUID } from "node:crypto";
import { readFileSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { JobLockedError } from "../errors.ts";
import { isAlive } from "../process-alive.ts";

interface Holder {
  readonly pid: number;
  readonly host: string;
  /** When the process began, in the kernel's ticks; tells a process from a later one of its id. */
  readonly began: string;
  readonly token: string;
}

const beatMs = 2_000;
/** A lock of another host that nobody renews for so long is stale. */
const silentMs = 3 * beatMs;
/** How long a takeover waits for another one that had the same thought. */
const settleMs = 60;

/** The right to drive a job. */
export class JobLock {
  readonly #path: string;
  readonly #token: string;
  #timer: NodeJS.Timeout | undefined;

  private constructor(path: string, token: string) {
    this.#path = path;
    this.#token = token;
  }

  /**
   * @param onLost Called once if another driver took the lock: this process was taken for dead.
   * @throws JobLockedError
   */
  static async acquire(root: string, onLost: (error: JobLockedError) => void): Promise<JobLock> {
    const path = join(root, "lock");
    const token = randomUUID();
    const mine: Holder = {
      pid: process.pid,
      host: hostname(),
      began: beginOf(process.pid) ?? "",
      token,
    };
    const lock = new JobLock(path, token);
    if (!writeNew(path, mine)) {
      await expectStale(root, path);
      const aside = `${path}.${token}`;
      writeFileSync(aside, JSON.stringify(mine));
      renameSync(aside, path);
      await sleep(settleMs);
      const holder = read(path);
      if (holder?.token !== token) throw new JobLockedError(root, nameOf(holder));
    }
    lock.#beat(root, onLost);
    return lock;
  }

  #beat(root: string, onLost: (error: JobLockedError) => void): void {
    this.#timer = setInterval(() => {
      const holder = read(this.#path);
      if (holder !== undefined && holder.token !== this.#token) {
        clearInterval(this.#timer);
        onLost(new JobLockedError(root, nameOf(holder)));
        return;
      }
      try {
        const now = new Date();
        utimesSync(this.#path, now, now);
      } catch {
        // A file system that is away for a while; the job's own work will say so.
      }
    }, beatMs);
    this.#timer.unref();
  }

  release(): void {
    clearInterval(this.#timer);
    if (read(this.#path)?.token === this.#token) rmSync(this.#path, { force: true });
  }
}

function writeNew(path: string, holder: Holder): boolean {
  try {
    writeFileSync(path, JSON.stringify(holder), { flag: "wx" });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

function read(path: string): Holder | undefined {
  try {
    return JSON.parse(readFileSync(path, "utf8")) as Holder;
  } catch {
    return undefined;
  }
}

/** Throws unless whoever holds the lock is dead or, on another host, silent. */
async function expectStale(root: string, path: string): Promise<void> {
  const holder = read(path);
  if (holder?.host === hostname()) {
    const began = beginOf(holder.pid);
    const same = holder.began === "" || began === undefined || began === holder.began;
    if (same && isAlive(holder.pid)) throw new JobLockedError(root, nameOf(holder));
    return;
  }
  // Clocks of hosts differ: what counts is whether the time moves, not what it is.
  const before = timeOf(path);
  for (let waitedMs = 0; waitedMs < silentMs; waitedMs += beatMs / 4) {
    await sleep(beatMs / 4);
    if (timeOf(path) !== before) throw new JobLockedError(root, nameOf(read(path)));
  }
}

const timeOf = (path: string): number | undefined =>
  statSync(path, { throwIfNoEntry: false })?.mtimeMs;

function nameOf(holder: Holder | undefined): string {
  return holder === undefined ? "another process" : `process ${holder.pid} on ${holder.host}`;
}

/** Start of a process where the kernel tells; undefined elsewhere. */
function beginOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The name, in parentheses, may hold anything; the 20th field after it is the time.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    // Dead, and its parent has not asked how.
    return fields[0] === "Z" ? "ended" : fields[19];
  } catch {
    return undefined;
  }
}
