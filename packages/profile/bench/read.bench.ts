// The reader beside JSON.parse, which needs the whole text and all objects at once; the bound is a
// pass that only adds up the bytes. Also gzip, the writer, and what recording an event costs. All
// times are CPU time of the process.

import { gunzipSync, gzipSync } from "node:zlib";
import { type Recorder, type TraceEvent, TraceRecorder } from "@open-infra/profile";
import { type EventTable, readTrace, writeTrace } from "@open-infra/profile/analyze";
import { type BenchRow, median } from "@open-infra/testing";
import { kinetoText } from "./kineto-text.ts";

/**
 * Milliseconds this process has computed, the garbage collector's threads included: on a shared
 * machine the clock on the wall says less.
 */
function processMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** CPU time of each of `contenders`, ms, in turns A B A B; the median of each. */
async function turns(
  rounds: number,
  contenders: readonly (() => unknown)[],
): Promise<readonly number[]> {
  const samples: number[][] = contenders.map(() => []);
  for (let round = 0; round <= rounds; round++) {
    for (const [i, contender] of contenders.entries()) {
      const start = processMs();
      await contender();
      // The first round compiles.
      if (round > 0) (samples[i] as number[]).push(processMs() - start);
    }
  }
  return samples.map(median);
}

/** A pass over the bytes that does nothing else. */
function sumBytes(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i++) sum = (sum + (bytes[i] as number)) | 0;
  return sum;
}

/** What one would write without a reader: parse it all, then fill the same columns. */
function parseAll(bytes: Uint8Array): number {
  const { traceEvents } = JSON.parse(new TextDecoder().decode(bytes)) as {
    traceEvents: (TraceEvent & { args?: { correlation?: number; stream?: number } })[];
  };
  const strings = new Map<string, number>();
  const lanes = new Map<string, number>();
  const index = (map: Map<string, number>, key: string): number => {
    let at = map.get(key);
    if (at === undefined) map.set(key, (at = map.size));
    return at;
  };
  const n = traceEvents.length;
  const phase = new Uint8Array(n);
  const columns = Array.from({ length: 4 }, () => new Uint32Array(n)) as Uint32Array[];
  const [name, category, lane, flow] = columns as [
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
  ];
  const startUs = new Float64Array(n);
  const durationUs = new Float64Array(n);
  const correlation = new Float64Array(n);
  const stream = new Int32Array(n);
  traceEvents.forEach((event, i) => {
    phase[i] = event.ph.charCodeAt(0);
    name[i] = index(strings, event.name);
    category[i] = index(strings, event.cat ?? "");
    lane[i] = index(lanes, `${event.pid} ${event.tid}`);
    flow[i] = event.id === undefined ? 0xffffffff : index(strings, String(event.id));
    startUs[i] = event.ts - 1_740_461_679_470_630;
    durationUs[i] = event.dur ?? 0;
    correlation[i] = event.args?.correlation ?? -1;
    stream[i] = event.args?.stream ?? -1;
  });
  return n;
}

const megabytes = (bytes: number, ms: number): string => `${(bytes / ms / 1000).toFixed(0)} MB/s`;

function encode(pieces: Iterable<string>): Uint8Array {
  return Buffer.concat([...pieces].map((piece) => Buffer.from(piece)));
}

async function readRows(bytes: number, rounds: number): Promise<BenchRow[]> {
  const rows: BenchRow[] = [];
  for (const fractions of [false, true]) {
    const text = encode(kinetoText({ bytes, fractions }));
    let table: EventTable | undefined;
    const [ours = 0, parsed = 0, sum = 0] = await turns(rounds, [
      async () => {
        table = await readTrace(text);
      },
      () => parseAll(text),
      () => sumBytes(text),
    ]);
    rows.push({
      case: fractions ? "read, ts with nanoseconds" : "read, ts in whole µs",
      shape: `${(text.length / 1e6).toFixed(0)} MB, ${table?.length} events`,
      us: ours * 1000,
      rate: megabytes(text.length, ours),
      boundRatio: sum / ours,
      bound: "bandwidth",
      peer: "JSON.parse and columns",
      peerRatio: parsed / ours,
    });
  }
  return rows;
}

