// Traces small enough to work out by hand, one idea each.

import {
  analyzeTrace,
  attribute,
  findLaunches,
  idleBreakdown,
  issueWaitPairs,
  selectWork,
} from "@open-infra/profile/analyze";
import { describe, expect, it } from "vitest";
import { AUTOGRAD, HOST, TraceMaker } from "./trace-maker.ts";

const dispatch = "void deep_ep::internode::dispatch<false, 8, false, 8>(int4*)";
const cachedDispatch = "void deep_ep::internode::dispatch<false, 8, true, 8>(int4*)";
const combine = "void deep_ep::internode::combine<false, 8>(int4*)";
const gemm = "void deep_gemm::fp8_gemm_kernel<7168>(int)";
const dispatchLl = "void deep_ep::internode_ll::dispatch<true, 7168>(void*)";
const combineLl = "void deep_ep::internode_ll::combine<7168>(void*)";

describe("three kernels", () => {
  // compute 10..50 and 80..90, communication 30..70: together 30..50.
  const table = new TraceMaker()
    .kernel(gemm, 10, 50)
    .kernel(dispatch, 30, 70, { stream: 27 })
    .kernel(gemm, 80, 90)
    .table();
  const result = analyzeTrace(table);

  it("give the breakdown known by hand", () => {
    expect(result.summary).toMatchObject({
      spanUs: 80,
      busyUs: 70,
      idleUs: 10,
      computeUs: 50,
      communicationUs: 40,
      overlapUs: 20,
      exposedCommunicationUs: 20,
      exposedComputeUs: 30,
      overlapPercent: 50,
      busyPercent: 87.5,
    });
  });

  it("give the bounds known by hand", () => {
    expect(result.bounds).toEqual({
      spanUs: 80,
      computeUs: 50,
      communicationUs: 40,
      lowerBoundUs: 50,
      boundBy: "computation",
      fullOverlapSavesUs: 20,
      boundSavesUs: 30,
      spanOverBound: 1.6,
    });
  });

  it("give the statistics of a name", () => {
    expect(result.kernels.kernels[0]).toEqual({
      name: gemm,
      shortName: "deep_gemm::fp8_gemm_kernel",
      class: "gemm_fp8",
      variant: "dense",
      group: "computation",
      count: 2,
      sumUs: 50,
      minUs: 10,
      maxUs: 40,
      meanUs: 25,
      stdUs: 21.213,
      sharePercent: 55.56,
    });
    expect(result.kernels.classes.map((each) => [each.class, each.exposedUs])).toEqual([
      ["gemm_fp8", 30],
      ["ep_dispatch", 20],
    ]);
  });

  it("are cut to a selection of time and lanes", () => {
    const part = analyzeTrace(table, { selection: { startUs: 30, endUs: 35 } });
    // The table counts from its first event, at 10.
    expect(part.summary).toMatchObject({ spanUs: 5, communicationUs: 5, overlapUs: 5 });
    const lane = table.lanes.findIndex(({ tid }) => tid === 27);
    const communication = analyzeTrace(table, { selection: { lanes: [lane] } });
    expect(communication.summary).toMatchObject({ computeUs: 0, communicationUs: 40 });
    expect(analyzeTrace(table, { selection: { devices: ["1"] } }).events).toBe(0);
  });
});

describe("fractions and instants", () => {
  it("keep nanoseconds and drop the noise of sums", () => {
    const table = new TraceMaker()
      .kernel(gemm, 0.1, 0.4)
      .kernel(combine, 0.3, 0.6, { stream: 27 })
      .table();
    expect(analyzeTrace(table).summary).toMatchObject({
      spanUs: 0.5,
      overlapUs: 0.1,
      exposedCommunicationUs: 0.2,
    });
  });

  it("count an event of no length, in no time", () => {
    const table = new TraceMaker().kernel("Memset (Device)", 5, 5).kernel(gemm, 9, 10).table();
    const { summary, kernels } = analyzeTrace(table);
    expect(summary).toMatchObject({ spanUs: 5, busyUs: 1, memoryUs: 0 });
    expect(kernels.classes.map(({ class: name, count }) => [name, count])).toEqual([
      ["gemm_fp8", 1],
      ["memset", 1],
    ]);
  });
});

