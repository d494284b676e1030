// Builds an EventTable event by event: strings become indices, pids and tids become lanes, B and E
// become spans. The reader, converters and tests all fill tables through it.

import { Column } from "../columns.ts";
import { type AsyncEnd, pairAsync } from "./async-spans.ts";
import type { EventTable, TraceNotes } from "./event-table.ts";
import { type LaneKey, LaneTable } from "./lane-table.ts";
import { LimitReached, resolveLimits, type TraceLimits } from "./limits.ts";
import { StringTable } from "./string-table.ts";

/** No string: of a flow id. */
export const NO_STRING = 0xffffffff;

const PHASE_X = 88;
const PHASE_b = 98;

/** What a table keeps beside its fixed columns, and how large it may grow. */
export interface EventTableBuilderOptions {
  /** Names of numbers in `args` that become columns of their own. */
  readonly argColumns?: readonly string[] | undefined;
  /** Keep the JSON text of `args`. @default false */
  readonly keepArgs?: boolean | undefined;
  readonly limits?: TraceLimits | undefined;
}

/** One event as callers write it; times in absolute µs. */
export interface TraceRow {
  /** `X` if left out. `B`, `E`, `b`, `e` and `M` have methods of their own. */
  readonly phase?: "X" | "C" | "s" | "t" | "f" | "i";
  readonly pid: LaneKey;
  readonly tid: LaneKey;
  readonly name: string;
  readonly category?: string;
  readonly startUs: number;
  readonly durationUs?: number;
  readonly flowId?: string | number;
  readonly correlation?: number;
  readonly stream?: number;
  readonly gridBlocks?: number;
  /** Kept if the builder keeps args; its numbers fill the asked-for columns. */
  readonly args?: Readonly<Record<string, unknown>>;
}

/** Counts the builder does not know itself. */
type OuterNotes = Pick<
  TraceNotes,
  "skippedPhases" | "missingDurations" | "malformedEvents" | "unterminatedArray" | "stopped"
>;

const cleanNotes: OuterNotes = {
  skippedPhases: {},
  missingDurations: 0,
  malformedEvents: 0,
  unterminatedArray: false,
};

