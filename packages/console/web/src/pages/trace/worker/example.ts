// The example of the trace page, made on the spot: nothing of anyone's training is shipped. A step
// of DualPipe over eight ranks is simulated, and its cells are filled with the kernels that the
// paper lets overlap: attention and expert GEMMs of one micro-batch beside dispatch and combine of
// the other. Durations are invented, the order and what runs beside what are not.

import {
  buildSchedule,
  type PipelineTraceEvent,
  simulate,
  toChromeTrace,
} from "@open-infra/dualpipe";

const RANKS = 8;
const MICRO_BATCHES = 20;
const LAYERS = 2;
const US_PER_UNIT = 1500;

const COMPUTE = 7;
const COMMUNICATE = 20;
const SCHEDULE_LANE = 1;
const HOST_LANE = 2;

/** A kernel of one layer: its stream, its name, and its part of the layer's time. */
type Part = readonly [stream: number, name: string, from: number, to: number];

const gemm = "deep_gemm::fp8_m_grouped_gemm<7168, 4096>";
const cast = "per_token_cast_to_fp8";
const dispatch = "deep_ep::internode::dispatch<false, 8>";
const cachedDispatch = "deep_ep::internode::dispatch<false, 8, true>";
const combine = "deep_ep::internode::combine<8>";

/** What a layer runs in each kind of cell. Alone, a micro-batch waits for its own transfers. */
const layers: Readonly<Record<string, readonly Part[]>> = {
  F: [
    [COMPUTE, "rms_norm", 0, 0.03],
    [COMPUTE, "flash_mla::forward", 0.03, 0.27],
    [COMPUTE, "moe_gate_topk", 0.27, 0.31],
    [COMPUTE, cast, 0.31, 0.35],
    [COMMUNICATE, dispatch, 0.35, 0.55],
    [COMPUTE, gemm, 0.55, 0.72],
    [COMPUTE, "swiglu_and_cast_to_fp8", 0.72, 0.76],
    [COMPUTE, gemm, 0.76, 0.82],
    [COMMUNICATE, combine, 0.82, 1],
  ],
  B: [
    [COMMUNICATE, cachedDispatch, 0, 0.13],
    [COMPUTE, gemm, 0.13, 0.36],
    [COMPUTE, "swiglu_backward", 0.36, 0.4],
    [COMPUTE, gemm, 0.4, 0.55],
    [COMMUNICATE, combine, 0.55, 0.68],
    [COMPUTE, "flash_mla::backward", 0.68, 0.97],
    [COMPUTE, "rms_norm_backward", 0.97, 1],
  ],
  I: [
    [COMMUNICATE, cachedDispatch, 0, 0.2],
    [COMPUTE, gemm, 0.2, 0.46],
    [COMMUNICATE, combine, 0.46, 0.66],
    [COMPUTE, "flash_mla::backward", 0.66, 1],
  ],
  W: [
    [COMPUTE, gemm, 0, 0.55],
    [COMPUTE, "per_channel_cast_and_transpose", 0.55, 0.62],
    [COMPUTE, gemm, 0.62, 1],
  ],
  FB: [
    [COMPUTE, gemm, 0, 0.17],
    [COMMUNICATE, dispatch, 0.01, 0.15],
    [COMPUTE, "swiglu_backward", 0.17, 0.2],
    [COMPUTE, gemm, 0.2, 0.29],
    [COMPUTE, cast, 0.29, 0.31],
    [COMPUTE, gemm, 0.31, 0.42],
    [COMMUNICATE, combine, 0.19, 0.41],
    [COMPUTE, "flash_mla::backward", 0.42, 0.68],
    [COMMUNICATE, combine, 0.43, 0.66],
    [COMPUTE, gemm, 0.68, 0.77],
    [COMPUTE, "rms_norm", 0.77, 0.79],
    [COMPUTE, "flash_mla::forward", 0.79, 0.94],
    [COMMUNICATE, cachedDispatch, 0.69, 0.985],
  ],
};

