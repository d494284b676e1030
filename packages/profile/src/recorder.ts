// Records what ran when, on which lane, and writes it in Chrome's trace event format as PyTorch's
// profiler (Kineto) does, the one format of this project. It imports no other package, so that any
// may record; analysis lives beside it.

import { PHASE, Recording } from "./recording.ts";
import type { ChromeTrace, TraceArgs, TraceEvent } from "./trace-event.ts";

/** Kineto's categories, by which its tools tell events apart; others are allowed. */
export type SpanCategory =
  | "cpu_op" // an operation on the host
  | "user_annotation" // a phase the program names
  | "cuda_runtime" // a call that launches work on a device
  | "kernel" // work on a device
  | "gpu_memcpy"
  | "gpu_memset"
  | (string & {});

/** A span with what Kineto's tools look at. */
export interface RecordedSpan {
  readonly name: string;
  /** From `now()`. */
  readonly startUs: number;
  /** Until now if left out. */
  readonly durationUs?: number | undefined;
  readonly category?: SpanCategory | undefined;
  /** The thread it ran on. @default "main" */
  readonly lane?: string | undefined;
  /** The stream of a device it ran on, instead of a thread. */
  readonly stream?: number | undefined;
  /** The device of `stream`. @default 0 */
  readonly device?: number | undefined;
  /** One number for a launch and what it launched; an arrow joins the two. */
  readonly correlation?: number | undefined;
  /** `grid`, `block`, `bytes`, … as Kineto names them. Kept, not copied: do not change it later. */
  readonly args?: TraceArgs | undefined;
}

/** Where events go. Callers test `enabled` first, so that a run without tracing pays one branch. */
export interface Recorder {
  readonly enabled: boolean;
  /** Microseconds on the recorder's clock. */
  now(): number;
  /**
   * A span on `lane` that began at `startUs` (from `now()`) and ends now, or after `durationUs`.
   */
  span(lane: string, name: string, startUs: number, args?: TraceArgs, durationUs?: number): void;
  /** What `values` are now; the viewer stacks them. */
  counter(lane: string, name: string, values: Readonly<Record<string, number>>): void;
  /** An arrow between two spans; the same `id` on both sides. */
  flow(lane: string, name: string, id: number, side: "start" | "end"): void;
  /** A span with its category, stream and launch; recorders that cannot may lack it. */
  record?(span: RecordedSpan): void;
}

/** Records nothing. */
export const nullRecorder: Recorder = {
  enabled: false,
  now: () => 0,
  span: () => {},
  counter: () => {},
  flow: () => {},
  record: () => {},
};

/** How a trace is named and bounded. */
export interface TraceRecorderOptions {
  /** Shown as the process name in the viewer. */
  readonly processName?: string;
  /** @default 1 */
  readonly processId?: number;
  /** Spans, counters and arrow ends beyond this are counted, not kept. @default 2_000_000 */
  readonly maxEvents?: number;
  /** More keys of the file's top level: `distributedInfo: { rank, world_size }`, … */
  readonly metadata?: Readonly<Record<string, unknown>>;
}

/** Events turned into text at once; a whole trace may be longer than a string can be. */
const EVENTS_A_PIECE = 4096;

/** Keeps events in memory; `text()` and `toJSON()` give the Chrome trace. Use one a thread. */
export class TraceRecorder implements Recorder {
  readonly enabled = true;
  readonly #rows: Recording;
  readonly #maxEvents: number;
  readonly #metadata: Readonly<Record<string, unknown>>;
  /** µs of the clock's zero since 1970; it does not change while the thread runs. */
  readonly #originUs = performance.timeOrigin * 1000;
  /** Kept events, names of the process and its lanes apart: those are never dropped. */
  #kept = 0;
  #dropped = 0;
  /** Events made of the rows so far; made when they are asked for. */
  readonly #events: TraceEvent[] = [];
  #rowsMade = 0;

  constructor(options: TraceRecorderOptions = {}) {
    this.#maxEvents = options.maxEvents ?? 2_000_000;
    this.#metadata = options.metadata ?? {};
    this.#rows = new Recording(options.processId ?? 1, options.processName ?? "open-infra");
  }

  /** Events that did not fit; the file says so too. */
  get dropped(): number {
    return this.#dropped;
  }

  /** All events so far, in the order they were recorded. Made here, so mind the memory. */
  get events(): readonly TraceEvent[] {
    this.#rowsMade = this.#rows.appendEvents(this.#events, this.#rowsMade, this.#rows.length);
    return this.#events;
  }

  /** Microseconds since 1970. */
  now(): number {
    // Absolute, so that traces of several threads and processes of one host line up.
    return this.#originUs + performance.now() * 1000;
  }

  span(lane: string, name: string, startUs: number, args?: TraceArgs, durationUs?: number): void {
    const us = durationUs ?? this.now() - startUs;
    const row = this.#rows.lane(lane);
    if (this.#fits()) this.#rows.append(PHASE.X, row, name, "", startUs, us, undefined, args);
  }

  counter(lane: string, name: string, values: Readonly<Record<string, number>>): void {
    const row = this.#rows.lane(lane);
    if (!this.#fits()) return;
    this.#rows.append(PHASE.C, row, name, "", this.now(), 0, undefined, values);
  }

  flow(lane: string, name: string, id: number, side: "start" | "end"): void {
    const row = this.#rows.lane(lane);
    const phase = side === "start" ? PHASE.s : PHASE.f;
    if (this.#fits()) this.#rows.append(phase, row, name, "", this.now(), 0, id, undefined);
  }

  record(span: RecordedSpan): void {
    const { name, category, startUs, correlation, args, stream } = span;
    const us = span.durationUs ?? this.now() - startUs;
    const row =
      stream === undefined
        ? this.#rows.lane(span.lane ?? "main")
        : this.#rows.stream(span.device ?? 0, stream);
    if (!this.#fits()) return;
    this.#rows.append(PHASE.X, row, name, category ?? "", startUs, us, correlation, args);
  }

  /** The trace as an object; `JSON.stringify(recorder)` writes a file any viewer opens. */
  toJSON(): ChromeTrace {
    return {
      ...this.#metadata,
      traceEvents: this.events,
      displayTimeUnit: "ms",
      droppedEvents: this.#dropped,
    };
  }

  /** The same as JSON text, in pieces, for traces too long for one string or one more copy. */
  *text(): Generator<string, void, undefined> {
    const top = { ...this.#metadata, displayTimeUnit: "ms", droppedEvents: this.#dropped };
    yield `${JSON.stringify(top).slice(0, -1)},"traceEvents":[\n`;
    const rows = this.#rows.length;
    for (let at = 0; at < rows; ) {
      const events: TraceEvent[] = [];
      const separator = at === 0 ? "" : ",\n";
      at = this.#rows.appendEvents(events, at, Math.min(at + EVENTS_A_PIECE, rows));
      yield `${separator}${events.map((event) => JSON.stringify(event)).join(",\n")}`;
    }
    yield "\n]}\n";
  }

  /** Counts an event; false if there is no room for it. */
  #fits(): boolean {
    if (this.#kept === this.#maxEvents) {
      this.#dropped++;
      return false;
    }
    this.#kept++;
    return true;
  }
}
