// What is wrong with a trace, and where. The code is "input": the file must change.

import { InfraError } from "@open-infra/errors";

/** Where a reader was when it met the problem. */
export interface TracePosition {
  /** Bytes of the JSON text, uncompressed, before the problem. */
  readonly byteOffset: number;
  /** Position in `traceEvents` of the event being read; undefined outside of it. */
  readonly eventIndex?: number | undefined;
  /** Whole events read before. */
  readonly eventsRead: number;
}

/** The kinds of problem, for callers that treat them differently. */
export type TraceProblem =
  | "syntax" // not JSON, or JSON of another shape
  | "truncated" // the text ends inside
  | "value" // a field of an event cannot be used
  | "limit" // larger than a limit of the options
  | "compression"; // the gzip file is damaged or ends early

/** A trace cannot be read. */
export class TraceError extends InfraError {
  readonly problem: TraceProblem;
  readonly byteOffset: number;
  readonly eventIndex: number | undefined;
  readonly eventsRead: number;

  constructor(problem: TraceProblem, message: string, at: TracePosition, options?: ErrorOptions) {
    const event = at.eventIndex === undefined ? "" : `, traceEvents[${at.eventIndex}]`;
    super("input", `${message} (byte ${at.byteOffset}${event})`, options);
    this.problem = problem;
    this.byteOffset = at.byteOffset;
    this.eventIndex = at.eventIndex;
    this.eventsRead = at.eventsRead;
  }
}
