// From an event table to what the page holds: rows, colours, arrows, counters, and the analyser's
// sets of busy time. Runs in the worker, once a trace.

import {
  builtinRules,
  classMask,
  createClassifier,
  type EventTable,
  type Intervals,
  intersect,
  selectWork,
  unionOfClasses,
  unionOfStream,
  type Work,
} from "@open-infra/profile/analyze";
import { collectCounters } from "../timeline/counters.ts";
import { findLinks } from "../timeline/flows.ts";
import { stackIntervals } from "../timeline/intervals.ts";
import type { OverlapSets } from "../timeline/overlap.ts";
import { kindOfClass, kindOfSpan, workKinds } from "../timeline/palette.ts";
import type { StreamBusy } from "../timeline/range-stats.ts";
import { layRows, type SliceRows } from "../timeline/rows.ts";
import type { TraceData } from "../timeline/trace-data.ts";

/** Arranges a trace for the page. */
export function buildTraceData(table: EventTable, title: string): TraceData {
  const rows = layRows(table);
  const work = selectWork(table);
  const { kindOfSlot, kinds } = colorSlots(table, rows, work);
  return {
    title,
    originUs: table.originUs,
    spanUs: spanOf(table),
    events: table.length,
    lanes: table.lanes,
    strings: table.strings,
    name: table.name,
    category: table.category,
    lane: table.lane,
    phase: table.phase,
    startUs: table.startUs,
    durationUs: table.durationUs,
    rows,
    kindOfSlot,
    kinds,
    workSource: work.source,
    workEvents: work.row,
    workClass: work.classId,
    classes: [...work.classes],
    work: workSpan(work),
    overlap: overlapSets(work),
    streams: streamsOf(work),
    links: findLinks(table, rows),
    counters: collectCounters(table),
    notes: table.notes,
  };
}

function spanOf({ length, startUs, durationUs }: EventTable): number {
  let spanUs = 0;
  for (let i = 0; i < length; i++) {
    spanUs = Math.max(spanUs, (startUs[i] as number) + (durationUs[i] as number));
  }
  return spanUs;
}

function workSpan({ devices, startUs, endUs }: Work): TraceData["work"] {
  let first = Infinity;
  let last = 0;
  let deviceSpansUs = 0;
  for (const device of devices) {
    let end = 0;
    // In order of their start.
    const start = startUs[device.first] as number;
    for (let i = device.first; i < device.end; i++) end = Math.max(end, endUs[i] as number);
    deviceSpansUs += end - start;
    first = Math.min(first, start);
    last = Math.max(last, end);
  }
  return { startUs: Math.min(first, last), endUs: last, deviceSpansUs };
}

function overlapSets(work: Work): OverlapSets {
  const maskOf = (group: string): Uint8Array => classMask(work, (each) => each.group === group);
  const computationMask = maskOf("computation");
  const communicationMask = maskOf("communication");
  const all = classMask(work, () => true);
  const computation: Intervals[] = [];
  const communication: Intervals[] = [];
  const both: Intervals[] = [];
  const busy: Intervals[] = [];
  for (const device of work.devices.keys()) {
    const computing = unionOfClasses(work, device, computationMask);
    const communicating = unionOfClasses(work, device, communicationMask);
    computation.push(computing);
    communication.push(communicating);
    both.push(intersect(computing, communicating));
    busy.push(unionOfClasses(work, device, all));
  }
  return {
    devices: work.devices.length,
    computation: stackIntervals(computation),
    communication: stackIntervals(communication),
    both: stackIntervals(both),
    busy: stackIntervals(busy),
  };
}

function streamsOf(work: Work): StreamBusy[] {
  const several = work.devices.length > 1;
  return work.streams.map(({ device, stream, name }, index) => {
    const own = name === "" || name.includes(String(stream)) ? name : `${name} ${stream}`;
    const title = own === "" ? `stream ${stream}` : own;
    const process = work.devices[device];
    const prefix = several && process ? `${process.name || "process"} ${process.pid} · ` : "";
    return { title: prefix + title, busy: stackIntervals([unionOfStream(work, index)]) };
  });
}

/** Classes colour the work, categories and names the rest; `kinds` lists what occurs. */
function colorSlots(
  table: EventTable,
  rows: SliceRows,
  work: Work,
): { kindOfSlot: Uint8Array; kinds: number[] } {
  const kindOfEvent = new Uint8Array(table.length).fill(255);
  const ofClass = work.classes.map((each, id) => (id === 0 ? -1 : kindOfClass(each)));
  const other = workKinds.findIndex(({ token }) => token === "work-compute");
  const onDevice = work.source === "device";
  for (let k = 0; k < work.length; k++) {
    const event = work.row[k] as number;
    const known = ofClass[work.classId[k] as number] as number;
    // Where lanes stand in for a device, what no rule knows keeps the tint of its name.
    if (known >= 0) kindOfEvent[event] = known;
    else if (onDevice) kindOfEvent[event] = other;
  }
  const spanKind = spanColors(table);
  const kindOfSlot = new Uint8Array(rows.event.length);
  const timeUs = new Float64Array(workKinds.length);
  for (let slot = 0; slot < kindOfSlot.length; slot++) {
    const event = rows.event[slot] as number;
    let kind = kindOfEvent[event] as number;
    if (kind === 255) kind = spanKind(event);
    kindOfSlot[slot] = kind;
    timeUs[kind]! += table.durationUs[event] as number;
  }
  const kinds = [...timeUs.keys()].filter((kind) => (timeUs[kind] as number) > 0);
  return { kindOfSlot, kinds: kinds.sort((a, b) => (timeUs[b] ?? 0) - (timeUs[a] ?? 0)) };
}

/** Colours of spans that are no work; cells of a pipeline have theirs beside kernels too. */
function spanColors({ name, category, strings }: EventTable): (event: number) => number {
  const classifier = createClassifier(builtinRules);
  const known = new Map<number, number>();
  return (event) => {
    const nameId = name[event] as number;
    const categoryId = category[event] as number;
    const key = categoryId * strings.length + nameId;
    let kind = known.get(key);
    if (kind === undefined) {
      const text = strings[nameId] ?? "";
      const found = classifier.classes[classifier.classOf(text, strings[categoryId] ?? "")];
      kind = found?.name.startsWith("pipeline_")
        ? kindOfClass(found)
        : kindOfSpan(strings[categoryId] ?? "", text);
      known.set(key, kind);
    }
    return kind;
  };
}

/** Every buffer of the data, once, to be transferred. */
export function buffersOf(value: unknown, found: Set<ArrayBuffer> = new Set()): Set<ArrayBuffer> {
  if (ArrayBuffer.isView(value)) {
    if (value.buffer instanceof ArrayBuffer) found.add(value.buffer);
  } else if (Array.isArray(value)) {
    // Lists of plain texts are the longest ones and hold no buffers.
    if (typeof value[0] === "object") for (const entry of value) buffersOf(entry, found);
  } else if (typeof value === "object" && value !== null) {
    for (const entry of Object.values(value)) buffersOf(entry, found);
  }
  return found;
}
