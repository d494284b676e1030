// What an analysis works on: the events that did something on a device, classified, clipped to a
// selection, in columns sorted by device and start, with the streams they ran on. Traces without a
// device (our own runtimes, CPU-only profiles) give the innermost spans of their lanes instead.

import { InputError } from "@open-infra/errors";
import {
  type Classifier,
  createClassifier,
  type KernelClass,
  type KernelGroup,
  kernelGroups,
} from "./classify.ts";
import type { EventTable } from "./event-table.ts";
import { type Intervals, UnionBuilder } from "./intervals.ts";
import { innermostSpans } from "./nesting.ts";
import { sortIndices } from "./order.ts";
import { builtinRules } from "./rules.ts";
import { deviceOf, streamsOf, type WorkDevice, type WorkStream } from "./streams.ts";

/** Which part of a trace to analyse. */
export interface Selection {
  /** µs since the table's origin; events are cut to the range. @default the trace's start */
  readonly startUs?: number;
  /** @default the trace's end */
  readonly endUs?: number;
  /** Indices into the table's lanes. @default all */
  readonly lanes?: readonly number[];
  /** Devices, as `WorkDevice.pid` names them. @default all */
  readonly devices?: readonly (string | number)[];
}

/** How to read a trace. */
export interface WorkOptions {
  /** Cut to this part. */
  readonly selection?: Selection;
  /** @default one of `builtinRules` */
  readonly classifier?: Classifier;
  /**
   * `device`: what ran on GPUs. `lanes`: the innermost spans of every lane. `auto`: lanes only if
   * nothing ran on a device. @default "auto"
   */
  readonly source?: "auto" | "device" | "lanes";
}

/** Events to analyse, in columns, sorted by device, start, end. */
export interface Work {
  readonly table: EventTable;
  readonly source: "device" | "lanes";
  readonly length: number;
  /** Row in the table. */
  readonly row: Uint32Array;
  /** Cut to the selection. */
  readonly startUs: Float64Array;
  readonly endUs: Float64Array;
  /** Index into `classes`. */
  readonly classId: Uint16Array;
  /** Index into `kernelGroups`. */
  readonly group: Uint8Array;
  /** Index into `streams`. */
  readonly stream: Uint32Array;
  readonly classes: readonly KernelClass[];
  readonly devices: readonly WorkDevice[];
  readonly streams: readonly WorkStream[];
  /** Events grouped by stream, within a stream by start. */
  readonly streamEvents: Uint32Array;
  /** When at least one event of a group ran on a device. */
  timeOf(device: number, group: KernelGroup): Intervals;
}

const PHASE_X = 88;
/** Categories of host work and of bookkeeping, some of which carry a stream all the same. */
const hostCategory = new RegExp(
  "^(?:cpu_op|.*_?(?:runtime|driver)|(?:gpu_)?user_annotation|python_function|cuda_sync|" +
    "overhead|trace|ac2g|fwdbwd|async_.*|cpu_instant_event|cuda_profiler_range|collective_comm)$",
  "i",
);
const deviceCategory = /^(?:(?:concurrent_)?kernel|gpu_mem(?:cpy|set)|gpu_op|mem(?:cpy|set))$/i;

/** Which rows ran on a device: by category, or by a stream where the category is not known. */
export function deviceRows(table: EventTable): Uint32Array {
  const kind = new Uint8Array(table.strings.length);
  const rows = new Uint32Array(table.length);
  let count = 0;
  for (let i = 0; i < table.length; i++) {
    if (table.phase[i] !== PHASE_X) continue;
    const category = table.category[i]!;
    let known = kind[category]!;
    if (known === 0) {
      const text = table.strings[category]!;
      known = deviceCategory.test(text) ? 1 : hostCategory.test(text) ? 2 : 3;
      kind[category] = known;
    }
    if (known === 1 || (known === 3 && table.stream[i]! >= 0)) rows[count++] = i;
  }
  return rows.subarray(0, count);
}

/** Collects and classifies the events of a trace that did work. */
export function selectWork(table: EventTable, options: WorkOptions = {}): Work {
  const wanted = options.source ?? "auto";
  let rows: Uint32Array = wanted === "lanes" ? new Uint32Array(0) : deviceRows(table);
  const source = wanted === "auto" ? (rows.length > 0 ? "device" : "lanes") : wanted;
  if (source === "lanes") rows = innermostSpans(table);
  const selection = options.selection ?? {};
  checkRange(selection);
  rows = selectLanes(table, source, rows, selection);
  return build(table, source, clip(table, rows, selection), options.classifier);
}

function checkRange({ startUs, endUs }: Selection): void {
  for (const [parameter, value] of Object.entries({ startUs, endUs })) {
    if (value !== undefined && Number.isNaN(value)) {
      throw new InputError(`selection.${parameter}`, "NaN", "a number of microseconds");
    }
  }
}

function selectLanes(
  table: EventTable,
  source: "device" | "lanes",
  rows: Uint32Array,
  selection: Selection,
): Uint32Array {
  const { lanes, devices } = selection;
  if (lanes === undefined && devices === undefined) return rows;
  const ids = devices && new Set(devices.map(String));
  const keep = table.lanes.map(
    (each, lane) =>
      (ids === undefined || ids.has(String(deviceOf(each, source)))) &&
      (lanes === undefined || lanes.includes(lane)),
  );
  return rows.filter((row) => keep[table.lane[row]!]);
}