/** A Chrome trace as JSON text. */
export function exampleTrace(): string {
  const schedule = buildSchedule("dualpipe", { numRanks: RANKS, numMicroBatches: MICRO_BATCHES });
  const times = { F: 1, B: 2, W: 0.9, FB: { shareOfSum: 0.86 } };
  const result = simulate(schedule, times, { communication: { latency: 0.05 } });
  const trace = toChromeTrace(schedule, result, { usPerUnit: US_PER_UNIT });
  const kernels = new KernelWriter();
  const events: object[] = [];
  for (const event of trace.traceEvents) {
    if (event.ph === "M") continue;
    // Each rank becomes a process of its own, so that its streams stand below its cells.
    const rank = event.tid - 1;
    events.push({ ...event, pid: rank, tid: SCHEDULE_LANE, ...cellName(event) });
    if (event.ph === "X") kernels.fill(rank, event);
  }
  return JSON.stringify({
    displayTimeUnit: "ms",
    distributedInfo: { rank: 0, world_size: RANKS },
    traceEvents: [...names(), ...events, ...kernels.events],
  });
}

/** `F3`, `B3`, or `F7 ‖ B2` for an overlapped pair; the direction is among the args. */
function cellName({ ph, name, args = {} }: PipelineTraceEvent): { readonly name: string } {
  if (ph === "C") return { name: "activations" };
  if (ph !== "X") return { name };
  if (name !== "FB") return { name: `${name}${args.microBatch}` };
  return { name: `F${args.microBatch} ‖ B${args.pairMicroBatch}` };
}

function names(): object[] {
  const lanes: readonly (readonly [number, string])[] = [
    [SCHEDULE_LANE, "schedule"],
    [HOST_LANE, "host launches"],
    [COMPUTE, "stream 7 computation"],
    [COMMUNICATE, "stream 20 communication"],
  ];
  return Array.from({ length: RANKS }, (_, pid) => [
    { ph: "M", name: "process_name", pid, tid: 0, args: { name: `rank ${pid}` } },
    { ph: "M", name: "process_sort_index", pid, tid: 0, args: { sort_index: pid } },
    ...lanes.flatMap(([tid, name], index) => [
      { ph: "M", name: "thread_name", pid, tid, args: { name } },
      { ph: "M", name: "thread_sort_index", pid, tid, args: { sort_index: index } },
    ]),
  ]).flat();
}

class KernelWriter {
  readonly events: object[] = [];
  readonly #hostFree: number[] = new Array(RANKS).fill(0);
  #correlation = 0;
  #random = 0x2545f491;

  /** Writes the kernels of a cell and their launches. */
  fill(rank: number, cell: PipelineTraceEvent): void {
    const durationUs = cell.dur ?? 0;
    for (let layer = 0; layer < LAYERS; layer++) {
      const startUs = cell.ts + (layer * durationUs) / LAYERS;
      for (const part of layers[cell.name] ?? []) {
        this.#kernel(rank, part, startUs, durationUs / LAYERS);
      }
    }
  }

  #kernel(rank: number, part: Part, layerUs: number, lengthUs: number): void {
    const [stream, name, from, to] = part;
    // Kernels end a little early and never late, so that those of a stream stay in order.
    const share = (to - from) * (0.9 + 0.09 * this.#next());
    const startUs = round(layerUs + from * lengthUs);
    const durationUs = round(share * lengthUs);
    const correlation = ++this.#correlation;
    const launchUs = round(Math.max(this.#hostFree[rank] ?? 0, startUs - 160));
    this.#hostFree[rank] = launchUs + 9;
    this.events.push(
      {
        ph: "X",
        cat: "cuda_runtime",
        name: "cudaLaunchKernel",
        pid: rank,
        tid: HOST_LANE,
        ts: launchUs,
        dur: 7,
        args: { correlation },
      },
      {
        ph: "X",
        cat: "kernel",
        name,
        pid: rank,
        tid: stream,
        ts: startUs,
        dur: durationUs,
        args: { stream, correlation, grid: [stream === COMMUNICATE ? 20 : 112, 1, 1] },
      },
    );
  }

  /** Xorshift: the example is the same every time. */
  #next(): number {
    let x = this.#random;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#random = x;
    return (x >>> 0) / 2 ** 32;
  }
}

function round(us: number): number {
  return Math.round(us * 1000) / 1000;
}
