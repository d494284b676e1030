// What the reader makes of each form of the format, of metadata, pairs, odd values and limits.

import { gzipSync } from "node:zlib";
import { readTrace, TraceError, type TraceReaderOptions } from "@open-infra/profile/analyze";
import { describe, expect, it } from "vitest";
import { plainRow, plainRows } from "./trace-text.ts";

const X = { ph: "X", name: "a", pid: 1, tid: 2, ts: 10, dur: 5 };
const object = (...events: unknown[]): string => JSON.stringify({ traceEvents: events });

/** The TraceError of reading `source`. */
async function failure(source: string, options: TraceReaderOptions = {}): Promise<TraceError> {
  const result = await readTrace(source, options).catch((error: unknown) => error);
  expect(result).toBeInstanceOf(TraceError);
  return result as TraceError;
}

describe("the forms of a file", () => {
  it("an object with keys before and after, a bare array, and one without its end", async () => {
    const one = JSON.stringify(X);
    for (const text of [
      `{"a": 1, "traceEvents": [${one}], "b": {"c": [null]}}`,
      `\uFEFF [${one}]\n`,
      `[\n${one},\n`,
      `[${one}`,
      `[${one},]`,
      `[${one},{}]`,
    ]) {
      const table = await readTrace(text);
      expect(plainRows(table), text).toMatchObject([{ phase: "X", name: "a", durationUs: 5 }]);
      expect(table.notes.unterminatedArray, text).toBe(!text.includes("]"));
      expect(table.notes.stopped, text).toBeUndefined();
    }
    expect((await readTrace(`{"a": 1, "traceEvents": [], "b": {"c": [null]}}`)).metadata).toEqual({
      a: 1,
      b: { c: [null] },
    });
  });

  it("comes as text, bytes, pieces, a stream, gzip, with progress", async () => {
    const text = object(X, { ...X, name: "é漢😀".repeat(100_000) });
    const bytes = new TextEncoder().encode(text);
    const half = bytes.length >> 1;
    const zipped = gzipSync(bytes);
    async function* pieces(): AsyncGenerator<Uint8Array> {
      yield* [bytes.subarray(0, half), bytes.subarray(half)];
    }
    const sources = [
      text,
      bytes,
      bytes.slice().buffer,
      [bytes],
      pieces(),
      new Blob([bytes]).stream(),
      zipped,
      [zipped.subarray(0, 1), zipped.subarray(1, 90), zipped.subarray(90)],
    ];
    for (const source of sources) {
      const seen: number[] = [];
      const table = await readTrace(source, { onProgress: (read) => seen.push(read) });
      expect(plainRow(table, 1).name).toBe("é漢😀".repeat(100_000));
      expect(seen).toEqual(seen.toSorted((a, b) => a - b));
      expect(seen.at(-1)).toBeGreaterThan(0);
    }
  });

  it("is refused if it is nothing of the kind, and so are options", async () => {
    const wrong = (source: unknown): Promise<unknown> => readTrace(source as string);
    await expect(wrong(undefined)).rejects.toThrow("source is undefined; expected text");
    await expect(wrong({})).rejects.toThrow("source is object; expected text");
    await expect(wrong([1, 2])).rejects.toThrow("source is pieces of number");
    await expect(wrong([new Uint16Array(4)])).rejects.toThrow("pieces of bytes or text");
    await expect(readTrace("[]", { windowBytes: 3 })).rejects.toThrow("windowBytes is 3");
    const limits = { maxDepth: 0 };
    await expect(readTrace("[]", { limits })).rejects.toThrow("limits.maxDepth is 0");
  });

  it("stops on a signal though nothing comes", async () => {
    for (const source of [
      new ReadableStream<Uint8Array>({ pull: () => new Promise(() => {}) }),
      { [Symbol.asyncIterator]: () => ({ next: () => new Promise<never>(() => {}) }) },
    ]) {
      const controller = new AbortController();
      const reading = readTrace(source, { signal: controller.signal });
      setTimeout(() => controller.abort(new Error("enough")), 5);
      await expect(reading).rejects.toThrow("enough");
    }
  });

  it("stops on a signal with its reason, and lets the stream go", async () => {
    const controller = new AbortController();
    let cancelled = false;
    const endless = new ReadableStream<Uint8Array>({
      pull: (c) => c.enqueue(new TextEncoder().encode("  ".repeat(1000))),
      cancel: () => {
        cancelled = true;
      },
    });
    const reading = readTrace(endless, {
      signal: controller.signal,
      onProgress: () => controller.abort(new Error("enough")),
    });
    await expect(reading).rejects.toThrow("enough");
    expect(cancelled).toBe(true);
    await expect(readTrace("[", { signal: AbortSignal.abort() })).rejects.toThrow("aborted");
    // A file in memory gives way to whoever aborts, too.
    const other = new AbortController();
    setTimeout(() => other.abort(new Error("later")), 0);
    const large = new Uint8Array(50_000_000).fill(32);
    await expect(readTrace(large, { signal: other.signal })).rejects.toThrow("later");
  });
});

