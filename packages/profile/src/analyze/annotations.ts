// Whose the device's time is: every event goes to the innermost user annotation that was open when
// it was launched. On the launching thread first; a launch of a thread without annotations
// (autograd's) goes to the one that its process had open at that time.

import type { EventTable } from "./event-table.ts";
import { type Intervals, lengthOf, subtract, UnionBuilder } from "./intervals.ts";
import type { Launches } from "./launches.ts";
import { enclosingSpans, isAnnotation, spansByStart } from "./nesting.ts";
import { sortIndices } from "./order.ts";
import { percent, roundUs } from "./statistics.ts";
import { deviceOf } from "./streams.ts";
import { stringTest } from "./string-test.ts";
import type { Work } from "./work.ts";

/** Which annotation each event belongs to. */
export interface Attribution {
  /** Rows of the table that are annotations, by start, outer before inner. */
  readonly annotations: Uint32Array;
  /** Index into `annotations` of the enclosing one of its thread; −1 where it is outermost. */
  readonly parent: Int32Array;
  /** For each event of the work: index into `annotations`; −1 where there is none. */
  readonly of: Int32Array;
}

/** Time of an annotation on one stream. */
export interface AnnotationStream {
  readonly device: string | number;
  readonly stream: string | number;
  readonly events: number;
  /** Sum of durations. */
  readonly sumUs: number;
  /** The same, a moment counted once. */
  readonly busyUs: number;
}

/** Annotations of one name. */
export interface AnnotationBreakdown {
  readonly name: string;
  /** How often it was opened. */
  readonly count: number;
  /** Sum of the annotations' own lengths on the host. */
  readonly hostUs: number;
  /** Events for which it was innermost. */
  readonly events: number;
  /** Sum of their durations over all streams. */
  readonly gpuUs: number;
  /** The same with the events of annotations inside it. */
  readonly inclusiveGpuUs: number;
  readonly computeUs: number;
  readonly communicationUs: number;
  readonly memoryUs: number;
  /** Of its communication (a moment counted once), while nothing computed on the device. */
  readonly exposedCommunicationUs: number;
  /** Of the sum over all events, %. */
  readonly sharePercent: number;
  readonly streams: readonly AnnotationStream[];
}

/** All annotations, in order of first start, and what belongs to none. */
export interface AnnotationAnalysis {
  /** `annotations`, or `spans`: enclosing spans of lanes where no device was traced. */
  readonly kind: "annotations" | "spans";
  readonly annotations: readonly AnnotationBreakdown[];
  readonly attributedEvents: number;
  readonly unattributedEvents: number;
  readonly unattributedUs: number;
}

/** Finds the annotation of every event. Times are host times: of the launch, not of the event. */
export function attribute(work: Work, { launchRow }: Pick<Launches, "launchRow">): Attribution {
  const { table } = work;
  const wanted = stringTest(table, isAnnotation);
  const annotations =
    work.source === "lanes"
      ? annotationsOfLanes(work)
      : spansByStart(table, (row) => wanted(table.category[row]!));
  // In a trace of lanes an event stands for its own launch.
  const at = new Int32Array(work.length);
  const timeUs = new Float64Array(work.length);
  const order = new Uint32Array(work.length);
  let count = 0;
  for (let i = 0; i < work.length; i++) {
    at[i] = work.source === "lanes" ? work.row[i]! : launchRow[i]!;
    if (at[i]! < 0) continue;
    timeUs[i] = table.startUs[at[i]!]!;
    order[count++] = i;
  }
  const queries = order.subarray(0, count);
  sortIndices(queries, timeUs, timeUs);
  const parent = new Int32Array(annotations.length).fill(-1);
  const of = new Int32Array(work.length).fill(-1);
  const stacks = new OpenStacks(work, annotations, parent);
  for (const i of queries) {
    stacks.openUntil(timeUs[i]!);
    of[i] = stacks.innermost(table.lane[at[i]!]!, timeUs[i]!);
  }
  stacks.openUntil(Number.POSITIVE_INFINITY);
  return { annotations, parent, of };
}

/** Enclosing spans and user annotations: both say what the work inside them is for. */
function annotationsOfLanes(work: Work): Uint32Array {
  const { table } = work;
  const enclosing = new Uint8Array(table.length);
  for (const row of enclosingSpans(table)) enclosing[row] = 1;
  const wanted = stringTest(table, isAnnotation);
  return spansByStart(table, (row) => enclosing[row] === 1 || wanted(table.category[row]!));
}

/** Annotations open at a time that only moves on: one stack a thread, one a process. */
class OpenStacks {
  readonly #endUs: Float64Array;
  readonly #lanes = new Map<number, number[]>();
  readonly #processes = new Map<string, number[]>();
  #next = 0;

  readonly #table: EventTable;
  readonly #annotations: Uint32Array;
  readonly #parent: Int32Array;
  readonly #processOf: readonly string[];

  /** Fills `parent` as annotations are opened. */
  constructor({ table, source }: Work, annotations: Uint32Array, parent: Int32Array) {
    this.#table = table;
    this.#processOf = table.lanes.map((lane) => String(deviceOf(lane, source)));
    this.#annotations = annotations;
    this.#parent = parent;
    const { startUs, durationUs } = table;
    this.#endUs = Float64Array.from(annotations, (row) => startUs[row]! + durationUs[row]!);
  }