async function gzipRow(bytes: number, rounds: number): Promise<BenchRow> {
  const text = encode(kinetoText({ bytes }));
  const zipped = gzipSync(text);
  const [ours = 0, native = 0] = await turns(rounds, [
    () => readTrace(zipped),
    () => readTrace(gunzipSync(zipped)),
  ]);
  return {
    case: "read gzip",
    shape: `${(zipped.length / 1e6).toFixed(1)} MB of ${(text.length / 1e6).toFixed(0)}`,
    us: ours * 1000,
    rate: megabytes(text.length, ours),
    peer: "zlib whole, then read",
    peerRatio: native / ours,
  };
}

async function writeRow(bytes: number, rounds: number): Promise<BenchRow> {
  const table = await readTrace(encode(kinetoText({ bytes })));
  let written = 0;
  const [ours = 0, objects = 0] = await turns(rounds, [
    () => {
      written = 0;
      for (const piece of writeTrace(table)) written += piece.length;
    },
    () => JSON.stringify(objectsOf(table)),
  ]);
  return {
    case: "write",
    shape: `${table.length} events, ${(written / 1e6).toFixed(0)} MB`,
    us: ours * 1000,
    rate: megabytes(written, ours),
    peer: "JSON.stringify of objects",
    peerRatio: objects / ours,
  };
}

function objectsOf(table: EventTable): unknown[] {
  return Array.from({ length: table.length }, (_, i) => {
    const lane = table.lanes[table.lane[i] as number];
    const flow = table.flowId[i] as number;
    return {
      ph: String.fromCharCode(table.phase[i] as number),
      cat: table.strings[table.category[i] as number],
      name: table.strings[table.name[i] as number],
      pid: lane?.pid,
      tid: lane?.tid,
      ts: table.originUs + (table.startUs[i] as number),
      dur: table.durationUs[i],
      ...(flow === 0xffffffff ? {} : { id: table.strings[flow] }),
      args: { correlation: table.correlation[i], stream: table.stream[i] },
    };
  });
}

/** Keeps an object an event; what the recorder did before it had columns. */
class ObjectRecorder implements Recorder {
  readonly enabled = true;
  readonly events: TraceEvent[] = [];
  readonly #lanes = new Map<string, number>();

  now(): number {
    return (performance.timeOrigin + performance.now()) * 1000;
  }

  span(lane: string, name: string, startUs: number, args?: TraceEvent["args"]): void {
    const dur = this.now() - startUs;
    let tid = this.#lanes.get(lane);
    if (tid === undefined) this.#lanes.set(lane, (tid = this.#lanes.size + 1));
    this.events.push({ name, ph: "X", pid: 1, tid, ts: startUs, dur, ...(args && { args }) });
  }

  counter(): void {}
  flow(): void {}
}

const kernels = Array.from({ length: 40 }, (_, i) => `kernel ${i}`);

function recordSpans(recorder: Recorder, count: number): void {
  for (let i = 0; i < count; i++) {
    const startUs = recorder.now();
    recorder.span("engine", kernels[i % 40] as string, startUs, { batch: i });
  }
}

async function recorderRows(count: number, rounds: number): Promise<BenchRow[]> {
  const [ours = 0, objects = 0, detailed = 0, clock = 0] = await turns(rounds, [
    () => recordSpans(new TraceRecorder(), count),
    () => recordSpans(new ObjectRecorder(), count),
    () => {
      const recorder = new TraceRecorder();
      for (let i = 0; i < count; i++) {
        const startUs = recorder.now();
        const name = kernels[i % 40] as string;
        recorder.record({ name, startUs, category: "kernel", stream: 7, correlation: i });
      }
    },
    () => {
      const recorder = new TraceRecorder();
      for (let i = 0; i < 2 * count; i++) recorder.now();
    },
  ]);
  const row = (name: string, shape: string, ms: number): BenchRow => ({
    case: name,
    shape,
    us: (ms * 1000) / count,
    rate: `${(count / ms / 1000).toFixed(1)} M/s`,
    boundRatio: clock / ms,
    bound: "compute",
  });
  const shape = `${count} events`;
  return [
    { ...row("record a span", shape, ours), peer: "an object each", peerRatio: objects / ours },
    row("record a kernel", shape, detailed),
  ];
}

/** Rows of the package's README; the limit of recording is reading the clock twice. */
export async function run(options: { readonly quick?: boolean } = {}): Promise<BenchRow[]> {
  const quick = options.quick ?? false;
  const bytes = quick ? 5e6 : 100e6;
  const rounds = quick ? 1 : 5;
  return [
    ...(await readRows(bytes, rounds)),
    await gzipRow(bytes, rounds),
    await writeRow(bytes / 2, rounds),
    ...(await recorderRows(quick ? 20_000 : 300_000, rounds)),
  ];
}