describe("times", () => {
  it("keep fractions that no float64 of today's time has", async () => {
    const text = `[{"ph":"X","name":"a","pid":0,"tid":0,"ts":1740461679470692.123,"dur":0.001},
      {"ph":"X","name":"b","pid":0,"tid":0,"ts":"1740461679470692.124","dur":"1.5"},
      {"ph":"i","name":"c","pid":0,"tid":0,"ts":1740461679470000},
      {"ph":"i","name":"d","pid":0,"tid":0,"ts":1.740461679470001e15}]`;
    const table = await readTrace(text);
    expect(table.originUs).toBe(1740461679470000);
    expect([...table.startUs]).toEqual([692.123, 692.124, 0, 1]);
    expect([...table.durationUs]).toEqual([0.001, 1.5, 0, 0]);
  });

  it("may be negative, and larger than integers are exact", async () => {
    const table = await readTrace(object({ ...X, ts: -7.25 }, { ...X, ts: 3 }));
    expect([table.originUs, ...table.startUs]).toEqual([-8, 0.75, 11]);
    const text = `[{"ph":"X","pid":0,"tid":0,"dur":1,"ts":1740461679470692123},
      {"ph":"X","pid":0,"tid":0,"dur":1,"ts":1740461679470692124}]`;
    const [first, second] = (await readTrace(text)).startUs;
    expect((second as number) - (first as number)).toBe(1);
    expect(first).toBeGreaterThanOrEqual(0);
  });

  it("that are missing or no numbers are errors; such durations are noted", async () => {
    const noTime = await failure(object(X, { ...X, ts: undefined }));
    expect(noTime).toMatchObject({ problem: "value", code: "input", eventIndex: 1, eventsRead: 1 });
    expect((await failure(object({ ...X, ts: "soon" }))).message).toBe(
      'ts is "soon"; expected a finite number of microseconds (byte 58, traceEvents[0])',
    );
    expect((await failure(object({ ...X, dur: [1] }))).message).toContain("dur is [1]; expected");
    expect((await failure('[{"ph":"X","ts":Infinity}]')).problem).toBe("value");
    const table = await readTrace(object({ ...X, dur: -3 }, { ...X, dur: undefined }));
    expect([...table.durationUs]).toEqual([0, 0]);
    expect(table.notes).toMatchObject({ negativeDurations: 1, missingDurations: 1 });
  });
});

