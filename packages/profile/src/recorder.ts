// Records what ran when, on which lane, and writes it in Chrome's trace event format, the one
// format of this project. It imports nothing, so that any package may record; analysis lives above.

/** What a span, counter or flow may carry for the viewer. */
export type TraceArgs = Readonly<Record<string, string | number | boolean>>;

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
}

/** Records nothing. */
export const nullRecorder: Recorder = {
  enabled: false,
  now: () => 0,
  span: () => {},
  counter: () => {},
  flow: () => {},
};

/** How a trace is named and bounded. */
export interface TraceRecorderOptions {
  /** Shown as the process name in the viewer. */
  readonly processName?: string;
  /** @default 1 */
  readonly processId?: number;
  /** Spans, counters and arrow ends beyond this are counted, not kept. @default 2_000_000 */
  readonly maxEvents?: number;
}

/** Keeps events in memory; `toJSON()` gives the Chrome trace object. Use one a thread. */
export class TraceRecorder implements Recorder {
  readonly enabled = true;
  readonly #events: TraceEvent[] = [];
  readonly #lanes = new Map<string, number>();
  readonly #pid: number;
  readonly #maxEvents: number;
  /** Kept events, names of the process and its lanes apart: those are never dropped. */
  #kept = 0;
  #dropped = 0;

  constructor(options: TraceRecorderOptions = {}) {
    this.#pid = options.processId ?? 1;
    this.#maxEvents = options.maxEvents ?? 2_000_000;
    const args = { name: options.processName ?? "open-infra" };
    this.#events.push({ name: "process_name", ph: "M", pid: this.#pid, tid: 0, ts: 0, args });
  }

  /** Events that did not fit; the file says so too. */
  get dropped(): number {
    return this.#dropped;
  }

  /** All events so far, in the order they were recorded. */
  get events(): readonly TraceEvent[] {
    return this.#events;
  }

  /** Microseconds since 1970. */
  now(): number {
    // Absolute, so that traces of several threads and processes of one host line up.
    return (performance.timeOrigin + performance.now()) * 1000;
  }

  span(lane: string, name: string, startUs: number, args?: TraceArgs, durationUs?: number): void {
    const dur = durationUs ?? this.now() - startUs;
    this.#push({
      name,
      ph: "X",
      pid: this.#pid,
      tid: this.#lane(lane),
      ts: startUs,
      dur,
      ...(args && { args }),
    });
  }

  counter(lane: string, name: string, values: Readonly<Record<string, number>>): void {
    this.#push({
      name,
      ph: "C",
      pid: this.#pid,
      tid: this.#lane(lane),
      ts: this.now(),
      args: values,
    });
  }

  flow(lane: string, name: string, id: number, side: "start" | "end"): void {
    const common = { name, pid: this.#pid, tid: this.#lane(lane), ts: this.now(), id, cat: "flow" };
    this.#push(side === "start" ? { ...common, ph: "s" } : { ...common, ph: "f", bp: "e" });
  }

  /** The Chrome trace object; `JSON.stringify(recorder)` writes a file any viewer opens. */
  toJSON(): { traceEvents: readonly TraceEvent[]; displayTimeUnit: "ms"; droppedEvents: number } {
    return { traceEvents: this.#events, displayTimeUnit: "ms", droppedEvents: this.#dropped };
  }

  #lane(lane: string): number {
    let tid = this.#lanes.get(lane);
    if (tid === undefined) {
      tid = this.#lanes.size + 1;
      this.#lanes.set(lane, tid);
      this.#events.push({
        name: "thread_name",
        ph: "M",
        pid: this.#pid,
        tid,
        ts: 0,
        args: { name: lane },
      });
    }
    return tid;
  }

  #push(event: TraceEvent): void {
    if (this.#kept === this.#maxEvents) {
      this.#dropped++;
      return;
    }
    this.#kept++;
    this.#events.push(event);
  }
}
