// What an analysis works on: the events that did something on a device, classified, clipped to a
// selection, in columns sorted by device and start, with the streams they ran on. Traces without a
// device (our own runtimes, CPU-only profiles) give the innermost spans of their lanes instead.

import { InputError } from "@open-infra/errors";
import { type Classifier, createClassifier, type KernelClass, kernelGroups } from "./classify.ts";
import type { EventTable, TraceLane } from "./event-table.ts";
import { type Intervals, UnionBuilder } from "./intervals.ts";
import { innermostSpans } from "./nesting.ts";
import { sortIndices } from "./order.ts";
import { builtinRules } from "./rules.ts";

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

/** A device, or what stands for one where lanes are analysed. Its events are `first` to `end`. */
export interface WorkDevice {
  /** The `pid`; of a lane named `rank 3`, that name: ranks share nothing, even in one process. */
  readonly pid: string | number;
  readonly name: string;
  readonly first: number;
  readonly end: number;
}

/** A stream of a device, or a lane. Its events are `streamEvents[first..end)`, by start. */
export interface WorkStream {
  /** Index into `devices`. */
  readonly device: number;
  /** The stream's number, or the lane's `tid` where there are no streams. */
  readonly stream: string | number;
  readonly name: string;
  readonly first: number;
  readonly end: number;
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
  const startUs = new Float64Array(table.length);
  const endUs = new Float64Array(table.length);
  rows = clip(table, rows, selection, startUs, endUs);
  return build(table, source, rows, startUs, endUs, options.classifier);
}

function checkRange({ startUs, endUs }: Selection): void {
  for (const [parameter, value] of Object.entries({ startUs, endUs })) {
    if (value !== undefined && Number.isNaN(value)) {
      throw new InputError(`selection.${parameter}`, "NaN", "a number of microseconds");
    }
  }
}

/** What a lane belongs to; see `WorkDevice.pid`. */
export function deviceOf(
  { pid, threadName }: TraceLane,
  source: "device" | "lanes",
): string | number {
  return source === "lanes" && /^rank \d+$/.test(threadName) ? threadName : pid;
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

function clip(
  table: EventTable,
  rows: Uint32Array,
  selection: Selection,
  startUs: Float64Array,
  endUs: Float64Array,
): Uint32Array {
  const low = selection.startUs ?? Number.NEGATIVE_INFINITY;
  const high = selection.endUs ?? Number.POSITIVE_INFINITY;
  let count = 0;
  const kept = new Uint32Array(rows.length);
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i]!;
    const start = table.startUs[row]!;
    const end = start + table.durationUs[row]!;
    // What only touches the range is outside, but for an instant at its start.
    if (start >= high || end < low || (end === low && start < end)) continue;
    startUs[row] = start < low ? low : start;
    endUs[row] = end > high ? high : end;
    kept[count++] = row;
  }
  return kept.subarray(0, count);
}

interface StreamSeen {
  readonly device: number;
  readonly stream: string | number;
  readonly name: string;
  events: number;
}

/** Devices and streams in order of first appearance, and the stream of each row. */
function findStreams(table: EventTable, source: "device" | "lanes", rows: Uint32Array) {
  const devices: { pid: string | number; name: string; events: number }[] = [];
  const deviceIds = new Map<string, number>();
  const streams: StreamSeen[] = [];
  const byKey = new Map<number, number>();
  const laneDevice = table.lanes.map(() => -1);
  const streamOf = new Uint32Array(rows.length);
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i]!;
    const laneId = table.lane[row]!;
    const lane = table.lanes[laneId]!;
    if (laneDevice[laneId] === -1) {
      const pid = deviceOf(lane, source);
      if (!deviceIds.has(String(pid))) {
        deviceIds.set(String(pid), devices.length);
        devices.push({ pid, name: lane.processName, events: 0 });
      }
      laneDevice[laneId] = deviceIds.get(String(pid))!;
    }
    const device = laneDevice[laneId]!;
    const number = source === "device" ? table.stream[row]! : -1;
    // A stream is known by its number on its device; what has none, by its lane.
    const key = number >= 0 ? number * 2 ** 20 + device : -1 - laneId;
    let id = byKey.get(key);
    if (id === undefined) {
      const stream = number >= 0 ? number : lane.tid;
      const same = streams.findIndex((s) => s.device === device && s.stream === stream);
      id =
        same >= 0 ? same : streams.push({ device, stream, name: lane.threadName, events: 0 }) - 1;
      byKey.set(key, id);
    }
    streamOf[i] = id;
    streams[id]!.events++;
    devices[device]!.events++;
  }
  return { devices, streams, streamOf };
}

