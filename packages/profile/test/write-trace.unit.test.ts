// What is written is read back row for row, alone, in part and merged.

import { TraceRecorder } from "@open-infra/profile";
import {
  type EventTable,
  EventTableBuilder,
  mergeTraces,
  readTrace,
  writeTrace,
} from "@open-infra/profile/analyze";
import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { type PlainRow, plainRow, plainRows, randomTrace } from "./trace-text.ts";

function expectRows(actual: readonly PlainRow[], expected: readonly PlainRow[], note = ""): void {
  expect(actual.length, note).toBe(expected.length);
  actual.forEach((row, i) => {
    const other = expected[i] as PlainRow;
    expect(Math.abs(row.startUs - other.startUs), `${note} row ${i}`).toBeLessThan(1e-6);
    expect({ ...row, startUs: 0 }, `${note} row ${i}`).toEqual({ ...other, startUs: 0 });
  });
}

const written = (table: EventTable, rows?: Iterable<number>): string =>
  [...writeTrace(table, { rows })].join("");

describe("writeTrace", () => {
  it("is JSON that reads back as the same table", async () => {
    const random = seededRandom(testSeed());
    for (let round = 0; round < 60; round++) {
      const note = `seed ${random.seed}, round ${round}`;
      const keepArgs = random.next() < 0.5;
      const table = await readTrace(randomTrace(random, random.int(1, 40)).text, { keepArgs });
      const text = written(table);
      expect(() => JSON.parse(text), note).not.toThrow();
      const again = await readTrace(writeTrace(table), { keepArgs });
      expect(again.originUs, note).toBe(table.originUs);
      expectRows(plainRows(again), plainRows(table), note);
      expect(again.lanes, note).toEqual(table.lanes);
      expect(again.metadata, note).toEqual({ schemaVersion: 1, ...table.metadata });
      // The second writing has nothing left to change.
      expect(written(again), note).toBe(text);
    }
  });

  it("spells times as they were, to the nanosecond", async () => {
    const text = `[{"ph":"X","name":"a","pid":1,"tid":1,"ts":1740461679470692.123,"dur":1.001},
      {"ph":"X","name":"a","pid":1,"tid":1,"ts":1740461679470630.5,"dur":0}]`;
    const events = written(await readTrace(text));
    expect(events).toContain('"ts": 1740461679470692.123, "dur": 1.001');
    expect(events).toContain('"ts": 1740461679470630.5,');
    const negative = await readTrace(`[{"ph":"i","ts":-7.25},{"ph":"i","ts":1e-7}]`);
    const back = await readTrace(writeTrace(negative));
    expect([...back.startUs]).toEqual([...negative.startUs]);
  });

  it("writes what other readers know where ours knows more", async () => {
    const text = `{"traceEvents":[{"ph":"X","name":"a\tb","pid":1,"tid":1,"ts":0,"dur":1,
      "args":{"occupancy":NaN,"note":"x\ty"}},{"ph":"B","name":"open","pid":1,"tid":1,"ts":2}]}`;
    const again = JSON.parse(written(await readTrace(text, { keepArgs: true }))) as {
      traceEvents: { ph: string; args?: unknown }[];
    };
    const events = again.traceEvents.filter(({ ph }) => ph !== "M");
    expect(events[0]).toMatchObject({ name: "a\tb", args: { occupancy: null, note: "x\ty" } });
    expect(events[1]?.ph).toBe("B");
  });

  it("writes a selection with its lanes alone", async () => {
    const builder = new EventTableBuilder({ argColumns: ["bytes"] });
    for (let i = 0; i < 10; i++) {
      builder.describeThread(1, i, { name: `thread ${i}`, sortIndex: -i });
      builder.add({ pid: 1, tid: i, name: `n${i}`, startUs: i, args: { bytes: i * 10 } });
    }
    const table = builder.finish({ a: 1 });
    const part = await readTrace(writeTrace(table, { rows: [7, 2], metadata: { b: 2 } }), {
      argColumns: ["bytes"],
    });
    expect(plainRows(part).map(({ name, tid }) => [name, tid])).toEqual([
      ["n7", 7],
      ["n2", 2],
    ]);
    expect(part.lanes.map(({ threadName }) => threadName)).toEqual(["thread 7", "thread 2"]);
    expect([...(part.argColumns.bytes as Float64Array)]).toEqual([70, 20]);
    expect(part.metadata).toEqual({ schemaVersion: 1, b: 2 });
  });
});

