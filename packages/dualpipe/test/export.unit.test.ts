// Exports of simulated runs: SVG that is well formed and says what ran, traces that load back,
// text.

import { TraceRecorder } from "@open-infra/profile";
import { readTrace } from "@open-infra/profile/analyze";
import { describe, expect, it } from "vitest";
import { escapeXml } from "../src/export/svg-parts.ts";
import {
  buildSchedule,
  builtInNames,
  compareWithTrace,
  dualPipe,
  measuredRun,
  OpKind,
  oneFOneB,
  type Schedule,
  simulate,
  timesFromTrace,
  toChromeTrace,
  toSvg,
  toTextTimeline,
  withCommunication,
  zb1p,
} from "../src/index.ts";

const unit = { F: 1, B: 2, W: 1, FB: 3 } as const;
const small = dualPipe({ numRanks: 4, numMicroBatches: 8 });
const run = simulate(small, unit, { communication: { latency: 0.25 } });

const computations = ({ ranks }: Schedule): number =>
  ranks.reduce((n, { kind }) => n + kind.filter((k) => k <= OpKind.FB).length, 0);

/** Names of elements by count; throws if tags, attributes or text are not XML. */
function elementsOf(xml: string): Map<string, number> {
  const counts = new Map<string, number>();
  const open: string[] = [];
  const tag = /<(\/?)([a-zA-Z]+)((?: [a-zA-Z][\w:-]*="[^"<]*")*)(\/?)>|([^<]+)/y;
  while (tag.lastIndex < xml.length) {
    const at = tag.lastIndex;
    const match = tag.exec(xml);
    if (match === null) throw new Error(`not XML at ${at}: ${xml.slice(at, at + 80)}`);
    const [, close, name = "", attributes = "", empty, text = ""] = match;
    for (const value of [attributes, text]) {
      if (/&(?!(?:amp|lt|gt|quot|#39);)/.test(value)) throw new Error(`bare & in ${value}`);
    }
    const keys = [...attributes.matchAll(/ ([a-zA-Z][\w:-]*)=/g)].map(([, key]) => key);
    if (new Set(keys).size !== keys.length) throw new Error(`repeated attribute: ${attributes}`);
    if (name === "") continue;
    if (close === "/") {
      if (open.pop() !== name) throw new Error(`</${name}> closes nothing`);
      continue;
    }
    counts.set(name, (counts.get(name) ?? 0) + 1);
    if (empty !== "/") open.push(name);
  }
  if (open.length > 0) throw new Error(`${open.join(", ")} not closed`);
  return counts;
}

describe("SVG", () => {
  it("is well formed for every schedule, and holds every computation", () => {
    for (const name of builtInNames) {
      const schedule = buildSchedule(name, { numRanks: 4, numMicroBatches: 12 });
      const svg = toSvg(schedule, simulate(schedule, unit));
      const elements = elementsOf(svg);
      // One title of the picture, one tooltip a computation.
      expect(elements.get("title"), name).toBe(1 + computations(schedule));
      expect(elements.get("path"), name).toBe(4);
      for (let rank = 0; rank < 4; rank++) expect(svg, name).toContain(`>rank ${rank}</text>`);
    }
  });

  it("says when each ran, and outlines the critical path", () => {
    const svg = toSvg(small, run, { unit: "ms" });
    expect(svg).toContain("<title>F direction 0, stage 0, micro-batch 0: 0 to 1 ms</title>");
    expect(svg).toContain(" with B direction ");
    expect(svg).toContain(">critical path</text>");
    const plain = toSvg(small, run, { criticalPath: false, memory: false, tooltips: false });
    expect(plain).not.toContain("critical path");
    expect(elementsOf(plain).get("path")).toBeUndefined();
  });

  it("escapes what it is given", () => {
    const svg = toSvg(small, run, { title: `<script>"&'\u0007` });
    expect(elementsOf(svg).has("script")).toBe(false);
    expect(svg).toContain("&lt;script&gt;&quot;&amp;&#39;</text>");
    expect(escapeXml("a\u0000b")).toBe("ab");
  });

  it("stays small for long schedules, and refuses too many ranks", () => {
    const long = dualPipe({ numRanks: 16, numMicroBatches: 4000 });
    const svg = toSvg(long, simulate(long, unit, { criticalPath: false }));
    elementsOf(svg);
    expect(svg.length).toBeLessThan(400_000);
    expect(svg).toContain(">overlapped</text>");
    const wide = oneFOneB({ numRanks: 300, numMicroBatches: 2 });
    const result = simulate(wide, unit, { criticalPath: false });
    expect(() => toSvg(wide, result)).toThrow("at most 256 of 300 ranks");
    const part = toSvg(wide, result, { ranks: [290, 300] });
    expect(part).toContain(">rank 290</text>");
    expect(part).not.toContain(">rank 289</text>");
    expect(() => toSvg(wide, result, { ranks: [5, 5] })).toThrow("ranks is [5, 5]");
    expect(() => toSvg(small, run, { width: 10 })).toThrow("width is 10");
    const lean = simulate(small, unit, { timeline: false });
    expect(() => toSvg(small, lean)).toThrow("result.timeline is undefined");
  });
});

describe("Chrome trace", () => {
  const trace = toChromeTrace(small, run, { usPerUnit: 1000, processName: "what if" });

  it("loads in the analyser: lanes, spans, arrows in pairs", async () => {
    const table = await readTrace(new TextEncoder().encode(JSON.stringify(trace)));
    const lanes = new Set(table.lanes.map(({ threadName }) => threadName));
    for (let rank = 0; rank < 4; rank++) expect(lanes).toContain(`rank ${rank}`);
    expect(table.lanes[0]?.processName).toBe("what if");
    const of = (phase: string): number =>
      table.phase.filter((code) => code === phase.charCodeAt(0)).length;
    expect(of("X")).toBe(computations(small));
    // Each micro-batch crosses 3 boundaries, forth and back.
    expect([of("s"), of("f")]).toEqual([8 * 3 * 2, 8 * 3 * 2]);
    let end = 0;
    for (let i = 0; i < table.length; i++) {
      end = Math.max(end, (table.startUs[i] as number) + (table.durationUs[i] as number));
    }
    expect(end).toBeCloseTo(run.makespan * 1000, 6);
  });

  it("ties each arrow from its producer to its user", () => {
    const starts = new Map<number, number>();
    for (const { ph, id = -1, ts } of trace.traceEvents) if (ph === "s") starts.set(id, ts);
    for (const { ph, id = -1, ts } of trace.traceEvents) {
      if (ph === "f") expect(ts).toBeGreaterThanOrEqual((starts.get(id) as number) + 250);
    }
    expect(starts.size).toBe(48);
  });

  it("counts what is held, and leaves out what is not wanted", () => {
    const counts = trace.traceEvents.filter(({ ph, tid }) => ph === "C" && tid === 1);
    const held = counts.map(({ args }) => args?.activations as number);
    expect(Math.max(...held)).toBe(run.peak.activations[0]);
    expect(held.at(-1)).toBe(0);
    const bare = toChromeTrace(small, run, { flows: false, counters: false });
    expect(new Set(bare.traceEvents.map(({ ph }) => ph))).toEqual(new Set(["M", "X"]));
    const bytes = toChromeTrace(small, run, { memory: { activationBytes: 7 } });
    expect(bytes.traceEvents.some(({ args }) => args?.bytes === 35)).toBe(true);
  });

  it("refuses more events than asked for", () => {
    expect(() => toChromeTrace(small, run, { maxEvents: 50 })).toThrow("maxEvents is 50, too few");
    expect(() => toChromeTrace(small, run, { usPerUnit: 0 })).toThrow("usPerUnit is 0");
  });
});

describe("measured times", () => {
  it("come back from a trace of a simulation, and give its makespan", () => {
    for (const name of builtInNames) {
      const schedule = buildSchedule(name, { numRanks: 4, numMicroBatches: 12 });
      const { numStages } = schedule;
      const F = Array.from({ length: numStages }, (_, stage) => 1 + stage / 8);
      const result = simulate(schedule, { F, B: 2, W: 1, FB: 2.75 });
      const trace = toChromeTrace(schedule, result);
      const { measuredMakespan, simulated, ratio, measured } = compareWithTrace(schedule, trace);
      expect(simulated.makespan, name).toBeCloseTo(result.makespan, 10);
      expect(measuredMakespan, name).toBeCloseTo(result.makespan, 10);
      expect(ratio, name).toBeCloseTo(1, 10);
      expect(measured.steps[0]?.idle[1], name).toBeCloseTo(result.idle[1] as number, 10);
      const times = timesFromTrace(schedule, trace);
      // Subtracting a start from an end loses the last bits of a duration.
      (times.F as number[]).forEach((value, stage) => {
        expect(value, name).toBeCloseTo(F[stage] as number, 10);
      });
    }
  });

  it("takes medians over the steps of a recorder, and leaves waits and sends out", () => {
    const schedule = withCommunication(zb1p({ numRanks: 2, numMicroBatches: 2 }));
    const recorder = new TraceRecorder();
    const result = simulate(schedule, { F: 1, B: 2, W: 1 });
    [1, 1.5, 5].forEach((stretch, step) => {
      schedule.ranks.forEach((ops, rank) => {
        for (let i = 0; i < ops.length; i++) {
          const kind = ops.kind[i] as OpKind;
          const name = kind > OpKind.FB ? "SendF" : ["F", "B", "I", "W", "FB"][kind];
          const args = {
            direction: 0,
            stage: ops.stage[i] as number,
            microBatch: ops.microBatch[i] as number,
          };
          const start = step * 1000 + (result.timeline?.[rank]?.start[i] as number) * stretch;
          recorder.span(`rank ${rank}`, name as string, start, args, stretch);
          recorder.span(`rank ${rank}`, "wait F", start, args, 0.1);
        }
      });
    });
    const { numSteps, times, durations, steps } = measuredRun(schedule, recorder.events);
    expect(numSteps).toBe(3);
    expect(times).toMatchObject({ F: [1.5, 1.5], I: [1.5, 1.5], W: [1.5, 1.5], B: [3, 3] });
    expect(durations[0]?.filter((value) => Number.isNaN(value)).length).toBe(4);
    expect(steps.map(({ makespan }) => makespan)).toEqual(
      [1, 1.5, 5].map((stretch) => expect.closeTo(result.makespan * stretch, 6)),
    );
    expect(measuredRun(schedule, recorder.toJSON()).numSteps).toBe(3);
  });

  it("refuse a trace of something else, by the operation that is missing", () => {
    const trace = toChromeTrace(small, run);
    const other = dualPipe({ numRanks: 4, numMicroBatches: 10 });
    expect(() => measuredRun(other, trace)).toThrow("the trace has 0 spans of");
    expect(() => measuredRun(small, [])).toThrow(
      '0 spans of F of direction 0, stage 0, micro-batch 0 on "rank 0"; expected some',
    );
  });
});

describe("text", () => {
  it("draws each computation where it ran", () => {
    const schedule = zb1p({ numRanks: 2, numMicroBatches: 2 });
    const lines = toTextTimeline(schedule, simulate(schedule, { F: 1, B: 2, W: 1 }), 37);
    expect(lines).toEqual([
      "rank 0 |F0--F1--....I0--W0--I1--W1--|",
      "rank 1 |....F0--I0--F1--I1--W0--W1--|",
      "        0                          7",
    ]);
  });

  it("is empty where there is no room", () => {
    const schedule = oneFOneB({ numRanks: 4, numMicroBatches: 100 });
    expect(toTextTimeline(schedule, simulate(schedule, unit))).toEqual([]);
  });
});
