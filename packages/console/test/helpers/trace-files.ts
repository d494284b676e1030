// Traces for tests of the trace page: a small one whose figures are known by hand, and large ones
// written to disk piece by piece.

import { closeSync, openSync, writeSync } from "node:fs";
import { seededRandom } from "@open-infra/testing";

/** An event of the Chrome trace format. */
export type RawEvent = Readonly<Record<string, unknown>>;

const lane = (pid: number, tid: number, process: string, thread: string): RawEvent[] => [
  { ph: "M", name: "process_name", pid, tid: 0, args: { name: process } },
  { ph: "M", name: "thread_name", pid, tid, args: { name: thread } },
];

const kernel = (tid: number, ts: number, dur: number, name: string, correlation: number) => [
  {
    ph: "X",
    cat: "kernel",
    pid: 0,
    tid,
    ts,
    dur,
    name,
    args: { stream: tid, correlation, grid: [4, 1, 1] },
  },
  {
    ph: "X",
    cat: "cuda_runtime",
    pid: 9,
    tid: 90,
    ts: ts - 40,
    dur: 5,
    name: "cudaLaunchKernel",
    args: { correlation },
  },
];

/**
 * Two kernels compute (0 to 100, 200 to 300 µs after the first), one dispatch runs from 50 to 170:
 * span 300, computation 200, communication 120, overlap 50, exposed 70, busy 270.
 */
export function knownTrace(): { readonly traceEvents: readonly RawEvent[] } {
  return {
    traceEvents: [
      ...lane(0, 7, "python3", "stream 7"),
      ...lane(0, 27, "python3", "stream 27"),
      ...lane(9, 90, "host process", "main thread"),
      ...kernel(7, 1000, 100, "deep_gemm::fp8_gemm", 1),
      ...kernel(27, 1050, 120, "deep_ep::internode::dispatch<false, 8>", 2),
      ...kernel(7, 1200, 100, "deep_gemm::fp8_gemm", 3),
      { ph: "X", cat: "cpu_op", pid: 9, tid: 90, ts: 950, dur: 300, name: "aten::linear" },
      { ph: "X", cat: "cpu_op", pid: 9, tid: 90, ts: 955, dur: 50, name: "aten::matmul" },
      // From the operator to the dispatch, by a flow without correlation.
      { ph: "s", cat: "flow", id: 77, pid: 9, tid: 90, ts: 1100, name: "arrow" },
      { ph: "f", bp: "e", cat: "flow", id: 77, pid: 0, tid: 27, ts: 1060, name: "arrow" },
      { ph: "C", pid: 9, tid: 90, ts: 1000, name: "queue", args: { depth: 3 } },
      { ph: "C", pid: 9, tid: 90, ts: 1150, name: "queue", args: { depth: 1 } },
    ],
  };
}

/** What the known trace holds. */
export const knownFigures = {
  spanUs: 300,
  computationUs: 200,
  communicationUs: 120,
  overlapUs: 50,
  exposedUs: 70,
  busyUs: 270,
} as const;

const kernels = [
  "deep_gemm::fp8_m_grouped_gemm<7168, 4096>",
  "flash_mla::forward",
  "per_token_cast_to_fp8",
  "rms_norm",
  "moe_gate_topk",
];

/**
 * Writes a trace of at least `events` spans: a quarter kernels on two streams, the rest host spans
 * nested up to six deep, on four processes. Returns how many spans it has.
 */
export function writeLargeTrace(path: string, events: number, seed: number): number {
  const random = seededRandom(seed);
  const file = openSync(path, "w");
  let written = 0;
  let text = '{"traceEvents":[\n';
  const push = (event: string): void => {
    text += written++ === 0 ? event : `,\n${event}`;
    if (text.length > 1 << 20) {
      writeSync(file, text);
      text = "";
    }
  };
  const clock = [0, 0, 0, 0];
  while (written < events) {
    const pid = written % 4;
    const at = clock[pid] as number;
    const outer = 20 + random.int(0, 80);
    const depth = 1 + random.int(0, 6);
    for (let level = 0; level < depth; level++) {
      const name = `host_op_${level}_${random.int(0, 12)}`;
      const dur = outer - 3 * level;
      push(`{"ph":"X","pid":${pid},"tid":1,"ts":${at + level},"dur":${dur},"name":"${name}"}`);
    }
    const name = random.pick(kernels);
    const args = `"cat":"kernel","args":{"stream":7}`;
    push(
      `{"ph":"X","pid":${pid},"tid":7,"ts":${at + 9},"dur":${outer - 9},"name":"${name}",${args}}`,
    );
    if (random.next() < 0.3) {
      const ep = `"cat":"kernel","args":{"stream":20}`;
      const dispatch = "deep_ep::internode::dispatch<false, 8>";
      push(`{"ph":"X","pid":${pid},"tid":20,"ts":${at},"dur":${outer},"name":"${dispatch}",${ep}}`);
    }
    clock[pid] = at + outer + random.int(0, 6);
  }
  writeSync(file, `${text}\n]}\n`);
  closeSync(file);
  return written;
}