describe("lanes", () => {
  const name = (what: string, pid: unknown, tid: unknown, args: unknown): unknown => ({
    ph: "M",
    name: what,
    pid,
    tid,
    args,
  });

  it("take names, labels and order from metadata anywhere; empty ones are left out", async () => {
    const table = await readTrace(
      object(
        name("process_name", 5, 0, { name: "late" }),
        { ...X, pid: 9, tid: 1 },
        { ...X, pid: 5, tid: 30 },
        { ...X, pid: "5", tid: "4" },
        { ...X, pid: 5, tid: "word" },
        name("thread_name", 5, 4, { name: "stream 4" }),
        name("thread_sort_index", 5, 30, { sort_index: -1 }),
        name("process_sort_index", 9, 0, { sort_index: "7" }),
        name("process_labels", 5, 0, { labels: "GPU 0" }),
        name("thread_name", 77, 77, { name: "no events" }),
        name("process_name", 6, 0, null),
      ),
    );
    expect(table.lanes.map(({ pid, tid, threadName }) => [pid, tid, threadName])).toEqual([
      [5, 30, ""],
      [5, 4, "stream 4"],
      [5, "word", ""],
      [9, 1, ""],
    ]);
    expect(table.lanes[0]).toMatchObject({ processName: "late", processLabels: "GPU 0" });
    expect(plainRows(table).map(({ tid }) => tid)).toEqual([1, 30, 4, "word"]);
  });
});

describe("pairs", () => {
  it("B and E nest on each lane; what does not match is noted", async () => {
    const at = (ph: string, ts: number, name: string, tid = 1): unknown => ({
      ph,
      ts,
      name,
      pid: 1,
      tid,
    });
    const table = await readTrace(
      object(
        at("B", 0, "outer"),
        at("B", 1, "inner"),
        at("B", 2, "elsewhere", 2),
        at("E", 4, ""),
        at("E", 9, ""),
        at("E", 10, ""),
      ),
    );
    expect(plainRows(table)).toMatchObject([
      { phase: "X", name: "outer", durationUs: 9 },
      { phase: "X", name: "inner", startUs: 1, durationUs: 3 },
      { phase: "B", name: "elsewhere", durationUs: 0 },
    ]);
    expect(table.notes).toMatchObject({ unmatchedEnds: 1, unclosedBegins: 1 });
  });

  it("b and e become spans on lanes of their own, as few as do not overlap", async () => {
    const at = (ph: string, ts: number, id: unknown, name: string): unknown => ({
      ...{ ph, ts, id, name, cat: "net", pid: 1, tid: ts },
    });
    const table = await readTrace(
      object(
        at("e", 20, "0x1", "request"),
        at("b", 0, "0x1", "request"),
        at("b", 5, "0x1", "connect"),
        at("e", 8, "0x1", "connect"),
        at("b", 10, 2, "request"),
        at("n", 11, 2, "tick"),
        at("e", 30, 2, "request"),
        at("b", 40, 3, "request"),
        at("e", 50, 3, "request"),
        at("e", 60, 4, "never begun"),
        at("b", 70, 5, "never ended"),
      ),
    );
    expect(plainRows(table)).toMatchObject([
      { phase: "X", name: "request", durationUs: 20, tid: "async net 0" },
      { phase: "X", name: "connect", durationUs: 3, tid: "async net 0" },
      { phase: "X", name: "request", durationUs: 20, tid: "async net 1" },
      { phase: "X", name: "request", durationUs: 10, tid: "async net 0" },
      { phase: "b", name: "never ended", durationUs: 0 },
    ]);
    expect(table.notes).toMatchObject({
      skippedPhases: { n: 1 },
      unmatchedEnds: 1,
      unclosedBegins: 1,
    });
  });
});