describe("what is a device event", () => {
  it("takes unknown categories with a stream, and no annotation of the device", () => {
    const table = new TraceMaker()
      .kernel(gemm, 0, 10, { category: "Kernel" })
      .kernel("custom", 10, 20, { category: "my_engine" })
      .kernel("step", 0, 100, { category: "gpu_user_annotation" })
      .kernel("wait", 0, 50, { category: "cuda_sync" })
      .kernel("hipLaunchKernel", 0, 50, { category: "hip_runtime" })
      .kernel("Memcpy DtoD", 30, 35, { category: "gpu_memcpy" })
      .table();
    const { summary, events } = analyzeTrace(table);
    expect(events).toBe(3);
    expect(summary).toMatchObject({ spanUs: 35, computeUs: 20, memoryUs: 5, idleUs: 10 });
  });
});

describe("idle rule", () => {
  /** One gap on a stream: the second kernel starts at 200, launched at `launch`. */
  function gap(firstEnd: number, launch: number | undefined, threshold?: number) {
    const maker = new TraceMaker().kernel("a", 0, firstEnd).kernel("b", 200, 210, {
      correlation: 1,
    });
    if (launch !== undefined) maker.launch(1, launch, launch + 1);
    const work = selectWork(maker.table());
    const options = threshold === undefined ? {} : { kernelWaitThresholdUs: threshold };
    const [row] = idleBreakdown(work, findLaunches(work), options);
    return [row?.hostWaitUs, row?.kernelWaitUs, row?.otherUs];
  }

  it.each([
    ["launched after the end of the one before: host wait, however short", 195, 196, [5, 0, 0]],
    ["launched at that very end: not host wait", 195, 195, [0, 5, 0]],
    ["launched before, gap below the threshold: kernel wait", 171, 50, [0, 29, 0]],
    ["gap at the threshold: other", 170, 50, [0, 0, 30]],
    ["no launch known: never host wait", 100, undefined, [0, 0, 100]],
    ["no launch known, short gap: kernel wait", 190, undefined, [0, 10, 0]],
    ["no gap", 200, 150, [0, 0, 0]],
  ] as const)("%s", (_, firstEnd, launch, wanted) => {
    expect(gap(firstEnd, launch)).toEqual(wanted);
  });

  it("takes another threshold", () => {
    expect(gap(170, 50, 31)).toEqual([0, 30, 0]);
  });

  it("adds up to the idle time where events overlap on one stream", () => {
    const table = new TraceMaker()
      .kernel("long", 0, 100)
      .kernel("inside", 20, 30)
      .kernel("later", 150, 160)
      .table();
    const { idle, devices } = analyzeTrace(table);
    expect(idle[0]).toMatchObject({
      idleUs: 50,
      otherUs: 50,
      longestGapUs: 50,
      longestGapAtUs: 100,
    });
    expect(devices[0]?.streams[0]?.idleUs).toBe(50);
  });
});

