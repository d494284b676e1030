// A simulated run in Chrome's trace event format, the one format of this project: a process for the
// run, a thread for each rank, a span for each computation, an arrow for each transfer, a counter
// of activations for each rank. Spans are named and carry arguments as the executor's do, so that a
// simulated and a recorded run are read, compared and shown by the same code.

import { InputError } from "@open-infra/errors";
import type { TraceEvent } from "@open-infra/profile";
import type { OpKindName, Schedule } from "../schedule/schedule.ts";
import { memoryCurve, type StageMemory } from "../simulate/memory.ts";
import type { RankTimeline, SimulationResult } from "../simulate/simulate.ts";
import { type Cell, type CellHalf, cellsOfRank, timelineOf } from "./cells.ts";

/** How a trace is scaled, named and bounded. */
export interface ChromeTraceOptions {
  /** Microseconds in one unit of the simulated times. @default 1 */
  readonly usPerUnit?: number;
  /** @default the schedule's name */
  readonly processName?: string;
  /** Tells runs apart in one file. @default 1 */
  readonly processId?: number;
  /** Arrows between ranks. @default true */
  readonly flows?: boolean;
  /** Counters of activations in flight, and of bytes where `memory` is given. @default true */
  readonly counters?: boolean;
  readonly memory?: StageMemory;
  /** More events than this are refused: viewers choke on them. @default 2_000_000 */
  readonly maxEvents?: number;
}

/** An event with the viewer's name of a colour; viewers that do not know it choose their own. */
export interface PipelineTraceEvent extends TraceEvent {
  readonly cname?: string;
}

/** The Chrome trace object; `JSON.stringify` of it is a file that any viewer opens. */
export interface PipelineTrace {
  readonly traceEvents: readonly PipelineTraceEvent[];
  readonly displayTimeUnit: "ms";
}

/** Colours of chrome://tracing's palette. */
const colourNames: Readonly<Partial<Record<OpKindName, string>>> = {
  F: "rail_response",
  B: "rail_animation",
  I: "thread_state_iowait",
  W: "thread_state_running",
  FB: "rail_load",
};

class TraceWriter {
  readonly events: PipelineTraceEvent[] = [];
  readonly #schedule: Schedule;
  readonly #timeline: readonly RankTimeline[];
  readonly #pid: number;
  readonly #scale: number;
  readonly #maxEvents: number;
  /**
   * Where results are used: arrow ids by direction of flow and key, once their start is written.
   */
  readonly #arrows = new Map<string, number>();

