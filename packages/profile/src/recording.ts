// What a recorder keeps: columns, not an object an event, so that recording is a few stores and the
// garbage collector has nothing to walk. Events are made from it when they are written.

import { Column } from "./columns.ts";
import type { TraceArgs, TraceEvent } from "./trace-event.ts";

/** A row of the viewer. */
interface Lane {
  readonly pid: number;
  readonly tid: number;
  /** The metadata event that names it. */
  readonly name: string;
  /** Set for a stream of a device. */
  readonly device?: number;
}

/** Code of a row that names a lane or process: not an event, written as metadata. */
const DESCRIBE = 77;
/** No args. */
const NONE = -1;

/** Codes of the rows that are events: those of the letters. */
export const PHASE = { X: 88, C: 67, s: 115, f: 102 } as const;

/** The process a viewer shows for a device of process `pid`; another for each of the two. */
function devicePid(pid: number, device: number): number {
  return pid * 1000 + device + 1;
}

/** What a recorder has kept: a row an event, and names of lanes beside them. */
export class Recording {
  readonly #pid: number;
  readonly #processName: string;
  readonly #phase = new Column(Uint8Array);
  readonly #lane = new Column(Uint32Array);
  readonly #name = new Column(Uint32Array);
  readonly #category = new Column(Uint32Array);
  readonly #startUs = new Column(Float64Array);
  readonly #durationUs = new Column(Float64Array);
  /** Id of an arrow, or correlation of a span; NaN where there is none. */
  readonly #id = new Column(Float64Array);
  /** Index into `#argsList`, or `NONE`. */
  readonly #args = new Column(Int32Array);
  readonly #argsList: TraceArgs[] = [];
  /** Names and categories, each once; the first is no category. */
  readonly #strings: string[] = [""];
  readonly #indices = new Map<string, number>([["", 0]]);
  readonly #lanes: Lane[] = [];
  readonly #threads = new Map<string, number>();
  /** Lane by device, then stream. */
  readonly #devices = new Map<number, Map<number, number>>();
  #length = 0;

  constructor(pid: number, processName: string) {
    this.#pid = pid;
    this.#processName = processName;
    this.#lanes.push({ pid, tid: 0, name: "process_name" });
    this.#describe(0, processName);
  }

  /** Rows so far, those that name lanes included. */
  get length(): number {
    return this.#length;
  }

  /** The lane of a thread; made and named if new. */
  lane(name: string): number {
    let lane = this.#threads.get(name);
    if (lane === undefined) {
      lane = this.#lanes.length;
      this.#threads.set(name, lane);
      this.#lanes.push({ pid: this.#pid, tid: this.#threads.size, name: "thread_name" });
      this.#describe(lane, name);
    }
    return lane;
  }

  /** The lane of a stream of a device; made and named if new. */
  stream(device: number, stream: number): number {
    let streams = this.#devices.get(device);
    if (streams === undefined) {
      streams = new Map();
      this.#devices.set(device, streams);
      this.#describeDevice(device);
    }
    let lane = streams.get(stream);
    if (lane === undefined) {
      lane = this.#lanes.length;
      streams.set(stream, lane);
      const pid = devicePid(this.#pid, device);
      this.#lanes.push({ pid, tid: stream, name: "thread_name", device });
      this.#describe(lane, `stream ${stream}`);
    }
    return lane;
  }

  #describeDevice(device: number): void {
    const pid = devicePid(this.#pid, device);
    const texts = { process_name: this.#processName, process_labels: `GPU ${device}` };
    for (const [name, text] of Object.entries(texts)) {
      this.#lanes.push({ pid, tid: 0, name });
      this.#describe(this.#lanes.length - 1, text);
    }
  }

  /** A row that says how a lane is called. */
  #describe(lane: number, text: string): void {
    this.append(DESCRIBE, lane, text, "", 0, 0, undefined, undefined);
  }

  /** Appends an event on a lane. `id` is an arrow's, or a span's correlation. */
  append(
    code: number,
    lane: number,
    name: string,
    category: string,
    startUs: number,
    durationUs: number,
    id: number | undefined,
    args: TraceArgs | undefined,
  ): void {
    const row = this.#length;
    this.#phase.append(row, code);
    this.#lane.append(row, lane);
    this.#name.append(row, this.#intern(name));
    this.#category.append(row, category === "" ? 0 : this.#intern(category));
    this.#startUs.append(row, startUs);
    this.#durationUs.append(row, durationUs);
    this.#id.append(row, id ?? Number.NaN);
    this.#args.append(row, args === undefined ? NONE : this.#argsList.push(args) - 1);
    this.#length = row + 1;
  }

  /** Makes the events of rows `from` to `to` and pushes them; returns `to`. */
  appendEvents(events: TraceEvent[], from: number, to: number): number {
    for (let row = from; row < to; row++) {
      const lane = this.#lanes[this.#lane.get(row)] as Lane;
      switch (this.#phase.get(row)) {
        case DESCRIBE:
          events.push(this.#description(row, lane));
          break;
        case PHASE.X:
          events.push(...this.#span(row, lane));
          break;
        case PHASE.C:
          events.push({ ...this.#common(row, lane, "C"), args: this.#argsOf(row) ?? {} });
          break;
        case PHASE.s:
          events.push({
            ...this.#common(row, lane, "s"),
            id: this.#id.get(row),
            cat: "flow",
          });
          break;
        default: {
          const common = this.#common(row, lane, "f");
          events.push({ ...common, id: this.#id.get(row), cat: "flow", bp: "e" });
        }
      }
    }
    return to;
  }

  #common<Phase extends TraceEvent["ph"]>(
    row: number,
    { pid, tid }: Lane,
    ph: Phase,
  ): { name: string; ph: Phase; pid: number; tid: number; ts: number } {
    return {
      name: this.#string(this.#name.get(row)),
      ph,
      pid,
      tid,
      ts: this.#startUs.get(row),
    };
  }

  #description(row: number, { pid, tid, name }: Lane): TraceEvent {
    const text = this.#string(this.#name.get(row));
    const args = name === "process_labels" ? { labels: text } : { name: text };
    return { name, ph: "M", pid, tid, ts: 0, args };
  }

  /** A span, and its end of the arrow between a launch and what it launched. */
  #span(row: number, lane: Lane): TraceEvent[] {
    const correlation = this.#id.get(row);
    const category = this.#string(this.#category.get(row));
    const launched = !Number.isNaN(correlation);
    let args = this.#argsOf(row);
    if (lane.device !== undefined) args = { device: lane.device, stream: lane.tid, ...args };
    if (launched) args = { ...args, correlation };
    const span: TraceEvent = {
      ...this.#common(row, lane, "X"),
      dur: this.#durationUs.get(row),
      ...(category !== "" && { cat: category }),
      ...(args && { args }),
    };
    if (!launched) return [span];
    const { pid, tid, ts } = span;
    const arrow = { name: "ac2g", pid, tid, ts, id: correlation, cat: "ac2g" } as const;
    if (lane.device === undefined) return [span, { ...arrow, ph: "s" }];
    return [span, { ...arrow, ph: "f", bp: "e" }];
  }

  #argsOf(row: number): TraceArgs | undefined {
    const index = this.#args.get(row);
    return index === NONE ? undefined : this.#argsList[index];
  }

  #string(index: number): string {
    return this.#strings[index] as string;
  }

  #intern(text: string): number {
    let index = this.#indices.get(text);
    if (index === undefined) {
      index = this.#strings.length;
      this.#strings.push(text);
      this.#indices.set(text, index);
    }
    return index;
  }
}