describe("launches", () => {
  it("tell queue delay from the end of the call, and what has no partner", () => {
    const table = new TraceMaker()
      .launch(1, 0, 4)
      .kernel("a", 3, 5, { correlation: 1 })
      .launch(2, 10, 12)
      .kernel("b", 22, 50, { correlation: 2 })
      .kernel("c", 60, 70, { correlation: 9 })
      .kernel("d", 71, 72)
      .launch(3, 80, 81)
      .call("cudaEventRecord", 4, 82, 83)
      .table();
    const { launches, warnings } = analyzeTrace(table);
    expect(launches).toMatchObject({
      matched: 2,
      unmatched: 2,
      launchesWithoutEvent: 1,
      queueDelay: { count: 2, minUs: -1, medianUs: 4.5, maxUs: 10, meanUs: 4.5 },
      shorterThanLaunch: 1,
      shorterThanLaunchUs: 2,
      shortKernels: 3,
    });
    expect(warnings).toContain("2 of 4 device events have no launch");
  });

  it("let one call launch many, as a graph does", () => {
    const table = new TraceMaker()
      .call("cudaGraphLaunch", 5, 0, 2)
      .kernel("a", 10, 20, { correlation: 5 })
      .kernel("b", 20, 30, { correlation: 5 })
      .table();
    expect(analyzeTrace(table).launches).toMatchObject({ matched: 2, launchesWithoutEvent: 0 });
  });

  it("take the latest call before the event where ranks share a correlation", () => {
    const table = new TraceMaker()
      .launch(5, 0, 1)
      .launch(5, 50, 51, 1, HOST + 1)
      .launch(5, 90, 91, 1, HOST + 2)
      .kernel("a", 60, 70, { correlation: 5 })
      .table();
    expect(analyzeTrace(table).launches.queueDelay.maxUs).toBe(9);
  });

  it("tell the longest queue of a stream", () => {
    const maker = new TraceMaker();
    for (let i = 0; i < 5; i++) maker.launch(i, i, i + 1);
    for (let i = 0; i < 5; i++) maker.kernel("a", 3 + 10 * i, 13 + 10 * i, { correlation: i });
    // At the fifth launch, at 4, one has started.
    expect(analyzeTrace(maker.table()).launches.queues[0]?.maxLength).toBe(4);
  });
});

describe("annotations", () => {
  it("own what was launched in them, innermost first, other threads by time", () => {
    const table = new TraceMaker()
      .annotation("step", 0, 100)
      .annotation("attn", 10, 40)
      .annotation("mlp", 40, 60)
      .annotation("backward", 70, 80, AUTOGRAD)
      .launch(1, 20, 21)
      .launch(2, 40, 41)
      .launch(3, 45, 46, AUTOGRAD)
      .launch(4, 75, 76, AUTOGRAD)
      .launch(5, 90, 91)
      .launch(6, 150, 151)
      .kernel(gemm, 1000, 1010, { correlation: 1 })
      .kernel(gemm, 1010, 1030, { correlation: 2 })
      .kernel(dispatch, 1020, 1060, { correlation: 3, stream: 27 })
      .kernel(gemm, 1070, 1075, { correlation: 4 })
      .kernel(gemm, 1080, 1081, { correlation: 5 })
      .kernel(gemm, 1090, 1092, { correlation: 6 })
      .kernel(gemm, 1095, 1098)
      .table();
    const { annotations, attributedEvents, unattributedEvents, unattributedUs } =
      analyzeTrace(table).annotations;
    const own = annotations.map(({ name, gpuUs, inclusiveGpuUs }) => [name, gpuUs, inclusiveGpuUs]);
    expect(own).toEqual([
      ["step", 1, 71],
      ["attn", 10, 10],
      ["mlp", 60, 60],
      ["backward", 5, 5],
    ]);
    expect(annotations[2]).toMatchObject({
      events: 2,
      computeUs: 20,
      communicationUs: 40,
      exposedCommunicationUs: 30,
      streams: [
        { stream: 7, events: 1, sumUs: 20, busyUs: 20 },
        { stream: 27, events: 1, sumUs: 40, busyUs: 40 },
      ],
    });
    expect([attributedEvents, unattributedEvents, unattributedUs]).toEqual([5, 2, 5]);
  });

  it("of another process own nothing", () => {
    const table = new TraceMaker()
      .annotation("elsewhere", 0, 100, 1, HOST + 1)
      .launch(1, 10, 11)
      .kernel(gemm, 20, 30, { correlation: 1 })
      .table();
    const work = selectWork(table);
    expect([...attribute(work, findLaunches(work)).of]).toEqual([-1]);
  });

  it("count a name nested in itself once", () => {
    const table = new TraceMaker()
      .annotation("block", 0, 100)
      .annotation("block", 10, 50)
      .launch(1, 20, 21)
      .kernel(gemm, 30, 40, { correlation: 1 })
      .table();
    expect(analyzeTrace(table).annotations.annotations).toMatchObject([
      { name: "block", count: 2, gpuUs: 10, inclusiveGpuUs: 10 },
    ]);
  });
});