describe("a recorder's trace", () => {
  it("is read as it was recorded", async () => {
    const recorder = new TraceRecorder({ processName: "p" });
    recorder.record({
      ...{ name: "launch", category: "cuda_runtime", startUs: 1e15 + 0.5, durationUs: 2 },
      correlation: 9,
    });
    recorder.record({
      ...{ name: "k", category: "kernel", startUs: 1e15 + 10, durationUs: 30, stream: 27 },
      ...{ correlation: 9, args: { grid: [20, 2, 1], "External id": 4 } },
    });
    const table = await readTrace(recorder.text(), { argColumns: ["External id"] });
    expect(plainRows(table)).toMatchObject([
      { phase: "X", name: "launch", startUs: 0.5, correlation: 9, stream: -1 },
      { phase: "s", category: "ac2g", flowId: "9" },
      { phase: "X", name: "k", startUs: 10, correlation: 9, stream: 27, gridBlocks: 40 },
      { phase: "f", category: "ac2g", flowId: "9" },
    ]);
    expect([...(table.argColumns["External id"] as Float64Array)]).toEqual([NaN, NaN, 4, NaN]);
  });
});

describe("mergeTraces", () => {
  const trace = (originUs: number, correlation: number): Promise<EventTable> => {
    const recorder = new TraceRecorder({ processName: "engine", metadata: { rank: originUs } });
    recorder.record({ name: "launch", startUs: originUs, durationUs: 1, correlation });
    recorder.record({ name: "k", startUs: originUs + 5, durationUs: 1, correlation, stream: 7 });
    return readTrace(recorder.text(), { keepArgs: true });
  };

  it("keeps processes, launches and arrows of several traces apart", async () => {
    const tables = [await trace(100, 5), await trace(120, 5), await trace(90, 0)];
    const merged = mergeTraces(tables, { names: ["rank 0", "rank 1", "rank 2"] });
    expect(merged.length).toBe(12);
    expect(merged.originUs).toBe(90);
    expect([...merged.startUs].filter((_, i) => i % 4 === 0)).toEqual([10, 30, 0]);
    expect(new Set(merged.lanes.map(({ pid }) => pid)).size).toBe(6);
    expect(merged.lanes.map(({ processName }) => processName)).toEqual(
      ["rank 0", "rank 0", "rank 1", "rank 1", "rank 2", "rank 2"].map((rank) => `${rank} engine`),
    );
    const rows = plainRows(merged);
    const correlations = rows.filter(({ phase }) => phase === "X").map((row) => row.correlation);
    expect(correlations).toEqual([5, 5, 11, 11, 12, 12]);
    expect(rows.filter(({ phase }) => phase === "s").map((row) => row.flowId)).toEqual([
      "5",
      "1:5",
      "2:0",
    ]);
    expect(JSON.parse(merged.argsText(6) as string)).toMatchObject({ correlation: 11 });
    expect(merged.metadata).toMatchObject({
      rank: 100,
      mergedMetadata: [{ rank: 100 }, { rank: 120 }, { rank: 90 }],
    });
    const again = await readTrace(writeTrace(merged), { keepArgs: true });
    expectRows(plainRows(again), rows);
    expect(again.lanes).toEqual(merged.lanes);
  });

  it("lets clocks that are not in step begin together", async () => {
    const merged = mergeTraces([await trace(100, 5), await trace(1e15, 5)], { align: "start" });
    expect(plainRow(merged, 0).startUs).toBe(0);
    expect(plainRow(merged, 4).startUs).toBe(0);
  });

  it("says what it cannot merge", async () => {
    expect(() => mergeTraces([])).toThrow("tables is an empty list");
    const table = await trace(1, 1);
    expect(() => mergeTraces([table], { names: [] })).toThrow("0 names");
  });
});