/** Rows, and their times cut to the selection. */
interface Clipped {
  readonly rows: Uint32Array;
  readonly startUs: Float64Array;
  readonly endUs: Float64Array;
}

function clip(table: EventTable, rows: Uint32Array, selection: Selection): Clipped {
  const low = selection.startUs ?? Number.NEGATIVE_INFINITY;
  const high = selection.endUs ?? Number.POSITIVE_INFINITY;
  const startUs = new Float64Array(rows.length);
  const endUs = new Float64Array(rows.length);
  const kept = new Uint32Array(rows.length);
  let count = 0;
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i]!;
    const start = table.startUs[row]!;
    const end = start + table.durationUs[row]!;
    // What only touches the range is outside, but for an instant at its start.
    if (start >= high || end < low || (end === low && start < end)) continue;
    startUs[count] = start < low ? low : start;
    endUs[count] = end > high ? high : end;
    kept[count++] = row;
  }
  return { rows: kept.subarray(0, count), startUs, endUs };
}

/** Everything about `rows`, whose cut times are given beside them, sorted. */
function build(
  table: EventTable,
  source: "device" | "lanes",
  { rows, startUs, endUs }: Clipped,
  classifier: Classifier = createClassifier(builtinRules),
): Work {
  const { devices, streams, streamOf } = streamsOf(table, source, rows);
  const order = groupOrder(rows.length, devices, (i) => streams[streamOf[i]!]!.device);
  for (const { first, end } of devices) sortIndices(order, startUs, endUs, first, end);
  const row = gather(new Uint32Array(rows.length), rows, order);
  const stream = gather(new Uint32Array(rows.length), streamOf, order);
  return withTimes({
    table,
    source,
    length: rows.length,
    row,
    startUs: gather(new Float64Array(rows.length), startUs, order),
    endUs: gather(new Float64Array(rows.length), endUs, order),
    ...classify(table, row, classifier),
    stream,
    devices,
    streams,
    streamEvents: groupOrder(rows.length, streams, (i) => stream[i]!),
  });
}

/** Indices 0 to `length`, brought together by group, within a group as they were. */
function groupOrder(
  length: number,
  groups: readonly { readonly first: number }[],
  groupOf: (i: number) => number,
): Uint32Array {
  const fill = Uint32Array.from(groups, ({ first }) => first);
  const order = new Uint32Array(length);
  for (let i = 0; i < length; i++) order[fill[groupOf(i)]!++] = i;
  return order;
}

function gather<T extends Uint32Array | Float64Array>(to: T, from: T, order: Uint32Array): T {
  for (let i = 0; i < order.length; i++) to[i] = from[order[i]!]!;
  return to;
}

/** Adds the sets of time, each found when first asked for. */
function withTimes(work: Omit<Work, "timeOf">): Work {
  const known = new Map<string, Intervals>();
  const whole: Work = {
    ...work,
    timeOf: (device, group) => {
      const key = `${device} ${group}`;
      let set = known.get(key);
      if (set === undefined) {
        const mask = classMask(whole, (each) => each.group === group);
        known.set(key, (set = unionOfClasses(whole, device, mask)));
      }
      return set;
    },
  };
  return whole;
}

function classify(
  table: EventTable,
  row: Uint32Array,
  classifier: Classifier,
): { classId: Uint16Array; group: Uint8Array; classes: readonly KernelClass[] } {
  const { strings } = table;
  const classId = new Uint16Array(row.length);
  const group = new Uint8Array(row.length);
  // One answer a name, for the category it came with first; names of two categories are rare.
  const answer = new Int32Array(strings.length).fill(-1);
  const answerCategory = new Uint32Array(strings.length);
  const others = new Map<string, number>();
  for (let i = 0; i < row.length; i++) {
    const name = table.name[row[i]!]!;
    const category = table.category[row[i]!]!;
    let id = answer[name]!;
    if (id < 0) {
      id = classifier.classOf(strings[name]!, strings[category]!);
      answer[name] = id;
      answerCategory[name] = category;
    } else if (answerCategory[name] !== category) {
      const key = `${name} ${category}`;
      id = others.get(key) ?? classifier.classOf(strings[name]!, strings[category]!);
      others.set(key, id);
    }
    classId[i] = id;
  }
  const groupOf = classifier.classes.map((each) => kernelGroups.indexOf(each.group));
  for (let i = 0; i < row.length; i++) group[i] = groupOf[classId[i]!]!;
  return { classId, group, classes: classifier.classes };
}

/** Union of the time of those events of a device whose class is in the mask. */
export function unionOfClasses(work: Work, device: number, mask: Uint8Array): Intervals {
  const { first, end } = work.devices[device]!;
  const builder = new UnionBuilder(256);
  const { startUs, endUs, classId } = work;
  for (let i = first; i < end; i++) {
    if (mask[classId[i]!] === 1) builder.add(startUs[i]!, endUs[i]!);
  }
  return builder.done();
}

/** A mask over the classes of `work`, for `unionOfClasses`. */
export function classMask(work: Work, test: (each: KernelClass) => boolean): Uint8Array {
  return Uint8Array.from(work.classes, (each) => (test(each) ? 1 : 0));
}

/** Union of the time of all events of a stream. */
export function unionOfStream(work: Work, stream: number): Intervals {
  const { first, end } = work.streams[stream]!;
  const builder = new UnionBuilder(256);
  for (let k = first; k < end; k++) {
    const i = work.streamEvents[k]!;
    builder.add(work.startUs[i]!, work.endUs[i]!);
  }
  return builder.done();
}
