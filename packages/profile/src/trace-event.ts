// The Chrome trace event format as far as this project writes it.

/** What a span, counter or flow may carry for the viewer. */
export type TraceArgs = Readonly<Record<string, string | number | boolean | readonly number[]>>;

/** One event of the Chrome trace event format; times in microseconds. */
export interface TraceEvent {
  readonly name: string;
  readonly ph: "X" | "C" | "s" | "f" | "i" | "M";
  readonly pid: number;
  readonly tid: number;
  readonly ts: number;
  readonly dur?: number;
  readonly id?: number;
  readonly bp?: "e";
  readonly cat?: string;
  readonly args?: TraceArgs;
}

/** A trace as an object; `JSON.stringify` of it is a file any viewer opens. */
export interface ChromeTrace {
  readonly traceEvents: readonly TraceEvent[];
  readonly displayTimeUnit: "ms";
  /** Events that did not fit. */
  readonly droppedEvents: number;
  readonly [key: string]: unknown;
}