/** Args as JSON text, one after the other. */
class ArgsArena {
  readonly #maxBytes: number;
  #bytes: Uint8Array = new Uint8Array(1 << 16);
  #used = 0;
  readonly ends: Column<Float64Array> = new Column(Float64Array);

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** The args of `row` are `bytes[start..end)`; nothing where the two are equal. */
  append(row: number, bytes: Uint8Array, start: number, end: number): void {
    const used = this.#used + (end - start);
    if (used > this.#maxBytes) {
      throw new LimitReached("maxTextBytes", this.#maxBytes, "bytes of args");
    }
    if (used > this.#bytes.length) {
      const buffer = this.#bytes.buffer as ArrayBuffer;
      this.#bytes = new Uint8Array(buffer.transfer(Math.max(used, buffer.byteLength * 2)));
    }
    this.#bytes.set(bytes.subarray(start, end), this.#used);
    this.#used = used;
    this.ends.append(row, used);
  }

  /** A function that gives the text of a row. */
  finish(rows: number): (i: number) => string | undefined {
    const ends = this.ends.join(rows);
    const bytes = new Uint8Array((this.#bytes.buffer as ArrayBuffer).transfer(this.#used));
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    return (i) => {
      const start = i === 0 ? 0 : (ends[i - 1] as number);
      const end = ends[i];
      if (end === undefined || end === start) return undefined;
      return decoder.decode(bytes.subarray(start, end));
    };
  }
}

const noBytes = new Uint8Array(0);
const encoder = new TextEncoder();

/** Takes events one by one, in any order, and joins them to a table with `build()`. */
export class EventTableBuilder {
  readonly #limits: Required<TraceLimits>;
  readonly strings: StringTable;
  readonly lanes: LaneTable;
  readonly #phase = new Column(Uint8Array);
  readonly #lane = new Column(Uint32Array);
  readonly #name = new Column(Uint32Array);
  readonly #category = new Column(Uint32Array);
  readonly #startUs = new Column(Float64Array);
  readonly #durationUs = new Column(Float64Array);
  readonly #flowId = new Column(Uint32Array);
  readonly #correlation = new Column(Float64Array);
  readonly #stream = new Column(Int32Array);
  readonly #gridBlocks = new Column(Uint32Array);
  /** Names of the extra columns, and what each is for the event being read; NaN where absent. */
  readonly argNames: readonly string[];
  readonly argValues: Float64Array;
  readonly #argColumns: readonly Column<Float64Array>[];
  readonly #args: ArgsArena | undefined;
  #length = 0;
  /** Whole µs that the start column counts from until the end; NaN before the first event. */
  #baseUs = Number.NaN;
  /** Rows of `B` without their `E` yet, innermost last, by raw lane. */
  readonly #open = new Map<number, number[]>();
  readonly #async: AsyncEnd[] = [];
  #unmatchedEnds = 0;
  #unclosedBegins = 0;
  #negativeDurations = 0;

  constructor(options: EventTableBuilderOptions = {}) {
    const limits = resolveLimits(options.limits);
    this.#limits = limits;
    this.strings = new StringTable(limits.maxStrings, limits.maxTextBytes);
    this.lanes = new LaneTable(limits.maxLanes);
    this.argNames = [...new Set(options.argColumns)];
    this.argValues = new Float64Array(this.argNames.length).fill(Number.NaN);
    this.#argColumns = this.argNames.map(() => new Column(Float64Array));
    this.#args = options.keepArgs ? new ArgsArena(limits.maxTextBytes) : undefined;
  }

  /** Rows so far. */
  get length(): number {
    return this.#length;
  }

  /** Whole µs that `append` counts from; set by the first event, NaN before. */
  get baseUs(): number {
    return this.#baseUs;
  }

  set baseUs(us: number) {
    this.#baseUs = us;
  }

  /** Index of `text` in the table's strings. */
  intern(text: string): number {
    return this.strings.internText(text);
  }

  /** What `process_name`, `process_labels` and `process_sort_index` say. */
  describeProcess(
    pid: LaneKey,
    facts: { readonly name?: string; readonly labels?: string; readonly sortIndex?: number },
  ): void {
    Object.assign(this.lanes.process(pid), facts);
  }

  /** What `thread_name` and `thread_sort_index` say. */
  describeThread(
    pid: LaneKey,
    tid: LaneKey,
    facts: { readonly name?: string; readonly sortIndex?: number },
  ): void {
    Object.assign(this.lanes.thread(this.lanes.lane(pid, tid)), facts);
  }

  /** Appends an event and returns its row. */
  add(event: TraceRow): number {
    const args = event.args;
    if (args !== undefined) {
      this.argNames.forEach((name, i) => {
        const value = args[name];
        if (typeof value === "number") this.argValues[i] = value;
      });
    }
    const text = args && this.#args ? encoder.encode(JSON.stringify(args)) : noBytes;
    return this.append(
      (event.phase ?? "X").charCodeAt(0),
      this.lanes.lane(event.pid, event.tid),
      this.intern(event.name),
      this.intern(event.category ?? ""),
      this.relativeUs(event.startUs),
      event.durationUs ?? 0,
      event.flowId === undefined ? NO_STRING : this.intern(String(event.flowId)),
      event.correlation ?? -1,
      event.stream ?? -1,
      event.gridBlocks ?? 0,
      text,
      0,
      text.length,
    );
  }

  /** `us` as `append` wants it. */
  relativeUs(us: number): number {
    if (Number.isNaN(this.#baseUs)) this.#baseUs = Math.floor(us);
    return us - this.#baseUs;
  }

  /**
   * Appends a row of raw lane and string indices; `startUs` counts from `baseUs`, and `argValues`
   * hold the extra columns. Positional, because the reader calls it for every event.
   */
  append(
    phase: number,
    lane: number,
    name: number,
    category: number,
    startUs: number,
    durationUs: number,
    flowId: number,
    correlation: number,
    stream: number,
    gridBlocks: number,
    argsBytes: Uint8Array,
    argsStart: number,
    argsEnd: number,
  ): number {
    const row = this.#length;
    if (row === this.#limits.maxEvents) {
      throw new LimitReached("maxEvents", this.#limits.maxEvents, "events");
    }
    let duration = durationUs;
    if (duration < 0) {
      this.#negativeDurations++;
      duration = 0;
    }
    this.#phase.append(row, phase);
    this.#lane.append(row, lane);
    this.#name.append(row, name);
    this.#category.append(row, category);
    this.#startUs.append(row, startUs);
    this.#durationUs.append(row, duration);
    this.#flowId.append(row, flowId);
    this.#correlation.append(row, correlation);
    this.#stream.append(row, stream);
    this.#gridBlocks.append(row, gridBlocks);
    for (let i = 0; i < this.argValues.length; i++) {
      (this.#argColumns[i] as Column<Float64Array>).append(row, this.argValues[i] as number);
      this.argValues[i] = Number.NaN;
    }
    this.#args?.append(row, argsBytes, argsStart, argsEnd);
    this.#length = row + 1;
    return row;
  }

  /** `row` is a `B` of `lane`, to be ended by `end`. */
  begin(row: number, lane: number): void {
    const open = this.#open.get(lane);
    if (open === undefined) this.#open.set(lane, [row]);
    else open.push(row);
  }

  /** An `E` on `lane` at `atUs` from `baseUs`: ends the innermost open span there. */
  end(lane: number, atUs: number): void {
    const row = this.#open.get(lane)?.pop();
    if (row === undefined) this.#unmatchedEnds++;
    else this.#close(row, atUs - this.#startUs.get(row));
  }

  /** A `b` (its row) or an `e` (row −1); paired when all are known. */
  async(end: AsyncEnd): void {
    if (this.#async.length === this.#limits.maxEvents) {
      throw new LimitReached("maxEvents", this.#limits.maxEvents, "async events");
    }
    this.#async.push(end);
  }

  #close(row: number, durationUs: number): void {
    if (durationUs < 0) this.#negativeDurations++;
    this.#phase.set(row, PHASE_X);
    this.#durationUs.set(row, Math.max(durationUs, 0));
  }

  #pairAsync(): void {
    const { spans, open, unmatchedEnds } = pairAsync(this.#async);
    this.#unmatchedEnds += unmatchedEnds;
    this.#unclosedBegins += open.length;
    for (const row of open) this.#phase.set(row, PHASE_b);
    for (const { row, pid, category, durationUs, slot } of spans) {
      const tid = `async ${category} ${slot}`;
      this.describeThread(pid, tid, { name: `${category} (async)`, sortIndex: 0x40000000 });
      this.#lane.set(row, this.lanes.lane(pid, tid));
      this.#close(row, durationUs);
    }
  }

  /** Counts from whole µs at or before the earliest event; returns what that is. */
  #moveOrigin(startUs: Float64Array): number {
    if (startUs.length === 0) return Number.isNaN(this.#baseUs) ? 0 : this.#baseUs;
    let earliest = Number.POSITIVE_INFINITY;
    for (let i = 0; i < startUs.length; i++) {
      if ((startUs[i] as number) < earliest) earliest = startUs[i] as number;
    }
    const originUs = this.#baseUs + Math.floor(earliest);
    // Not `earliest` itself: beyond 2^53 the sum was rounded.
    const shift = Math.min(originUs - this.#baseUs, earliest);
    if (shift !== 0)
      for (let i = 0; i < startUs.length; i++) startUs[i] = (startUs[i] as number) - shift;
    return originUs;
  }

  #placeLanes(lane: Uint32Array): EventTable["lanes"] {
    const used = new Uint8Array(this.lanes.length);
    for (let i = 0; i < lane.length; i++) used[lane[i] as number] = 1;
    const { lanes, places } = this.lanes.finish(used);
    for (let i = 0; i < lane.length; i++) lane[i] = places[lane[i] as number] as number;
    return lanes;
  }

  /** The table; the builder is empty afterwards and must not be used again. */
  finish(
    metadata: Readonly<Record<string, unknown>> = {},
    notes: Partial<OuterNotes> = {},
  ): EventTable {
    const length = this.#length;
    this.#pairAsync();
    for (const rows of this.#open.values()) this.#unclosedBegins += rows.length;
    // The strings first: what they were found by can go before the columns are joined.
    const strings = this.strings.finish();
    const startUs = this.#startUs.join(length);
    const originUs = this.#moveOrigin(startUs);
    const lane = this.#lane.join(length);
    const argsText = this.#args?.finish(length) ?? (() => undefined);
    return {
      length,
      originUs,
      phase: this.#phase.join(length),
      lane,
      name: this.#name.join(length),
      category: this.#category.join(length),
      startUs,
      durationUs: this.#durationUs.join(length),
      flowId: this.#flowId.join(length),
      correlation: this.#correlation.join(length),
      stream: this.#stream.join(length),
      gridBlocks: this.#gridBlocks.join(length),
      argColumns: Object.fromEntries(
        this.argNames.map((name, i) => [
          name,
          (this.#argColumns[i] as Column<Float64Array>).join(length),
        ]),
      ),
      strings,
      lanes: this.#placeLanes(lane),
      metadata,
      notes: {
        ...cleanNotes,
        ...notes,
        unmatchedEnds: this.#unmatchedEnds,
        unclosedBegins: this.#unclosedBegins,
        negativeDurations: this.#negativeDurations,
      },
      argsText,
    };
  }
}