describe("partition of multiprocessors", () => {
  const device = { deviceProperties: [{ id: 0, numSms: 132 }] };

  it("is certain where grids of both parts add up", () => {
    const table = new TraceMaker()
      .kernel(dispatch, 0, 10, { stream: 27, grid: 20 })
      .kernel(gemm, 0, 100, { grid: 112 })
      .kernel(gemm, 100, 105, { grid: 4096 })
      .table(device);
    expect(analyzeTrace(table).smPartition[0]).toMatchObject({
      numSms: 132,
      communicationSms: 20,
      computeSms: 112,
      confidence: "high",
    });
  });

  it("gives communication nothing where GEMMs fill the device", () => {
    const table = new TraceMaker()
      .kernel(dispatchLl, 0, 10, { grid: 32 })
      .kernel(gemm, 10, 100, { grid: 132 })
      .table(device);
    expect(analyzeTrace(table).smPartition[0]).toMatchObject({
      communicationSms: 0,
      computeSms: 132,
      confidence: "medium",
    });
  });

  it("takes the rest where one part was seen, and knows nothing without grids", () => {
    const one = new TraceMaker().kernel(combine, 0, 10, { grid: 24 }).table(device);
    expect(analyzeTrace(one).smPartition[0]).toMatchObject({
      communicationSms: 24,
      computeSms: 108,
      confidence: "medium",
    });
    const none = new TraceMaker().kernel(combine, 0, 10).kernel(gemm, 0, 10).table(device);
    expect(analyzeTrace(none).smPartition[0]).toMatchObject({ confidence: "none" });
    const mixed = new TraceMaker()
      .kernel(dispatch, 0, 10, { grid: 20 })
      .kernel(gemm, 0, 50, { grid: 112 })
      .kernel(gemm, 50, 100, { grid: 64 })
      .table(device);
    expect(analyzeTrace(mixed).smPartition[0]?.confidence).toBe("low");
  });
});

