// Which devices and streams a set of events ran on, in an order that does not depend on the file's.
// Work on it is work.ts's business.

import type { EventTable, TraceLane } from "./event-table.ts";

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

/** Devices and streams, sorted, and each event's stream. */
export interface Streams {
  readonly devices: readonly WorkDevice[];
  readonly streams: readonly WorkStream[];
  /** Index into `streams`, in the order of the rows given. */
  readonly streamOf: Uint32Array;
}

/** What a lane belongs to; see `WorkDevice.pid`. */
export function deviceOf(
  { pid, threadName }: TraceLane,
  source: "device" | "lanes",
): string | number {
  return source === "lanes" && /^rank \d+$/.test(threadName) ? threadName : pid;
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
function compareIds(a: string | number, b: string | number): number {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

/** Devices by pid and streams by number, with how many of `rows` ran on each. */
export function streamsOf(
  table: EventTable,
  source: "device" | "lanes",
  rows: Uint32Array,
): Streams {
  const seen = findStreams(table, source, rows);
  const deviceRank = ranks(seen.devices, (a, b) => compareIds(a.pid, b.pid));
  const streamRank = ranks(
    seen.streams,
    (a, b) => deviceRank[a.device]! - deviceRank[b.device]! || compareIds(a.stream, b.stream),
  );
  const { streamOf } = seen;
  for (let i = 0; i < streamOf.length; i++) streamOf[i] = streamRank[streamOf[i]!]!;
  const devices: WorkDevice[] = [];
  for (const each of sortedBy(seen.devices, deviceRank)) {
    const first = devices.at(-1)?.end ?? 0;
    devices.push({ pid: each.pid, name: each.name, first, end: first + each.events });
  }
  const streams: WorkStream[] = [];
  for (const { device, stream, name, events } of sortedBy(seen.streams, streamRank)) {
    const first = streams.at(-1)?.end ?? 0;
    streams.push({ device: deviceRank[device]!, stream, name, first, end: first + events });
  }
  return { devices, streams, streamOf };
}

/** `items` in the order that `rank` gives them. */
function sortedBy<T>(items: readonly T[], rank: Uint32Array): readonly T[] {
  const out: T[] = [];
  items.forEach((item, i) => {
    out[rank[i]!] = item;
  });
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
