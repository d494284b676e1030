// The error for operations that cannot run as a schedule, with the facts as fields.

import { InfraError } from "@open-infra/errors";

/** A schedule cannot run: it waits for itself, or misses or repeats work. */
export class ScheduleError extends InfraError {
  /** The rank whose list is wrong, or the first that stands still; −1 if none in particular. */
  readonly rank: number;
  /** Index in that rank's operations; −1 if none in particular. */
  readonly position: number;

  constructor(message: string, rank = -1, position = -1) {
    super("schedule", message);
    this.rank = rank;
    this.position = position;
  }
}