describe("issue and wait on one stream", () => {
  // The published order of decoding: what runs between issue and receive is the other micro-batch.
  const order: readonly [string, number][] = [
    [dispatchLl, 5],
    ["shared_expert_gemm", 30],
    ["flash_fwd_splitkv_mla_kernel", 20],
    [dispatchLl, 8],
    [gemm, 40],
    [combineLl, 6],
    ["flash_fwd_splitkv_mla_kernel", 50],
    [combineLl, 9],
  ];
  function decode(rounds: number, names = (name: string, _nth: number) => name) {
    const maker = new TraceMaker();
    let at = 0;
    for (let round = 0; round < rounds; round++) {
      const seen = new Map<string, number>();
      for (const [name, length] of order) {
        const nth = seen.get(name) ?? 0;
        seen.set(name, nth + 1);
        maker.kernel(names(name, nth), at, at + length);
        at += length + 1;
      }
    }
    return maker.table();
  }

  it("pairs two kernels of one name and says what was hidden", () => {
    const { issueWait, overlap } = analyzeTrace(decode(3));
    expect(overlap.all.overlapUs).toBe(0);
    expect(issueWait.unpaired).toBe(0);
    expect(issueWait.pairs.map((pair) => pair.class)).toEqual([
      ...["ep_dispatch", "ep_combine", "ep_dispatch"],
      ...["ep_combine", "ep_dispatch", "ep_combine"],
    ]);
    expect(issueWait.pairs[0]).toMatchObject({
      issueUs: 5,
      waitUs: 8,
      windowUs: 53,
      hiddenUs: 50,
      flightUs: 66,
    });
    expect(issueWait.pairs[1]).toMatchObject({
      windowUs: 52,
      hiddenUs: 50,
      flightUs: 67,
      between: "attention_forward",
    });
    expect(issueWait).toMatchObject({ flightUs: 399, hiddenUs: 300, exposedUs: 99 });
    expect(issueWait.hiddenPercent).toBe(75.19);
  });

  it("leaves kernels that send and receive in one unpaired", () => {
    const maker = new TraceMaker();
    for (let i = 0; i < 4; i++) {
      maker.kernel(dispatchLl, 100 * i, 100 * i + 10).kernel(gemm, 100 * i + 10, 100 * i + 50);
      maker.kernel(combineLl, 100 * i + 50, 100 * i + 60);
    }
    const table = maker.table();
    expect(analyzeTrace(table).issueWait).toMatchObject({ pairs: [], unpaired: 8 });
    // Two in flight look the same; the caller may know better.
    const work = selectWork(table);
    expect(issueWaitPairs(work, { pairing: "alternate" }).pairs).toHaveLength(4);
  });

  it("goes by names that say send and receive, oldest first", () => {
    const maker = new TraceMaker()
      .kernel("deep_ep::internode_ll::dispatch_send()", 0, 2)
      .kernel("deep_ep::internode_ll::dispatch_send()", 3, 5)
      .kernel(gemm, 5, 25)
      .kernel("deep_ep::internode_ll::dispatch_recv()", 25, 26)
      .kernel(gemm, 26, 36)
      .kernel("deep_ep::internode_ll::dispatch_recv()", 36, 40)
      .kernel("deep_ep::internode_ll::dispatch_recv()", 41, 42);
    const { pairs, unpaired } = analyzeTrace(maker.table()).issueWait;
    expect(pairs.map(({ hiddenUs, flightUs }) => [hiddenUs, flightUs])).toEqual([
      [20, 26],
      [30, 37],
    ]);
    expect(unpaired).toBe(1);
  });
});

describe("phases", () => {
  it("are profiler steps where there are some", () => {
    const maker = new TraceMaker();
    for (let step = 0; step < 3; step++) {
      const at = 100 * step;
      maker.annotation(`ProfilerStep#${step + 7}`, at, at + 90).annotation("fwd", at + 5, at + 50);
      maker.launch(2 * step, at + 10, at + 11).launch(2 * step + 1, at + 60, at + 61);
      maker.kernel(gemm, at + 20, at + 50, { correlation: 2 * step });
      maker.kernel(cachedDispatch, at + 40, at + 80, { correlation: 2 * step + 1, stream: 27 });
    }
    const { kind, phases } = analyzeTrace(maker.table()).phases;
    expect(kind).toBe("steps");
    expect(phases.map(({ name, startUs, endUs }) => [name, startUs, endUs])).toEqual([
      ["ProfilerStep#7", 20, 80],
      ["ProfilerStep#8", 120, 180],
      ["ProfilerStep#9", 220, 280],
    ]);
    expect(phases[0]).toMatchObject({
      computeUs: 30,
      communicationUs: 40,
      overlapUs: 10,
      lowerBoundUs: 40,
      boundBy: "communication",
      fullOverlapSavesUs: 20,
    });
  });

  it("are cycles of annotations else, the last perhaps cut short", () => {
    const maker = new TraceMaker();
    ["attn", "mlp", "attn", "mlp", "attn"].forEach((name, i) => {
      maker.annotation(name, 10 * i, 10 * i + 9).launch(i, 10 * i + 1, 10 * i + 2);
      maker.kernel(gemm, 10 * i + 3, 10 * i + 8, { correlation: i });
    });
    const { kind, cycle, phases } = analyzeTrace(maker.table()).phases;
    expect([kind, cycle]).toEqual(["cycles", ["attn", "mlp"]]);
    expect(phases.map(({ computeUs }) => computeUs)).toEqual([10, 10, 5]);
  });
});