  openUntil(timeUs: number): void {
    const table = this.#table;
    for (; this.#next < this.#annotations.length; this.#next++) {
      const row = this.#annotations[this.#next]!;
      const startUs = table.startUs[row]!;
      if (startUs > timeUs) return;
      const lane = table.lane[row]!;
      const onLane = stackOf(this.#lanes, lane);
      // What ends where this begins is no parent of it.
      while (onLane.length > 0 && this.#endUs[onLane.at(-1)!]! <= startUs) onLane.pop();
      this.#parent[this.#next] = onLane.at(-1) ?? -1;
      onLane.push(this.#next);
      stackOf(this.#processes, this.#processOf[lane]!).push(this.#next);
    }
  }

  /** The latest opened on the lane that is open still, else of the lane's process; −1 if none. */
  innermost(lane: number, timeUs: number): number {
    const own = this.#top(this.#lanes.get(lane), timeUs);
    if (own >= 0) return own;
    return this.#top(this.#processes.get(this.#processOf[lane]!), timeUs);
  }

  #top(stack: number[] | undefined, timeUs: number): number {
    if (stack === undefined) return -1;
    while (stack.length > 0 && this.#endUs[stack.at(-1)!]! < timeUs) stack.pop();
    return stack.at(-1) ?? -1;
  }
}

function stackOf<K>(stacks: Map<K, number[]>, key: K): number[] {
  let stack = stacks.get(key);
  if (stack === undefined) stacks.set(key, (stack = []));
  return stack;
}

/** Breakdown by annotation name. */
export function annotationBreakdown(work: Work, attribution: Attribution): AnnotationAnalysis {
  const { table } = work;
  const { annotations, of, parent } = attribution;
  const names = new Map<number, Gathered>();
  const byAnnotation: Gathered[] = [];
  annotations.forEach((row, a) => {
    const name = table.name[row]!;
    let gathered = names.get(name);
    if (gathered === undefined) names.set(name, (gathered = new Gathered(table.strings[name]!)));
    byAnnotation[a] = gathered;
    gathered.count++;
    gathered.hostUs += table.durationUs[row]!;
  });
  let unattributedUs = 0;
  let unattributedEvents = 0;
  let sum = 0;
  const mark = new Map<Gathered, number>();
  for (let i = 0; i < work.length; i++) {
    const duration = work.endUs[i]! - work.startUs[i]!;
    sum += duration;
    if (of[i]! < 0) {
      unattributedEvents++;
      unattributedUs += duration;
      continue;
    }
    byAnnotation[of[i]!]!.add(work, i, duration);
    // Each name once, however often it is nested in itself.
    for (let a = of[i]!; a >= 0; a = parent[a]!) {
      const outer = byAnnotation[a]!;
      if (mark.get(outer) === i) continue;
      mark.set(outer, i);
      outer.inclusiveUs += duration;
    }
  }
  const compute = work.devices.map((_, device) => work.timeOf(device, "computation"));
  return {
    kind: work.source === "lanes" ? "spans" : "annotations",
    annotations: [...names.values()].map((gathered) => gathered.done(work, compute, sum)),
    attributedEvents: work.length - unattributedEvents,
    unattributedEvents,
    unattributedUs: roundUs(unattributedUs),
  };
}

/** Sums of one annotation name. Events come in order of device and start. */
class Gathered {
  readonly name: string;
  count = 0;
  hostUs = 0;
  inclusiveUs = 0;
  events = 0;
  readonly groupUs: [number, number, number, number] = [0, 0, 0, 0];
  readonly streams = new Map<number, { events: number; sumUs: number; union: UnionBuilder }>();
  readonly communication = new Map<number, UnionBuilder>();

  constructor(name: string) {
    this.name = name;
  }

  add(work: Work, i: number, duration: number): void {
    this.events++;
    const group = work.group[i]! as 0 | 1 | 2 | 3;
    this.groupUs[group] += duration;
    const s = work.stream[i]!;
    let on = this.streams.get(s);
    if (on === undefined) {
      this.streams.set(s, (on = { events: 0, sumUs: 0, union: new UnionBuilder() }));
    }
    on.events++;
    on.sumUs += duration;
    on.union.add(work.startUs[i]!, work.endUs[i]!);
    if (group !== 1) return;
    const { device } = work.streams[s]!;
    let union = this.communication.get(device);
    if (union === undefined) this.communication.set(device, (union = new UnionBuilder()));
    union.add(work.startUs[i]!, work.endUs[i]!);
  }

  done(work: Work, compute: readonly Intervals[], sum: number): AnnotationBreakdown {
    const gpuUs = this.groupUs.reduce((a, b) => a + b, 0);
    let exposedUs = 0;
    for (const [device, union] of this.communication) {
      exposedUs += lengthOf(subtract(union.done(), compute[device]!));
    }
    return {
      name: this.name,
      count: this.count,
      hostUs: roundUs(this.hostUs),
      events: this.events,
      gpuUs: roundUs(gpuUs),
      inclusiveGpuUs: roundUs(this.inclusiveUs),
      computeUs: roundUs(this.groupUs[0]),
      communicationUs: roundUs(this.groupUs[1]),
      memoryUs: roundUs(this.groupUs[2]),
      exposedCommunicationUs: roundUs(exposedUs),
      sharePercent: percent(gpuUs, sum),
      streams: [...this.streams]
        .sort(([a], [b]) => a - b)
        .map(([s, { events, sumUs, union }]) => ({
          device: work.devices[work.streams[s]!.device]!.pid,
          stream: work.streams[s]!.stream,
          events,
          sumUs: roundUs(sumUs),
          busyUs: roundUs(lengthOf(union.done())),
        })),
    };
  }
}
