// One compile per key across processes, without flock, which network file systems may lack: a lock
// file made with O_EXCL names its owner, and whoever waits decides whether the owner still lives.
// An owner on the same host is asked for by process id and start time, so kill -9 is noticed at
// once; any other must touch its file within its lease, measured on the waiter's own clock.
//
// Only the count of compiles rests on this. Results are published by rename, so if two owners
// should ever meet, both finish and one result stays.

import { randomUUID } from "node:crypto";
import {
  closeSync,
  openSync,
  readFileSync,
  readlinkSync,
  statSync,
  unlinkSync,
  utimesSync,
  writeSync,
} from "node:fs";
import { hostname } from "node:os";
import { threadId } from "node:worker_threads";

interface Owner {
  readonly token: string;
  /** Where process ids mean the same: boot and process-id namespace, or the host's name. */
  readonly host: string;
  readonly pid: number;
  readonly thread: number;
  /** When the process started, in the kernel's ticks; "" where that is not known. */
  readonly started: string;
  readonly leaseMs: number;
}

/** A lock file that cannot be read must be half-written; its owner has this long to finish it. */
const UNREADABLE_LEASE_MS = 2000;

/** A lock held by this process. */
export class HeldLock {
  readonly #path: string;
  readonly #token: string;

  constructor(path: string, token: string) {
    this.#path = path;
    this.#token = token;
  }

  /** Says that the owner is alive. */
  touch(): void {
    try {
      const now = new Date();
      utimesSync(this.#path, now, now);
    } catch {
      // Taken over by someone who thought us dead: they compile too, and one result stays.
    }
  }

  release(): void {
    try {
      if (readOwner(this.#path)?.owner?.token === this.#token) unlinkSync(this.#path);
    } catch {
      // Gone already.
    }
  }
}

/** One caller's attempts at one lock; remembers for how long it has seen no sign of life. */
export class LockAttempts {
  readonly #path: string;
  readonly #leaseMs: number;
  #seen = "";
  #seenSinceMs = 0;
  /** Who holds it, for messages. */
  holder = "";

  /** `leaseMs`: how long others wait for a sign of life if this caller gets the lock. */
  constructor(path: string, leaseMs: number) {
    this.#path = path;
    this.#leaseMs = leaseMs;
  }

  /**
   * The lock; undefined if another holds it; `own-thread` if that other is this very thread, which
   * cannot be waited for without standing still. @throws file-system errors other than "exists".
   */
  attempt(): HeldLock | "own-thread" | undefined {
    for (let round = 0; round < 4; round++) {
      const held = create(this.#path, this.#leaseMs);
      if (held !== undefined) return held;
      const found = readOwner(this.#path);
      if (found === undefined) continue; // Released in between.
      const { owner } = found;
      this.holder = owner ? `process ${owner.pid} on ${owner.host}` : "an unknown process";
      if (owner && isThisThread(owner)) return "own-thread";
      if (!this.#isStale(found)) return undefined;
      if (!this.#takeOver(found.raw)) return undefined;
    }
    return undefined;
  }

  #isStale(found: Found): boolean {
    const { owner } = found;
    if (owner !== undefined && owner.host === hostIdentity() && !isAlive(owner)) return true;
    const sign = `${found.raw}@${found.mtimeMs}`;
    const now = performance.now();
    if (sign !== this.#seen) {
      this.#seen = sign;
      this.#seenSinceMs = now;
    }
    return now - this.#seenSinceMs > (owner?.leaseMs ?? UNREADABLE_LEASE_MS);
  }

  /** Removes a stale lock; a second lock sees to it that nobody removes its successor. */
  #takeOver(raw: string): boolean {
    const path = `${this.#path}.takeover`;
    const guard = create(path, UNREADABLE_LEASE_MS);
    if (guard === undefined) {
      const other = readOwner(path);
      const dead = other?.owner?.host === hostIdentity() && !isAlive(other.owner);
      const old = other !== undefined && Date.now() - other.mtimeMs > 30_000;
      if (dead || old) unlinkIfThere(path);
      return false;
    }
    try {
      if (readOwner(this.#path)?.raw === raw) unlinkIfThere(this.#path);
      return true;
    } finally {
      guard.release();
    }
  }
}

/** Whether the owner of a lock file still lives, as far as this process can tell. */
export function lockIsHeld(path: string): boolean {
  const found = readOwner(path);
  if (found === undefined) return false;
  const { owner } = found;
  if (owner !== undefined && owner.host === hostIdentity()) return isAlive(owner);
  return Date.now() - found.mtimeMs < (owner?.leaseMs ?? UNREADABLE_LEASE_MS);
}

function create(path: string, leaseMs: number): HeldLock | undefined {
  let fd: number;
  try {
    fd = openSync(path, "wx", 0o644);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return undefined;
    throw error;
  }
  const owner: Owner = {
    token: randomUUID(),
    host: hostIdentity(),
    pid: process.pid,
    thread: threadId,
    started: startOf(process.pid) ?? "",
    leaseMs,
  };
  try {
    writeSync(fd, JSON.stringify(owner));
  } catch (error) {
    unlinkIfThere(path);
    throw error;
  } finally {
    closeSync(fd);
  }
  return new HeldLock(path, owner.token);
}

interface Found {
  readonly raw: string;
  readonly mtimeMs: number;
  /** Undefined if the file is half-written. */
  readonly owner: Owner | undefined;
}

function readOwner(path: string): Found | undefined {
  let raw: string;
  let mtimeMs: number;
  try {
    raw = readFileSync(path, "utf8");
    mtimeMs = statSync(path).mtimeMs;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  try {
    const owner = JSON.parse(raw) as Owner;
    const sound = typeof owner.token === "string" && Number.isSafeInteger(owner.pid);
    return { raw, mtimeMs, owner: sound && owner.leaseMs > 0 ? owner : undefined };
  } catch {
    return { raw, mtimeMs, owner: undefined };
  }
}

function isThisThread(owner: Owner): boolean {
  return (
    owner.host === hostIdentity() &&
    owner.pid === process.pid &&
    owner.thread === threadId &&
    owner.started === (startOf(process.pid) ?? "")
  );
}

function isAlive(owner: Owner): boolean {
  try {
    process.kill(owner.pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
  }
  // Another process may have got the same number since; a zombie has no start.
  if (process.platform !== "linux" || owner.started === "") return true;
  return startOf(owner.pid) === owner.started;
}

/**
 * Field 22 of /proc/PID/stat; undefined for a zombie, a dead process, or where there is no /proc.
 */
function startOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The second field is the program's name in brackets and may hold anything.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" || fields[0] === "X" ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

function hostIdentity(): string {
  try {
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
    return `${hostname()} ${boot} ${readlinkSync("/proc/self/ns/pid")}`;
  } catch {
    return hostname();
  }
}

function unlinkIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}