describe("traces without a device", () => {
  it("have the innermost spans of their lanes analysed, the others as annotations", () => {
    const table = new TraceMaker()
      .span("step", 0, 100, "engine")
      .span("forward", 10, 80, "engine")
      .span("sample", 80, 100, "engine")
      .span("send F3", 20, 60, "link")
      .table();
    const { source, summary, annotations, devices, warnings, kernels } = analyzeTrace(table);
    expect(source).toBe("lanes");
    expect(summary).toMatchObject({
      spanUs: 90,
      computeUs: 90,
      communicationUs: 40,
      overlapUs: 40,
    });
    expect(devices[0]?.streams.map(({ stream, busyUs }) => [stream, busyUs])).toEqual([
      ["engine", 90],
      ["link", 40],
    ]);
    expect(kernels.kernels.map(({ name }) => name)).toEqual(["forward", "send F3", "sample"]);
    expect(annotations).toMatchObject({
      kind: "spans",
      annotations: [{ name: "step", count: 1, events: 2 + 1, gpuUs: 130 }],
    });
    expect(warnings[0]).toContain("nothing ran on a device");
  });

  it("keep ranks apart, even in one process: one never hides what another sends", () => {
    const maker = new TraceMaker();
    for (const rank of [0, 1, 10]) maker.lane(rank, `rank ${rank}`);
    const table = maker
      .span("F", 0, 50, 0)
      .span("send F", 50, 60, 0)
      .span("wait F", 0, 60, 1)
      .span("FB", 60, 100, 1)
      .span("step", 0, 100, 10)
      .span("W", 10, 40, 10)
      .table();
    const { devices, summary, annotations, kernels } = analyzeTrace(table);
    expect(devices.map(({ device, spanUs }) => [device, spanUs])).toEqual([
      ["rank 0", 60],
      ["rank 1", 100],
      ["rank 10", 30],
    ]);
    expect(summary).toMatchObject({ computeUs: 120, communicationUs: 70, overlapUs: 0 });
    expect(annotations.annotations).toMatchObject([{ name: "step", events: 1, gpuUs: 30 }]);
    expect(kernels.classes.map((each) => each.class)).toEqual([
      ...["pipeline_wait", "pipeline_forward", "pipeline_overlapped"],
      ...["pipeline_backward_weight", "pipeline_transfer"],
    ]);
    const one = analyzeTrace(table, { selection: { devices: ["rank 1"] } });
    expect(one.summary.spanUs).toBe(100);
  });

  it("may be empty", () => {
    const result = analyzeTrace(new TraceMaker().table());
    expect(result.warnings).toEqual(["no events to analyse"]);
    expect(result.summary).toMatchObject({ spanUs: 0, busyUs: 0, overlapPercent: 0 });
    expect(JSON.parse(JSON.stringify(result))).toEqual(result);
  });
});

describe("several devices", () => {
  it("are summed, never overlapped with each other", () => {
    const table = new TraceMaker()
      .kernel(gemm, 0, 10, { device: 0 })
      .kernel(dispatch, 0, 10, { device: 1, stream: 27 })
      .kernel(gemm, 10, 30, { device: 1 })
      .table();
    const { summary, bounds, devices } = analyzeTrace(table);
    expect(devices.map(({ device, spanUs }) => [device, spanUs])).toEqual([
      [0, 10],
      [1, 30],
    ]);
    expect(summary).toMatchObject({ spanUs: 40, overlapUs: 0, exposedCommunicationUs: 10 });
    expect(bounds).toMatchObject({ lowerBoundUs: 30, fullOverlapSavesUs: 10, boundSavesUs: 10 });
  });

  it("give sums without the noise of floating point", () => {
    const table = new TraceMaker()
      .kernel(gemm, 0, 0.1, { device: 0 })
      .kernel(gemm, 0, 0.2, { device: 1 })
      .table();
    expect(analyzeTrace(table).bounds.lowerBoundUs).toBe(0.3);
  });
});
