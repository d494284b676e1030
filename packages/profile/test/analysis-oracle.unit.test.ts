// Random small traces against definitions written plainly over a grid of whole µs: what runs in
// each µs is looked up event by event. Nothing of the analyser's own algebra is used.

import {
  analyzeTrace,
  type EventTable,
  type Selection,
  type TraceAnalysis,
} from "@open-infra/profile/analyze";
import { type Random, seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { AUTOGRAD, MAIN, TraceMaker } from "./trace-maker.ts";

const GRID = 80;
const names = [
  ["deep_ep::internode::dispatch<false, 8, false>()", "communication"],
  ["deep_ep::internode::combine<false>()", "communication"],
  ["ncclDevKernel_AllReduce_Sum_bf16()", "communication"],
  ["deep_gemm::fp8_gemm()", "computation"],
  ["some_kernel()", "computation"],
  ["Memset (Device)", "memory"],
] as const;

interface Kernel {
  readonly name: string;
  readonly group: string;
  readonly stream: number;
  readonly device: number;
  readonly start: number;
  readonly end: number;
  readonly launch:
    | { readonly start: number; readonly end: number; readonly tid: number }
    | undefined;
}

interface Annotation {
  readonly name: string;
  readonly start: number;
  readonly end: number;
  readonly tid: number;
}

interface Drawn {
  readonly kernels: readonly Kernel[];
  readonly annotations: readonly Annotation[];
  readonly table: EventTable;
}

/** Streams without overlap on themselves, launches long before or not, annotations in a row. */
function draw(random: Random): Drawn {
  const maker = new TraceMaker();
  const kernels: Kernel[] = [];
  let correlation = 1;
  for (const device of [0, 1].slice(0, random.int(1, 3))) {
    for (const stream of [7, 20, 27].slice(0, random.int(1, 4))) {
      let at = random.int(0, 10);
      while (at < GRID - 12) {
        const end = at + random.int(0, 10);
        const [name, group] = random.pick(names);
        const start = random.int(0, at + 1);
        const tid = random.pick([MAIN, AUTOGRAD]);
        const launch = random.next() < 0.9 ? { start, end: start + 1, tid } : undefined;
        kernels.push({ name, group, stream, device, start: at, end, launch });
        // Two empty events at one time would have no order.
        at = end + (end === at ? 1 : random.pick([0, 0, 1, 2, 6]));
      }
    }
  }
  const annotations: Annotation[] = [];
  for (let at = random.int(0, 8), n = 0; at < GRID - 10; n++) {
    const end = at + random.int(2, 12);
    annotations.push({ name: `part ${n % 3}`, start: at, end, tid: MAIN });
    if (end - at > 4) {
      annotations.push({ name: "inner", start: at + 1, end: end - 2, tid: MAIN });
    }
    at = end + random.int(1, 6);
  }
  // Any order in the file.
  const writes = [
    ...kernels.map((kernel) => () => {
      const own = correlation++;
      const { stream, device, launch } = kernel;
      maker.kernel(kernel.name, kernel.start, kernel.end, { stream, device, correlation: own });
      if (launch) maker.launch(own, launch.start, launch.end, launch.tid);
    }),
    ...annotations.map((each) => () => maker.annotation(each.name, each.start, each.end, each.tid)),
  ];
  for (let i = writes.length - 1; i > 0; i--) {
    const j = random.int(0, i + 1);
    [writes[i], writes[j]] = [writes[j] as () => void, writes[i] as () => void];
  }
  maker.span("origin", 0, 0);
  for (const write of writes) write();
  return { kernels, annotations, table: maker.table() };
}

function running(kernels: readonly Kernel[], at: number): readonly Kernel[] {
  return kernels.filter(({ start, end }) => start <= at && at < end);
}

/** µs of the grid in which `test` holds of what runs on one device, summed over devices. */
function countUs(kernels: readonly Kernel[], test: (groups: readonly Kernel[]) => boolean): number {
  let sum = 0;
  for (const device of new Set(kernels.map((each) => each.device))) {
    const own = kernels.filter((each) => each.device === device);
    for (let at = 0; at < GRID; at++) if (test(running(own, at))) sum++;
  }
  return sum;
}

const has = (group: string) => (now: readonly Kernel[]) => now.some((each) => each.group === group);

function expectTemporal(result: TraceAnalysis, kernels: readonly Kernel[], message: string): void {
  const comm = has("communication");
  const comp = has("computation");
  const memory = has("memory");
  let span = 0;
  for (const device of new Set(kernels.map((each) => each.device))) {
    const own = kernels.filter((each) => each.device === device);
    span += Math.max(...own.map((each) => each.end)) - Math.min(...own.map((each) => each.start));
  }
  const busy = countUs(kernels, (now) => now.length > 0);
  expect(result.summary, message).toMatchObject({
    spanUs: span,
    busyUs: busy,
    idleUs: span - busy,
    computeUs: countUs(kernels, comp),
    communicationUs: countUs(kernels, comm),
    memoryUs: countUs(kernels, memory),
    overlapUs: countUs(kernels, (now) => comm(now) && comp(now)),
    exposedCommunicationUs: countUs(kernels, (now) => comm(now) && !comp(now)),
    exposedComputeUs: countUs(kernels, (now) => comp(now) && !comm(now)),
    exposedMemoryUs: countUs(kernels, (now) => memory(now) && !comm(now) && !comp(now)),
  });
  const ep = (now: readonly Kernel[]) => now.some((each) => /dispatch|combine/.test(each.name));
  expect(result.overlap.dispatchCombine, message).toMatchObject({
    communicationUs: countUs(kernels, ep),
    overlapUs: countUs(kernels, (now) => ep(now) && comp(now)),
  });
}

function expectStreams(result: TraceAnalysis, kernels: readonly Kernel[], message: string): void {
  for (const { device, a, b, overlapUs } of result.overlap.streams) {
    const own = kernels.filter((each) => each.device === device);
    const on = (s: unknown) => (now: readonly Kernel[]) => now.some((each) => each.stream === s);
    expect(overlapUs, message).toBe(countUs(own, (now) => on(a)(now) && on(b)(now)));
  }
  for (const row of result.idle) {
    const own = kernels
      .filter(({ device, stream }) => device === row.device && stream === row.stream)
      .sort((x, y) => x.start - y.start || x.end - y.end);
    const sums = { hostWaitUs: 0, kernelWaitUs: 0, otherUs: 0 };
    own.slice(1).forEach((next, i) => {
      const before = own[i] as Kernel;
      const gap = next.start - before.end;
      if (next.launch && next.launch.start > before.end) sums.hostWaitUs += gap;
      else if (gap < 3) sums.kernelWaitUs += gap;
      else sums.otherUs += gap;
    });
    expect(row, message).toMatchObject(sums);
  }
}

/** The shortest annotation around a launch: on its thread, else on any. */
function ownerOf(kernel: Kernel, annotations: readonly Annotation[]): string | undefined {
  const { launch } = kernel;
  if (!launch) return undefined;
  const around = annotations.filter(
    ({ start, end }) => start <= launch.start && launch.start <= end,
  );
  const own = around.filter(({ tid }) => tid === launch.tid);
  const from = own.length > 0 ? own : around;
  return from.toSorted((a, b) => b.start - a.start)[0]?.name;
}

function expectAnnotations(result: TraceAnalysis, drawn: Drawn, message: string): void {
  const sums = new Map<string, number>(drawn.annotations.map(({ name }) => [name, 0]));
  let nobodys = 0;
  for (const kernel of drawn.kernels) {
    const owner = ownerOf(kernel, drawn.annotations);
    if (owner === undefined) nobodys += kernel.end - kernel.start;
    else sums.set(owner, (sums.get(owner) as number) + kernel.end - kernel.start);
  }
  const got = new Map(result.annotations.annotations.map(({ name, gpuUs }) => [name, gpuUs]));
  expect(new Map([...got].sort()), message).toEqual(new Map([...sums].sort()));
  expect(result.annotations.unattributedUs, message).toBe(nobodys);
}

function expectClasses(result: TraceAnalysis, kernels: readonly Kernel[], message: string): void {
  for (const { name, count, sumUs, minUs, maxUs } of result.kernels.kernels) {
    const durations = kernels.filter((each) => each.name === name).map((k) => k.end - k.start);
    expect({ name, count, sumUs, minUs, maxUs }, message).toEqual({
      name,
      count: durations.length,
      sumUs: durations.reduce((a, b) => a + b, 0),
      minUs: Math.min(...durations),
      maxUs: Math.max(...durations),
    });
  }
  const classOf = new Map(result.kernels.kernels.map((each) => [each.name, each.class]));
  for (const row of result.kernels.classes) {
    const mine = (each: Kernel) => classOf.get(each.name) === row.class;
    const covers = (each: Kernel) =>
      row.group === "communication" ? each.group === "computation" : !mine(each);
    expect([row.busyUs, row.exposedUs], message).toEqual([
      countUs(kernels, (now) => now.some(mine)),
      countUs(kernels, (now) => now.some(mine) && !now.some(covers)),
    ]);
  }
}

describe("analyses against plain definitions", () => {
  it("agree on random traces", () => {
    const random = seededRandom(testSeed());
    for (let round = 0; round < 120; round++) {
      const message = `seed ${random.seed}, round ${round}`;
      const drawn = draw(random);
      const result = analyzeTrace(drawn.table, { kernelWaitThresholdUs: 3 });
      expect(result.events, message).toBe(drawn.kernels.length);
      expectTemporal(result, drawn.kernels, message);
      expectStreams(result, drawn.kernels, message);
      expectAnnotations(result, drawn, message);
      expectClasses(result, drawn.kernels, message);
    }
  });

  it("agree on selections of random traces", () => {
    const random = seededRandom(testSeed() + 1);
    for (let round = 0; round < 120; round++) {
      const message = `seed ${random.seed}, round ${round}`;
      const { kernels, table } = draw(random);
      const startUs = random.int(0, GRID / 2);
      const endUs = random.int(startUs + 1, GRID);
      const selection: Selection = { startUs, endUs };
      const result = analyzeTrace(table, { selection, source: "device" });
      const cut = kernels
        .filter(({ start, end }) => start < endUs && (end > startUs || start >= startUs))
        .map((each) => ({
          ...each,
          start: Math.max(each.start, startUs),
          end: Math.min(each.end, endUs),
        }));
      expect(result.events, message).toBe(cut.length);
      if (cut.length > 0) {
        expectTemporal(result, cut, message);
        expectClasses(result, cut, message);
      }
    }
  });
});