describe("args", () => {
  it("give columns on request and keep their text on request", async () => {
    const args = { bytes: 12.5, note: "é", correlation: 3_000_000_000, stream: 7, grid: [2, 3, 4] };
    const text = object({ ...X, args }, X, { ...X, ph: "C", args: { used: 1 } });
    const table = await readTrace(text, { argColumns: ["bytes", "used", "grid"], keepArgs: true });
    expect(plainRow(table, 0)).toMatchObject({
      correlation: 3_000_000_000,
      stream: 7,
      gridBlocks: 24,
    });
    expect([...(table.argColumns.bytes as Float64Array)]).toEqual([12.5, NaN, NaN]);
    expect([...(table.argColumns.used as Float64Array)]).toEqual([NaN, NaN, 1]);
    expect(JSON.parse(table.argsText(0) as string)).toEqual(args);
    expect(table.argsText(1)).toBeUndefined();
    const counters = await readTrace(text, { keepArgs: "counters" });
    expect([0, 1, 2, 3].map((i) => counters.argsText(i))).toEqual([
      undefined,
      undefined,
      '{"used":1}',
      undefined,
    ]);
    expect((await readTrace(text)).argsText(0)).toBeUndefined();
  });

  it("may hold what JSON has not: NaN, Infinity, raw control characters", async () => {
    const text = `{"m": {"x": NaN, "y": "NaN", "z": -Infinity, "t": "a\tb"}, "traceEvents": [
      {"ph":"X","name":"a\nb","pid":1,"tid":1,"ts":0,"dur":1,
       "args":{"occupancy":NaN,"a":[-inf,nan],"b":Infinity,"correlation":NaN}}]}`;
    const table = await readTrace(text, { argColumns: ["b", "occupancy"] });
    expect(plainRow(table, 0)).toMatchObject({ name: "a\nb", correlation: -1 });
    expect([...(table.argColumns.b as Float64Array)]).toEqual([Infinity]);
    expect([...(table.argColumns.occupancy as Float64Array)]).toEqual([NaN]);
    expect(table.metadata).toEqual({ m: { x: null, y: "NaN", z: null, t: "a\tb" } });
  });

  it("the last of duplicate keys counts", async () => {
    const text = `[{"ph":"B","ph":"X","name":"a","name":"b","pid":1,"tid":1,"ts":5,"ts":6,"dur":1,
      "args":{"correlation":1,"stream":2},"args":{"correlation":3}}]`;
    const table = await readTrace(text);
    expect(plainRows(table)).toMatchObject([{ phase: "X", name: "b", correlation: 3, stream: -1 }]);
    expect(table.originUs).toBe(6);
  });
});

