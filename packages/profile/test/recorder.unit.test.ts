// The trace as a viewer reads it: valid JSON, lanes by name, arrows in pairs, nothing lost unsaid.

import { nullRecorder, type Recorder, type TraceEvent, TraceRecorder } from "@open-infra/profile";
import { describe, expect, it } from "vitest";

interface Trace {
  readonly traceEvents: readonly TraceEvent[];
  readonly displayTimeUnit: string;
  readonly droppedEvents: number;
}

const written = (recorder: TraceRecorder): Trace => JSON.parse(JSON.stringify(recorder)) as Trace;

describe("a trace", () => {
  it("is a Chrome trace object with a span as it was recorded", () => {
    const recorder = new TraceRecorder({ processName: "server", processId: 7 });
    recorder.span("engine", "decode", 1000, { batch: 3, model: "demo", cached: true }, 250.5);
    expect(written(recorder)).toEqual({
      displayTimeUnit: "ms",
      droppedEvents: 0,
      traceEvents: [
        { name: "process_name", ph: "M", pid: 7, tid: 0, ts: 0, args: { name: "server" } },
        { name: "thread_name", ph: "M", pid: 7, tid: 1, ts: 0, args: { name: "engine" } },
        {
          name: "decode",
          ph: "X",
          pid: 7,
          tid: 1,
          ts: 1000,
          dur: 250.5,
          args: { batch: 3, model: "demo", cached: true },
        },
      ],
    });
  });

  it("measures a span from its start to now, on a clock shared by processes", () => {
    const recorder = new TraceRecorder();
    const before = Date.now() * 1000;
    const start = recorder.now();
    recorder.span("a", "work", start);
    const end = recorder.now();
    const span = recorder.events.at(-1) as TraceEvent;
    expect(span.ts).toBe(start);
    expect(span.dur).toBeGreaterThanOrEqual(0);
    expect(span.ts + (span.dur as number)).toBeLessThanOrEqual(end);
    expect(span).not.toHaveProperty("args");
    // The same day is enough to know the epoch and the unit; clocks may be adjusted under a test.
    expect(Math.abs(start - before)).toBeLessThan(86_400e6);
  });

  it("gives each lane one row, named once, in order of appearance", () => {
    const recorder = new TraceRecorder();
    for (const lane of ["http", "engine", "http", "kernels", "engine"]) {
      recorder.span(lane, "x", 1, undefined, 1);
    }
    const { traceEvents } = written(recorder);
    const rows = traceEvents.filter((event) => event.name === "thread_name");
    expect(rows.map(({ tid, args }) => [tid, args?.name])).toEqual([
      [1, "http"],
      [2, "engine"],
      [3, "kernels"],
    ]);
    const spans = traceEvents.filter((event) => event.ph === "X");
    expect(spans.map((event) => event.tid)).toEqual([1, 2, 1, 3, 2]);
  });

  it("keeps counters and both ends of an arrow", () => {
    const recorder = new TraceRecorder();
    recorder.counter("engine", "kv blocks", { used: 12, free: 52 });
    recorder.flow("http", "request", 9, "start");
    recorder.flow("engine", "request", 9, "end");
    const [counter, start, end] = written(recorder).traceEvents.filter((event) => event.ph !== "M");
    expect(counter).toMatchObject({ ph: "C", name: "kv blocks", args: { used: 12, free: 52 } });
    // A viewer joins the two by category, name and id.
    expect(start).toMatchObject({ ph: "s", cat: "flow", name: "request", id: 9, tid: 2 });
    expect(end).toMatchObject({ ph: "f", cat: "flow", name: "request", id: 9, tid: 1, bp: "e" });
    expect((end as TraceEvent).ts).toBeGreaterThanOrEqual((start as TraceEvent).ts);
  });

  it("stays valid JSON whatever names and values hold", () => {
    const recorder = new TraceRecorder({ processName: 'a "quoted"\nname' });
    recorder.span("\u2028\ud800", "\u0000</script>", 1, { "key\\": "\t", nan: Number.NaN }, 1);
    const span = written(recorder).traceEvents.at(-1) as TraceEvent;
    expect(span).toMatchObject({ name: "\u0000</script>", args: { "key\\": "\t", nan: null } });
  });

  it("counts what it drops, and never drops a lane's name", () => {
    const recorder = new TraceRecorder({ maxEvents: 3 });
    for (let i = 0; i < 5; i++) recorder.span(`lane ${i}`, `span ${i}`, i, undefined, 1);
    expect(recorder.dropped).toBe(2);
    const trace = written(recorder);
    expect(trace.droppedEvents).toBe(2);
    const names = (ph: string): string[] =>
      trace.traceEvents.filter((event) => event.ph === ph).map((event) => event.name);
    expect(names("X")).toEqual(["span 0", "span 1", "span 2"]);
    expect(names("M")).toHaveLength(1 + 5);
  });
});

