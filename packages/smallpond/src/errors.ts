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
  /** `sql`, `memory`, `function`, `disk`, `executor-lost`, `timeout`, `internal`. */
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
}

/** No executor can ever run a task: it asks for more than any of them has. */
export class InfeasibleTaskError extends InfraError {
  readonly task: string;

  constructor(task: string, asks: string, largest: string) {
    super("infeasible", `task ${task} asks for ${asks}, and the largest executor has ${largest}`);
    this.task = task;
  }
}

/** The session, or what belongs to it, was used after `shutdown`. */
export class SessionClosedError extends InfraError {
  constructor() {
    super("session-closed", "the smallpond session was shut down");
  }
}