describe("what is no trace", () => {
  it.each([
    ["", "truncated", "the trace is empty"],
    ["\n", "truncated", "the trace is empty"],
    ["hello", "syntax", "found 'h'; expected '{' or '['"],
    ['{"a": 1}', "syntax", "has no traceEvents"],
    ['{"traceEvents": {}}', "syntax", "found '{'; expected '[', because traceEvents is an array"],
    ['{"traceEvents": [] "a"}', "syntax", "found '\"'; expected ',' or '}'"],
    ["[] []", "syntax", "found '['; expected the end of the text"],
    ["[1]", "value", "an event is 1; expected an object"],
    ["[{}, null]", "value", "an event is null; expected an object"],
    ['[{"ph": 1}]', "value", "ph is 1; expected one ASCII letter"],
    ['[{"ph": "XX"}]', "value", 'ph is "XX"; expected one ASCII letter'],
    ['[{"name": "x"}]', "value", "ph is missing"],
    ['[{"ph":"X","name":{}}]', "value", "name is {}; expected a string or a number"],
    ['[{"ph":"X" "name":1}]', "syntax", "found '\"'; expected ',' or '}'"],
    ['[{"ph":"X",}]', "syntax", "found '}'; expected a key"],
    ['[{"a": tru}]', "syntax", "found 't'; expected a value"],
    ['[{"a": [1 2]}]', "syntax", "found '2'; expected ',' or ']'"],
    ['[{"a": [}]', "syntax", "expected a value"],
    ['[{"ph":"X","name":"\\x","ts":1}]', "syntax", "an escape JSON does not know"],
    ['{"a": 01, "traceEvents": []}', "syntax", "a value is no JSON"],
    ["\u0000", "syntax", "found byte 0x00"],
  ])("%j is a %s error: %s", async (text, problem, message) => {
    const error = await failure(text);
    expect([error.problem, error.code]).toEqual([problem, "input"]);
    expect(error.message).toContain(message);
    expect(error.message).toContain(`(byte ${error.byteOffset}`);
  });

  it("a tolerant reader leaves out unusable events and stops where the text breaks", async () => {
    const one = JSON.stringify(X);
    const text = `[${one}, 7, {"ph": "X", "ts": "x"}, {"ph":"X","ts":1,"dur":1}, {"a" 1}]`;
    const table = await readTrace(text, { tolerant: true });
    expect(table.length).toBe(2);
    expect(table.notes.malformedEvents).toBe(2);
    expect(table.notes.stopped).toMatchObject({ problem: "syntax", eventIndex: 4, eventsRead: 2 });
    await failure("hello", { tolerant: true });
  });

  it("damaged gzip names the byte, and a tolerant reader keeps what came before", async () => {
    const events = Array.from({ length: 20_000 }, (_, i) => ({
      ...X,
      ts: i,
      name: `n${i * 7919}`,
    }));
    const zipped = gzipSync(object(...events));
    const cut = zipped.subarray(0, zipped.length >> 1);
    const error = (await readTrace(cut).catch((e: unknown) => e)) as TraceError;
    expect(error).toMatchObject({ problem: "compression", code: "input" });
    expect(error.message).toContain(`ends early, after byte ${cut.length} of the gzip file`);
    const table = await readTrace(cut, { tolerant: true });
    expect(table.length).toBeGreaterThan(5_000);
    expect(table.notes.stopped).toMatchObject({ problem: "compression", eventsRead: table.length });
    const wrong = new Uint8Array(zipped);
    wrong[wrong.length - 6] = (wrong[wrong.length - 6] as number) ^ 1;
    await expect(readTrace(wrong)).rejects.toThrow("the gzip data is damaged");
    const twice = Buffer.concat([zipped, gzipSync("[]")]);
    await expect(readTrace(twice)).rejects.toThrow("of several members only one can be read");
    expect((await readTrace(twice, { tolerant: true })).length).toBe(events.length);
  });

  it("a source that fails in the middle of gzip rejects with its own reason", async () => {
    const zipped = gzipSync(object(X));
    async function* broken(): AsyncGenerator<Uint8Array> {
      yield zipped.subarray(0, 20);
      throw new Error("the disk is gone");
    }
    await expect(readTrace(broken(), { tolerant: true })).rejects.toThrow("the disk is gone");
  });
});

describe("limits", () => {
  it("end a hostile file with an error that names the limit", async () => {
    const deep = `[{"args":${"[".repeat(10_000_000)}`;
    expect(await failure(deep)).toMatchObject({ problem: "limit", eventIndex: 0 });
    const long = `[{"ph":"X","name":"${"x".repeat(200_000)}`;
    const tooLong = await failure(long, { limits: { maxValueBytes: 100_000 }, windowBytes: 1000 });
    expect(tooLong.message).toContain("longer than 100000 bytes (limits.maxValueBytes)");
    const many = object(...Array.from({ length: 30 }, (_, i) => ({ ...X, name: `n${i}`, tid: i })));
    for (const [limits, what] of [
      [{ maxEvents: 10 }, "more than 10 events (limits.maxEvents)"],
      [{ maxLanes: 10 }, "more than 10 lanes (limits.maxLanes)"],
      [{ maxStrings: 10 }, "more than 10 different strings (limits.maxStrings)"],
      [{ maxTextBytes: 10 }, "bytes of different strings (limits.maxTextBytes)"],
    ] as const) {
      const error = await failure(many, { limits });
      expect(error.problem).toBe("limit");
      expect(error.message).toContain(what);
    }
    const kept = await readTrace(many, { limits: { maxEvents: 10 }, tolerant: true });
    expect(kept.length).toBe(10);
    expect(kept.notes.stopped).toBeInstanceOf(TraceError);
  });

  it("do not stand in the way of a large event", async () => {
    const name = "long ".repeat(400_000);
    const table = await readTrace(object(X, { ...X, name }, X), { windowBytes: 64 });
    expect(plainRow(table, 1).name).toBe(name);
    expect(table.length).toBe(3);
  });
});
