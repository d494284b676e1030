// Errors of dispatch and combine that the group's own (ranks/errors.ts) do not cover.

import { InfraError } from "@open-infra/errors";

/**
 * What an operation needs does not fit a rank's window. All ranks of the operation throw the same
 * error, and the group goes on: make room (dispose what is held, or `reserve`), then call again.
 */
export class BufferCapacityError extends InfraError {
  /** The rank whose window is too small; the lowest if there are several. */
  readonly rank: number;
  readonly neededBytes: number;
  readonly capacityBytes: number;

  constructor(facts: {
    readonly operation: string;
    readonly rank: number;
    readonly neededBytes: number;
    readonly capacityBytes: number;
  }) {
    const { operation, rank, neededBytes, capacityBytes } = facts;
    super(
      "buffer-capacity",
      `${operation}: rank ${rank} needs a window of ${neededBytes} bytes; it has ${capacityBytes}`,
    );
    this.rank = rank;
    this.neededBytes = neededBytes;
    this.capacityBytes = capacityBytes;
  }
}

/** A call that the buffer's state does not allow: a hook called twice, a third live result. */
export class BufferStateError extends InfraError {
  constructor(message: string) {
    super("buffer-state", message);
  }
}