  constructor(schedule: Schedule, result: SimulationResult, options: ChromeTraceOptions) {
    this.#schedule = schedule;
    this.#timeline = timelineOf(result);
    this.#pid = options.processId ?? 1;
    this.#scale = options.usPerUnit ?? 1;
    this.#maxEvents = options.maxEvents ?? 2_000_000;
    if (!(this.#scale > 0 && this.#scale < Number.POSITIVE_INFINITY)) {
      throw new InputError("usPerUnit", String(this.#scale), "a finite number above 0");
    }
  }

  name(processName: string): void {
    const common = { ph: "M", pid: this.#pid, ts: 0 } as const;
    this.#push({ ...common, name: "process_name", tid: 0, args: { name: processName } });
    for (let rank = 0; rank < this.#schedule.numRanks; rank++) {
      const tid = rank + 1;
      this.#push({ ...common, name: "thread_name", tid, args: { name: `rank ${rank}` } });
      this.#push({ ...common, name: "thread_sort_index", tid, args: { sort_index: rank } });
    }
  }

  spans(rank: number): void {
    for (const cell of cellsOfRank(this.#schedule, this.#timeline, rank)) {
      const { direction, stage, microBatch, kind, pair } = cell;
      const colour = colourNames[kind];
      this.#push({
        name: kind,
        ph: "X",
        cat: "pipeline",
        pid: this.#pid,
        tid: rank + 1,
        ts: cell.start * this.#scale,
        dur: (cell.end - cell.start) * this.#scale,
        ...(colour !== undefined && { cname: colour }),
        args: {
          direction,
          stage,
          microBatch,
          ...(pair && {
            pairDirection: pair.direction,
            pairStage: pair.stage,
            pairMicroBatch: pair.microBatch,
          }),
          ...(cell.phase > 0 && { phase: cell.phase }),
        },
      });
    }
  }

  arrows(rank: number): void {
    for (const cell of cellsOfRank(this.#schedule, this.#timeline, rank)) {
      const { kind } = cell;
      if (kind === "F" || kind === "FB") this.#arrow(cell, cell, 1);
      if (kind !== "F" && kind !== "W") this.#arrow(cell, cell.pair ?? cell, -1);
    }
  }

  /** The ends of a half's arrows: where its input comes from, and where its result goes. */
  #arrow(cell: Cell, { direction, stage, microBatch }: CellHalf, step: 1 | -1): void {
    const flow = step === 1 ? "F" : "B";
    const id = (at: number): number => {
      const key = `${flow} ${direction} ${at} ${microBatch}`;
      const known = this.#arrows.get(key);
      if (known !== undefined) return known;
      this.#arrows.set(key, this.#arrows.size + 1);
      return this.#arrows.size;
    };
    const isRemote = (at: number): boolean => {
      const { numStages, rankOf } = this.#schedule;
      return at >= 0 && at < numStages && rankOf[direction * numStages + at] !== cell.rank;
    };
    const common = {
      name: `transfer ${flow}`,
      cat: "flow",
      pid: this.#pid,
      tid: cell.rank + 1,
    };
    if (isRemote(stage - step)) {
      const ts = cell.start * this.#scale;
      this.#push({ ...common, ph: "f", bp: "e", ts, id: id(stage) });
    }
    if (isRemote(stage + step)) {
      // Just before the end, so that the arrow belongs to this span and not to the next.
      const ts = (cell.start + (cell.end - cell.start) * 0.999) * this.#scale;
      this.#push({ ...common, ph: "s", ts, id: id(stage + step) });
    }
  }

  counters(rank: number, memory: StageMemory | undefined): void {
    const curve = memoryCurve(this.#schedule, this.#timeline, rank, memory);
    const common = { ph: "C", cat: "memory", pid: this.#pid, tid: rank + 1 } as const;
    for (let i = 0; i < curve.time.length; i++) {
      const ts = (curve.time[i] as number) * this.#scale;
      const activations = curve.activations[i] as number;
      this.#push({ ...common, name: `activations rank ${rank}`, ts, args: { activations } });
      if (curve.bytes === undefined) continue;
      const bytes = curve.bytes[i] as number;
      this.#push({ ...common, name: `bytes rank ${rank}`, ts, args: { bytes } });
    }
  }

  #push(event: PipelineTraceEvent): void {
    if (this.events.length === this.#maxEvents) {
      const { numRanks, numMicroBatches } = this.#schedule;
      const size = `${numRanks} ranks and ${numMicroBatches} micro-batches`;
      const got = `${this.#maxEvents}, too few for ${size}`;
      const allowed = "more events, or fewer things to write: flows: false, counters: false";
      throw new InputError("maxEvents", got, allowed);
    }
    this.events.push(event);
  }
}

/**
 * A simulated run as a Chrome trace.
 *
 * @throws InputError if the run kept no timeline, or has more events than `maxEvents`.
 */
export function toChromeTrace(
  schedule: Schedule,
  result: SimulationResult,
  options: ChromeTraceOptions = {},
): PipelineTrace {
  const writer = new TraceWriter(schedule, result, options);
  writer.name(options.processName ?? schedule.name);
  for (let rank = 0; rank < schedule.numRanks; rank++) {
    writer.spans(rank);
    if (options.flows ?? true) writer.arrows(rank);
    if (options.counters ?? true) writer.counters(rank, options.memory);
  }
  return { traceEvents: writer.events, displayTimeUnit: "ms" };
}
