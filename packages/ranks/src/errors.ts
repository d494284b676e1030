// The errors of a group. Each names the rank and its host, the operation, and what was awaited, as
// fields and in the sentence, because "timed out" alone is what the originals' users complain of.

import { InfraError } from "@open-infra/errors";

/** Where a rank is, for people: `rank 3 (host-a, process 4711)`. */
export interface RankName {
  readonly rank: number;
  readonly host: string;
  readonly pid: number;
}

export function describeRank({ rank, host, pid }: RankName): string {
  return `rank ${rank} (${host}, process ${pid})`;
}

/** What a rank was doing when it failed. */
export interface FailureFacts {
  /** The rank that tells. */
  readonly rank: number;
  /** The rank that is to blame as far as this one can see; −1 if none. */
  readonly peer: number;
  readonly operation: string;
  readonly awaited: string;
  readonly waitedMs: number;
}

/** A failure of the group; the base of those below. Nothing of the group can be used after it. */
export class GroupError extends InfraError {
  readonly rank: number;
  readonly peer: number;
  readonly operation: string;
  readonly awaited: string;
  readonly waitedMs: number;

  constructor(code: string, message: string, facts: FailureFacts, options?: ErrorOptions) {
    super(code, message, options);
    this.rank = facts.rank;
    this.peer = facts.peer;
    this.operation = facts.operation;
    this.awaited = facts.awaited;
    this.waitedMs = facts.waitedMs;
  }
}

/** A peer is there but did not send in time: frozen, slow, or in another operation. */
export class RankTimeoutError extends GroupError {
  constructor(message: string, facts: FailureFacts, options?: ErrorOptions) {
    super("rank-timeout", message, facts, options);
  }
}

/** A peer's thread, process or connection is gone. */
export class RankDeadError extends GroupError {
  constructor(message: string, facts: FailureFacts, options?: ErrorOptions) {
    super("rank-dead", message, facts, options);
  }
}

/** Another rank failed first, or somebody called `abort`; the message is that failure's. */
export class GroupAbortedError extends GroupError {
  constructor(message: string, facts: FailureFacts, options?: ErrorOptions) {
    super("group-aborted", message, facts, options);
  }
}

/** Ranks disagree about what they do together: shapes, sizes, options. */
export class RankMismatchError extends GroupError {
  constructor(message: string, facts: FailureFacts, options?: ErrorOptions) {
    super("rank-mismatch", message, facts, options);
  }
}

/** The group, a window or a stream was used after it was closed. */
export class GroupClosedError extends InfraError {
  constructor(what: string) {
    super("group-closed", `${what} was used after it was closed`);
  }
}

/** What the system may say, by its number on Linux. */
const errnoNames: Readonly<Record<number, string>> = {
  2: "ENOENT, no such file",
  11: "EAGAIN, no more threads or processes",
  12: "ENOMEM, not enough memory",
  13: "EACCES, not allowed",
  22: "EINVAL, not a usable size",
  23: "ENFILE, too many open files on this machine",
  24: "EMFILE, too many open files in this process",
  27: "EFBIG, larger than a file may be",
  28: "ENOSPC, no space",
  116: "ESTALE, it stands for something else",
};

/** The system refused shared memory, a thread, a socket. */
export class RanksSystemError extends InfraError {
  readonly errno: number;

  constructor(
    what: string,
    errno: number,
    options: ErrorOptions & { readonly advice?: string } = {},
  ) {
    const name = errnoNames[errno] ?? `errno ${errno}`;
    const { advice = "", ...rest } = options;
    super("ranks-system", `${what} failed: ${name}${advice === "" ? "" : `; ${advice}`}`, rest);
    this.errno = errno;
  }
}

/** What was thrown first: what disposal threw on the way out only follows from it. */
export function firstThrown(error: unknown): unknown {
  let first = error;
  while (first instanceof SuppressedError) first = first.suppressed;
  return first;
}
