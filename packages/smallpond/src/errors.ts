// What can go wrong in a job, as types that carry the facts: the task, its SQL, what was missing.

import { InfraError } from "@open-infra/errors";

/** A plan that cannot be carried out; found before anything runs. */
export class PlanError extends InfraError {
  constructor(message: string, options?: ErrorOptions) {
    super("plan", message, options);
  }
}

/** A task failed for good. The message has the SQL that failed, if it was SQL. */
export class TaskError extends InfraError {
  readonly task: string;
  readonly attempts: number;
  /**
   * `sql`, `function`: what the user wrote is wrong. `memory`, `disk`, `timeout`: a limit was met.
   * `crash`: the process that ran it ended. `executor-lost`, `stopped`, `internal`.
   */
  readonly reason: string;

  constructor(
    task: string,
    attempts: number,
    reason: string,
    message: string,
    options?: ErrorOptions,
  ) {
    super("task", `task ${task}: ${message}`, options);
    this.task = task;
    this.attempts = attempts;
    this.reason = reason;
  }

  /**
   * Ends the stack, which is an executor's, with the user's call that the task is of.
   *
   * @param source `file:line`; "" if that is not known.
   */
  happenedAt(source: string): void {
    endStack(this, source);
  }
}

function endStack(error: Error, source: string): void {
  const frame = `\n    at ${source}`;
  if (source !== "" && !error.stack?.endsWith(frame)) error.stack = `${error.stack ?? ""}${frame}`;
}

/** No executor can ever run a task: it asks for more than any of them has. */
export class InfeasibleTaskError extends InfraError {
  readonly task: string;

  constructor(task: string, asks: string, largest: string) {
    super("infeasible", `task ${task} asks for ${asks}, and the largest executor has ${largest}`);
    this.task = task;
  }

  /** As of a {@link TaskError}. */
  happenedAt(source: string): void {
    endStack(this, source);
  }
}

/** No executor came up, though a job waits for one. */
export class NoExecutorError extends InfraError {
  constructor(message: string) {
    super("no-executor", message);
  }
}

/** Scheduler and executors cannot talk. */
export class ChannelError extends InfraError {
  /**
   * `unreachable`: nobody answers there. `credentials`: the server refuses this user. `permission`:
   * it knows the user, who may not do this. `tls`: certificates do not match. `no-jetstream`: the
   * server stores no messages. `closed`: the channel is, or its connection was, for good.
   */
  readonly reason: string;
  /** Without secrets. */
  readonly where: string;

  constructor(reason: string, where: string, message: string, options?: ErrorOptions) {
    super("channel", `${where}: ${message}`, options);
    this.reason = reason;
    this.where = where;
  }
}

/** Executors could not be started. The message has what the launcher's own program wrote. */
export class LaunchError extends InfraError {
  readonly launcher: string;

  constructor(launcher: string, message: string, options?: ErrorOptions) {
    super("launch", `${launcher}: ${message}`, options);
    this.launcher = launcher;
  }
}

/** A file system is full, or fuller than the job may make it. */
export class DiskError extends InfraError {
  readonly folder: string;
  readonly freeBytes: number;

  constructor(folder: string, freeBytes: number, message: string, options?: ErrorOptions) {
    super("disk", `${message}: ${folder} has ${freeBytes} bytes free`, options);
    this.folder = folder;
    this.freeBytes = freeBytes;
  }
}

/** Another process drives the job of the same name. */
export class JobLockedError extends InfraError {
  readonly folder: string;

  constructor(folder: string, holder: string) {
    super("job-locked", `the job in ${folder} is driven by ${holder}; two cannot drive it at once`);
    this.folder = folder;
  }
}

/** The session, or what belongs to it, was used after `shutdown`. */
export class SessionClosedError extends InfraError {
  constructor() {
    super("session-closed", "the smallpond session was shut down");
  }
}
