// The model of the trace page apart from rows: figures equal to the analyser's, arrows, counters,
// search, lanes, colours, what is told of mended files.

import {
  analyzeTrace,
  type EventTable,
  EventTableBuilder,
  readTrace,
} from "@open-infra/profile/analyze";
import { type Random, seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { counterAt, counterLine } from "../web/src/pages/trace/timeline/counters.ts";
import { linksIn, partnersOf } from "../web/src/pages/trace/timeline/flows.ts";
import { coveredIn, stackIntervals } from "../web/src/pages/trace/timeline/intervals.ts";
import { bandAt, layLanes, placeOfRow, rowAt } from "../web/src/pages/trace/timeline/lanes.ts";
import { kindOfClass, kindOfSpan, workKinds } from "../web/src/pages/trace/timeline/palette.ts";
import { rangeStats } from "../web/src/pages/trace/timeline/range-stats.ts";
import { layRows } from "../web/src/pages/trace/timeline/rows.ts";
import {
  findSlices,
  firstHitFrom,
  nextHit,
  parseQuery,
} from "../web/src/pages/trace/timeline/search.ts";
import {
  rangeInput,
  slotName,
  type TraceData,
} from "../web/src/pages/trace/timeline/trace-data.ts";
import { noteTexts, savedName } from "../web/src/pages/trace/view/texts.ts";
import { buffersOf, buildTraceData } from "../web/src/pages/trace/worker/build-data.ts";
import { exampleTrace } from "../web/src/pages/trace/worker/example.ts";
import { knownFigures, knownTrace } from "./helpers/trace-files.ts";

const known = async (): Promise<TraceData> =>
  buildTraceData(await readTrace(JSON.stringify(knownTrace()), { keepArgs: true }), "known");

const kernelNames = ["deep_gemm::fp8_gemm", "ncclAllReduce", "rms_norm", "Memcpy DtoD"];

/** Kernels of two devices with three streams each, which overlap in every way. */
function randomTable(random: Random, count: number): EventTable {
  const builder = new EventTableBuilder();
  for (let i = 0; i < count; i++) {
    const tid = random.int(1, 4);
    builder.add({
      pid: random.int(0, 2),
      tid,
      stream: tid,
      category: "kernel",
      name: random.pick(kernelNames),
      startUs: random.int(0, 8000) / 4,
      durationUs: random.int(0, 200) / 4,
    });
  }
  return builder.finish({});
}

describe("figures", () => {
  it("of a trace known by hand", async () => {
    const data = await known();
    const { overlap, classes } = rangeStats(rangeInput(data), data.work);
    expect(overlap).toMatchObject(knownFigures);
    expect(overlap.hiddenShare).toBeCloseTo(50 / 120, 12);
    const named = classes.map((sum) => [data.classes[sum.classId]?.name, sum.count, sum.totalUs]);
    expect(named).toEqual([
      ["gemm_fp8", 2, 200],
      ["ep_dispatch", 1, 120],
    ]);
  });

  it("are the analyser's, for the whole trace and for any range of it", () => {
    const seed = testSeed();
    const random = seededRandom(seed);
    for (let round = 0; round < 25; round++) {
      const table = randomTable(random, random.int(1, 300));
      const data = buildTraceData(table, "random");
      const startUs = round === 0 ? data.work.startUs : random.int(0, 6000) / 4;
      const endUs = round === 0 ? data.work.endUs : startUs + random.int(1, 4000) / 4;
      const selection = round === 0 ? {} : { startUs, endUs };
      const analysis = analyzeTrace(table, { selection });
      const stats = rangeStats(rangeInput(data), { startUs, endUs });
      const message = `seed ${seed}, round ${round}`;
      const { summary, kernels } = analysis;
      expect(stats.overlap.busyUs, message).toBeCloseTo(summary.busyUs, 2);
      expect(stats.overlap.computationUs, message).toBeCloseTo(summary.computeUs, 2);
      expect(stats.overlap.communicationUs, message).toBeCloseTo(summary.communicationUs, 2);
      expect(stats.overlap.overlapUs, message).toBeCloseTo(summary.overlapUs, 2);
      expect(stats.overlap.exposedUs, message).toBeCloseTo(summary.exposedCommunicationUs, 2);
      expect(stats.count, message).toBe(kernels.events);
      const sums = new Map(stats.names.map((sum) => [data.strings[sum.id], sum]));
      expect(sums.size, message).toBe(kernels.kernelNames);
      for (const kernel of kernels.kernels) {
        expect(sums.get(kernel.name)?.count, message).toBe(kernel.count);
        expect(sums.get(kernel.name)?.totalUs, message).toBeCloseTo(kernel.sumUs, 2);
        expect(sums.get(kernel.name)?.meanUs, message).toBeCloseTo(kernel.meanUs, 2);
      }
      const busy = stats.streams.reduce((sum, stream) => sum + stream.busyUs, 0);
      const told = analysis.devices.flatMap(({ streams }) => streams);
      const expected = told.reduce((sum, stream) => sum + stream.busyUs, 0);
      expect(busy, message).toBeCloseTo(expected, 1);
    }
  });

  it("takes the innermost spans where nothing ran on a device", async () => {
    const events = [
      { ph: "X", pid: 1, tid: 1, ts: 0, dur: 100, name: "step" },
      { ph: "X", pid: 1, tid: 1, ts: 10, dur: 50, name: "work" },
    ];
    const data = buildTraceData(await readTrace(JSON.stringify(events)), "lanes");
    expect(data.workSource).toBe("lanes");
    expect(rangeStats(rangeInput(data), data.work).totalUs).toBe(50);
  });
});

describe("stackIntervals", () => {
  it("sums the cover of any window", () => {
    const seed = testSeed();
    const random = seededRandom(seed + 1);
    const sets = Array.from({ length: 4 }, () => {
      let at = random.int(0, 10);
      const bounds = Array.from({ length: 60 }, () => (at += random.int(1, 9)));
      return { length: 30, bounds: Float64Array.from(bounds) };
    });
    for (const some of [sets, sets.slice(0, 1), []]) {
      const density = stackIntervals(some);
      for (let round = 0; round < 200; round++) {
        const from = random.int(-10, 400) / 2;
        const to = from + random.int(0, 200) / 2;
        let expected = 0;
        for (const { bounds } of some) {
          for (let i = 0; i < bounds.length; i += 2) {
            expected += Math.max(0, Math.min(bounds[i + 1]!, to) - Math.max(bounds[i]!, from));
          }
        }
        expect(coveredIn(density, from, to), `seed ${seed}`).toBeCloseTo(expected, 9);
      }
    }
  });
});

describe("arrows", () => {
  it("lead from launches to kernels once, and along flows", async () => {
    const data = await known();
    const name = (slot: number): string => slotName(data, slot);
    const slotOf = (wanted: string): number =>
      [...data.rows.event.keys()].find((slot) => name(slot).startsWith(wanted)) as number;
    const dispatch = partnersOf(data.links, slotOf("deep_ep"));
    expect(dispatch.outOf.map(name).toSorted()).toEqual(["aten::linear", "cudaLaunchKernel"]);
    expect(dispatch.into).toEqual([]);
    expect(partnersOf(data.links, slotOf("aten::linear")).into.map(name)).toEqual([
      "deep_ep::internode::dispatch<false, 8>",
    ]);
    expect(data.links.from.length).toBe(4);
    expect(data.links.unbound).toBe(0);
    expect(linksIn(data.links, data.rows, { startUs: 0, endUs: 400 }, 10).count).toBe(4);
    expect(linksIn(data.links, data.rows, { startUs: 0, endUs: 400 }, 3)).toEqual({
      count: 4,
      links: [],
    });
    expect(linksIn(data.links, data.rows, { startUs: 400, endUs: 900 }, 10).count).toBe(0);
  });

  it("follow steps, fan out, and pair an id that is used again", async () => {
    const span = (ts: number, name: string) => ({ ph: "X", pid: 1, tid: 1, ts, dur: 8, name });
    const flow = (ph: string, ts: number, id: number, cat = "c") => ({
      ...{ ph, pid: 1, tid: 1, ts, id, cat, name: "f" },
    });
    const spans = ["a", "b", "c", "d", "e", "f"].map((name, index) => span(index * 10, name));
    const links = async (flows: object[]): Promise<string[]> => {
      const text = JSON.stringify([...spans, ...flows]);
      const data = buildTraceData(await readTrace(text), "flows");
      return [...data.links.from].map(
        (from, k) => slotName(data, from) + slotName(data, data.links.to[k] as number),
      );
    };
    expect(await links([flow("f", 21, 1), flow("s", 1, 1), flow("t", 11, 1)])).toEqual([
      "ab",
      "bc",
    ]);
    expect(await links([flow("s", 1, 1), flow("f", 11, 1), flow("f", 21, 1)])).toEqual([
      "ab",
      "ac",
    ]);
    const again = [flow("s", 1, 1), flow("f", 11, 1), flow("s", 21, 1), flow("f", 31, 1)];
    expect(await links(again)).toEqual(["ab", "cd"]);
    // The same id in another category is another arrow.
    expect(await links([flow("s", 1, 1), flow("f", 11, 1, "other")])).toEqual([]);
  });
});

describe("counters", () => {
  it("are one line a series, with the peak of every pixel", async () => {
    const data = await known();
    const [queue] = data.counters;
    expect(data.counters.map(({ title, max }) => [title, max])).toEqual([["queue", 3]]);
    const at = (timeUs: number): number => counterAt(queue!, timeUs);
    expect([at(0), at(60), at(199), at(200)]).toEqual([Number.NaN, 3, 3, 1]);
  });

  it("shows the highest value of every pixel", async () => {
    const seed = testSeed();
    const random = seededRandom(seed + 2);
    const events = Array.from({ length: 2000 }, (_, k) => ({
      ...{ ph: "C", pid: 1, tid: 1, ts: k * 3, name: "n", args: { v: random.int(0, 1000) } },
    }));
    const data = buildTraceData(await readTrace(JSON.stringify(events), { keepArgs: true }), "c");
    const track = data.counters[0]!;
    const line = new Float64Array(97);
    const view = { startUs: -100, usPerPx: 66.6, widthPx: 97 };
    counterLine(track, view, line);
    for (let x = 0; x < 97; x++) {
      const from = view.startUs + x * view.usPerPx;
      const values = events.filter(({ ts }) => ts > from && ts <= from + view.usPerPx);
      const held = events.findLast(({ ts }) => ts <= from);
      const all = [...values, ...(held ? [held] : [])].map(({ args }) => args.v);
      const expected = all.length === 0 ? Number.NaN : Math.max(...all);
      expect(line[x], `seed ${seed}, pixel ${x}`).toBe(expected);
    }
  });
});

describe("search", () => {
  it("takes words in any case, and expressions", async () => {
    const data = await known();
    const count = (text: string): number => findSlices(data, parseQuery(text)).slots.length;
    expect(["GEMM", "/^deep_/", "/^DEEP_/i", "nothing", "  "].map(count)).toEqual([2, 3, 3, 0, 0]);
    expect(parseQuery("/(/")).toHaveProperty("problem");
    // A stateful flag must not change what is found.
    expect(count("/gemm/g")).toBe(2);
  });

  it("goes through all hits in order of time and around", async () => {
    const data = await known();
    const hits = findSlices(data, parseQuery("/./"));
    const times = [...hits.byTime].map((slot) => data.rows.start[slot] as number);
    expect(times).toEqual(times.toSorted((a, b) => a - b));
    const visited = new Set<number>();
    let at = -1;
    for (let k = 0; k < hits.byTime.length; k++) {
      at = nextHit(hits, at, 1);
      visited.add(at);
    }
    expect(visited.size).toBe(hits.byTime.length);
    expect(nextHit(hits, at, 1)).toBe(0);
    expect(nextHit(hits, 0, -1)).toBe(hits.byTime.length - 1);
    expect(times[firstHitFrom(hits, data.rows, 61)]).toBe(100);
    expect(firstHitFrom(hits, data.rows, 1e9)).toBe(0);
  });
});

describe("lanes", () => {
  it("stand below each other, fold, and are found by place", async () => {
    const data = await known();
    const layout = layLanes({ ...data, folded: new Set() });
    expect(layout.bands.map(({ title }) => title)).toEqual([
      "python3 0",
      "stream 7",
      "stream 27",
      "host process 9",
      "main thread",
      "queue",
    ]);
    for (const [index, band] of layout.bands.entries()) {
      expect(bandAt(layout, band.y)).toBe(index);
      expect(bandAt(layout, band.y + band.height - 0.5)).toBe(index);
    }
    const host = layout.bands[4]!;
    const second = host.firstRow + 1;
    const place = placeOfRow(layout, host.lane, second)!;
    expect(rowAt(host, place.top + 1)).toBe(second);
    const folded = layLanes({ ...data, folded: new Set([host.key, "p:0"]) });
    expect(folded.bands.map(({ title }) => title)).toEqual([
      "python3 0",
      "host process 9",
      "main thread",
      "queue",
    ]);
    expect(placeOfRow(folded, 0, 0)).toBeUndefined();
    expect(bandAt(layout, -1)).toBe(-1);
    expect(bandAt(layout, layout.height)).toBe(-1);
  });
});

describe("colours", () => {
  it("tell communication from computation, and are there for every kind", () => {
    const token = (name: string, group: string): string | undefined =>
      workKinds[kindOfClass({ name, group, family: "", variant: "" } as never)]?.token;
    expect(token("ep_dispatch", "communication")).toBe("work-dispatch");
    expect(token("gemm_fp8", "computation")).toBe("work-gemm");
    expect(token("mine", "communication")).toBe("work-collective");
    expect(token("memcpy", "memory")).toBe("work-memory");
    expect(workKinds[kindOfSpan("user_annotation", "x")]?.token).toBe("work-annotation");
    expect(kindOfSpan("cpu_op", "step 1")).toBe(kindOfSpan("cpu_op", "step 22"));
  });
});

describe("the example", () => {
  it("is the same every time, and what it says it is", async () => {
    const text = exampleTrace();
    expect(exampleTrace()).toBe(text);
    const table = await readTrace(text, { keepArgs: true });
    const data = buildTraceData(table, "example");
    const analysis = analyzeTrace(table);
    expect(data.overlap.devices).toBe(8);
    expect(data.counters).toHaveLength(8);
    expect(data.links.unbound).toBe(0);
    expect(noteTexts(data.notes)).toEqual([]);
    // The overlapped cells hide most of the transfers, the others cannot.
    expect(analysis.summary.overlapPercent).toBeGreaterThan(50);
    expect(analysis.summary.overlapPercent).toBeLessThan(100);
    // Streams run one kernel at a time.
    for (const [lane, info] of data.lanes.entries()) {
      const depth = (data.rows.laneRow[lane + 1] as number) - (data.rows.laneRow[lane] as number);
      expect(depth, `${info.processName} ${info.threadName}`).toBe(1);
    }
  });
});

describe("handing over", () => {
  it("transfers every column once", async () => {
    const data = await known();
    const buffers = buffersOf(data);
    const copy = structuredClone(data, { transfer: [...buffers] });
    expect(copy.rows.start.length).toBeGreaterThan(0);
    expect(data.startUs.length).toBe(0);
    expect(data.overlap.busy.before.length).toBe(0);
    expect(layRows({ ...copy, length: copy.events }).start).toEqual(copy.rows.start);
  });
});

describe("what is told", () => {
  it("of a file that was mended", async () => {
    const text = '[{"ph":"E","pid":1,"tid":1,"ts":5},{"ph":"X","pid":1,"tid":1,"ts":1,"dur":-3}';
    const { notes } = await readTrace(text);
    expect(noteTexts(notes)).toEqual([
      "1 ends without a beginning left out",
      "1 negative durations shown as 0",
      "the array of events was not closed",
    ]);
  });

  it("of where it was saved", () => {
    expect(["a.json.gz", "b", "c/d.JSON", "step.trace"].map(savedName)).toEqual([
      "a.json",
      "b.json",
      "c_d.JSON",
      "step.trace.json",
    ]);
  });
});