/** Numbers before words, numbers by size, also within words: `rank 2` before `rank 10`. */
export function compareIds(a: string | number, b: string | number): number {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

function build(
  table: EventTable,
  source: "device" | "lanes",
  rows: Uint32Array,
  tableStartUs: Float64Array,
  tableEndUs: Float64Array,
  classifier: Classifier = createClassifier(builtinRules),
): Work {
  const seen = findStreams(table, source, rows);
  const deviceRank = ranks(seen.devices, (a, b) => compareIds(a.pid, b.pid));
  const streamRank = ranks(
    seen.streams,
    (a, b) => deviceRank[a.device]! - deviceRank[b.device]! || compareIds(a.stream, b.stream),
  );
  const length = rows.length;
  const bounds = new Uint32Array(seen.devices.length + 1);
  seen.devices.forEach(({ events }, d) => {
    bounds[deviceRank[d]! + 1] = events;
  });
  for (let d = 0; d < seen.devices.length; d++) bounds[d + 1]! += bounds[d]!;
  const fill = bounds.slice();
  const row = new Uint32Array(length);
  const streamOfRow = new Uint32Array(table.length);
  for (let i = 0; i < length; i++) {
    const id = seen.streamOf[i]!;
    row[fill[deviceRank[seen.streams[id]!.device]!]!++] = rows[i]!;
    streamOfRow[rows[i]!] = streamRank[id]!;
  }
  for (let d = 0; d < seen.devices.length; d++) {
    sortIndices(row, tableStartUs, tableEndUs, bounds[d]!, bounds[d + 1]!);
  }
  const devices: WorkDevice[] = [];
  seen.devices.forEach(({ pid, name }, d) => {
    const at = deviceRank[d]!;
    devices[at] = { pid, name, first: bounds[at]!, end: bounds[at + 1]! };
  });
  const stream = row.length === 0 ? new Uint32Array(0) : row.map((r) => streamOfRow[r]!);
  const grouped = groupByStream(seen.streams, streamRank, deviceRank, stream);
  return {
    table,
    source,
    length,
    row,
    startUs: gather(tableStartUs, row),
    endUs: gather(tableEndUs, row),
    ...classify(table, row, classifier),
    stream,
    devices,
    ...grouped,
  };
}

function gather(column: Float64Array, row: Uint32Array): Float64Array {
  const out = new Float64Array(row.length);
  for (let i = 0; i < row.length; i++) out[i] = column[row[i]!]!;
  return out;
}

/** `ranks(items)[i]` is the place of item `i` once sorted. */
function ranks<T>(items: readonly T[], compare: (a: T, b: T) => number): Uint32Array {
  const order = items.map((_, i) => i).sort((a, b) => compare(items[a]!, items[b]!));
  const out = new Uint32Array(items.length);
  order.forEach((item, place) => {
    out[item] = place;
  });
  return out;
}

function groupByStream(
  seen: readonly StreamSeen[],
  streamRank: Uint32Array,
  deviceRank: Uint32Array,
  stream: Uint32Array,
): { streams: readonly WorkStream[]; streamEvents: Uint32Array } {
  const bounds = new Uint32Array(seen.length + 1);
  seen.forEach(({ events }, s) => {
    bounds[streamRank[s]! + 1] = events;
  });
  for (let s = 0; s < seen.length; s++) bounds[s + 1]! += bounds[s]!;
  const streams: WorkStream[] = [];
  seen.forEach((each, s) => {
    const at = streamRank[s]!;
    streams[at] = {
      device: deviceRank[each.device]!,
      stream: each.stream,
      name: each.name,
      first: bounds[at]!,
      end: bounds[at + 1]!,
    };
  });
  const fill = bounds.slice();
  const streamEvents = new Uint32Array(stream.length);
  for (let i = 0; i < stream.length; i++) streamEvents[fill[stream[i]!]!++] = i;
  return { streams, streamEvents };
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