describe("a trace of a device", () => {
  it("has Kineto's categories, a lane a stream, and arrows from launches to kernels", () => {
    const recorder = new TraceRecorder({
      processName: "rank 3",
      processId: 4,
      metadata: { distributedInfo: { rank: 3, world_size: 8 } },
    });
    const category = "cuda_runtime";
    recorder.record({ name: "launch", category, startUs: 10, durationUs: 2, correlation: 77 });
    const grid = [20, 1, 1];
    recorder.record({
      ...{ name: "dispatch", category: "kernel", startUs: 15, durationUs: 30, correlation: 77 },
      ...{ device: 1, stream: 27, args: { grid } },
    });
    recorder.record({ name: "step", lane: "main", startUs: 0, durationUs: 50 });
    const trace = written(recorder);
    expect(trace).toMatchObject({ distributedInfo: { rank: 3, world_size: 8 } });
    const [launch, start, kernel, end, step] = trace.traceEvents.filter(({ ph }) => ph !== "M");
    expect(launch).toMatchObject({
      ph: "X",
      cat: "cuda_runtime",
      args: { correlation: 77 },
      pid: 4,
    });
    expect(start).toMatchObject({ ph: "s", cat: "ac2g", id: 77, ts: 10, pid: 4, tid: launch?.tid });
    expect(kernel).toMatchObject({
      cat: "kernel",
      tid: 27,
      args: { device: 1, stream: 27, correlation: 77, grid },
    });
    expect(kernel?.pid).not.toBe(4);
    expect(end).toMatchObject({ ph: "f", bp: "e", cat: "ac2g", id: 77, ts: 15, pid: kernel?.pid });
    expect(step).toEqual({ name: "step", ph: "X", pid: 4, tid: 1, ts: 0, dur: 50 });
    const described = trace.traceEvents.filter(({ ph, pid }) => ph === "M" && pid === kernel?.pid);
    expect(described.map(({ name, tid, args }) => [name, tid, args])).toEqual([
      ["process_name", 0, { name: "rank 3" }],
      ["process_labels", 0, { labels: "GPU 1" }],
      ["thread_name", 27, { name: "stream 27" }],
    ]);
  });

  it("is the same in pieces of text, of which each event is made once", () => {
    const recorder = new TraceRecorder({ metadata: { a: "é" } });
    expect(JSON.parse([...recorder.text()].join(""))).toEqual(written(recorder));
    for (let i = 0; i < 10_000; i++) {
      recorder.record({ name: `n${i % 7}`, startUs: i, correlation: i, stream: i % 3 });
    }
    const before = recorder.events.length;
    expect(recorder.events).toBe(recorder.events);
    expect(before).toBe(2 * 10_000 + 3 + 3);
    const pieces = [...recorder.text()];
    expect(pieces.length).toBeGreaterThan(3);
    expect(JSON.parse(pieces.join(""))).toEqual(written(recorder));
  });
});

describe("the null recorder", () => {
  it("records nothing and reads no clock", () => {
    const recorder: Recorder = nullRecorder;
    expect(recorder.enabled).toBe(false);
    expect(recorder.now()).toBe(0);
    expect(recorder.span("a", "b", 0)).toBeUndefined();
    expect(recorder.counter("a", "b", { c: 1 })).toBeUndefined();
    expect(recorder.flow("a", "b", 1, "start")).toBeUndefined();
  });
});
