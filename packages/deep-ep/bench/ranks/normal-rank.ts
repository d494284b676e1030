// A rank of the normal mode's bench: times of each way of doing the job, turn by turn.

import { Buffer, type DispatchInput } from "@open-infra/deep-ep";
import { NativeToolchain } from "@open-infra/jit";
import type { Group } from "@open-infra/ranks";
import { Tensor } from "@open-infra/tensor";
import { copyKernel, naiveKernel, nothing, randomTopk } from "./v1-kernels.ts";

/** What is timed. */
export interface NormalJob {
  readonly tokens: number;
  readonly hidden: number;
  readonly topk: number;
  readonly experts: number;
  readonly fp8: boolean;
  readonly naive: boolean;
  readonly turns: number;
}

/** Milliseconds of each turn, by what was done; and bytes that this rank received. */
export interface NormalTimes {
  readonly rows: number;
  readonly rowBytes: number;
  readonly ms: Readonly<Record<string, number[]>>;
}

/** The job's input. */
function input(job: NormalJob, rank: number): { x: DispatchInput; topkWeights: Tensor<"f32"> } {
  const { tokens, hidden, topk } = job;
  const topkWeights = Tensor.empty([tokens, topk], "f32");
  topkWeights.raw().fill(1 / topk);
  if (!job.fp8) {
    const x = Tensor.empty([tokens, hidden], "bf16");
    x.raw().fill(0x3f80 + rank);
    return { x, topkWeights };
  }
  const codes = Tensor.empty([tokens, hidden], "e4m3fn");
  codes.raw().fill(0x38 + rank);
  const scales = Tensor.empty([tokens, hidden / 128], "f32");
  scales.raw().fill(1);
  return { x: [codes, scales], topkWeights };
}

export default async function run(group: Group, job: NormalJob): Promise<NormalTimes> {
  const { tokens, hidden, topk, experts, fp8, turns } = job;
  const buffer = await Buffer.create(group);
  const topkIdx = randomTopk(group.rank + 1, tokens, topk, experts);
  const { x, topkWeights } = input(job, group.rank);
  const { event: _, ...layout } = buffer.getDispatchLayout(topkIdx, experts);
  const ms: Record<string, number[]> = {};
  const time = (what: string, work: () => void): void => {
    group.barrier();
    const start = performance.now();
    work();
    group.barrier();
    ms[what] ??= [];
    ms[what].push(performance.now() - start);
  };
  const rowBytes = fp8 ? hidden + hidden / 32 : 2 * hidden;
  const count = layout.numTokensPerRank.size;
  const first = buffer.dispatch(x, { ...layout, topkIdx, topkWeights });
  const rows = first.handle.numRecvRows;
  const at = Tensor.empty([group.size + 1, count], "i64");
  at.raw().set([0n, ...first.handle.rankPrefixMatrix.flat().map(BigInt)].slice(0, 1), 0);
  first.handle.rankPrefixMatrix.forEach((row, i) => {
    at.raw().set(row.map(BigInt), (i + 1) * count);
  });
  const positions = first.handle.positions;
  const sent = [...layout.numTokensPerRank.raw()].reduce((a, b) => a + b, 0);
  const data = fp8 ? hidden : 2 * hidden;
  const most = Math.max(...(await group.exchange("rows", `${rows}`)).map(Number));
  const bytes = job.naive ? most * data : 1;
  const window = await group.openWindow({ name: "naive", bytes, flags: group.size });
  // Beside what dispatch receives one tensor of that size: copies go there, rows are packed there.
  const other = buffer.empty([Math.max(rows, sent) * rowBytes], "u8");
  first[Symbol.dispose]();
  const common = { ...nothing, positions, at, tokens, row_bytes: data };
  for (let turn = 0; turn <= turns; turn++) {
    let result: ReturnType<typeof buffer.dispatch> | undefined;
    time("dispatch", () => {
      result = buffer.dispatch(x, { ...layout, topkIdx, topkWeights });
    });
    const { recvX, handle, recvTopkWeights } = result as NonNullable<typeof result>;
    const received = (recvX instanceof Tensor ? recvX : recvX[0]) as Tensor<"bf16">;
    if (!fp8) {
      const options = { handle, topkWeights: recvTopkWeights as Tensor<"f32"> };
      time("combine", () => buffer.combine(received, options)[Symbol.dispose]());
    }
    const copied = { ...nothing, x: received, out: other, bytes: rows * data };
    time("copy", () => group.run(copyKernel, {}, copied));
    time("streamed copy", () => group.run(copyKernel, {}, { ...copied, stream: 1 }));
    if (job.naive) {
      const values = { ...common, window, x: x as Tensor, packed: other, out: received };
      time("naive", () => group.run(naiveKernel, {}, { ...values, seq: turn + 1 }));
    }
    result?.[Symbol.dispose]();
  }
  // The first turn touched memory for the first time.
  for (const times of Object.values(ms)) times.shift();
  group.closeWindow(window);
  buffer.destroy();
  return { rows, rowBytes, ms };
}

/** Dispatch on the stream while this thread computes, beside one after the other. */
export async function overlap(group: Group, job: NormalJob): Promise<NormalTimes> {
  const buffer = await Buffer.create(group);
  const topkIdx = randomTopk(group.rank + 1, job.tokens, job.topk, job.experts);
  const { x } = input(job, group.rank);
  const { event: _, ...layout } = buffer.getDispatchLayout(topkIdx, job.experts);
  const code = new NativeToolchain().load({
    name: "bench_compute",
    source: new URL("./compute.c", import.meta.url),
    entry: "bench_compute",
    constants: {},
    params: {},
  });
  const compute = code.func("bench_compute");
  const block = new BigInt64Array(1);
  const ms: Record<string, number[]> = { dispatch: [], compute: [], both: [], serial: [] };
  const time = (what: string, work: () => void): number => {
    group.barrier();
    const start = performance.now();
    work();
    group.barrier();
    const took = performance.now() - start;
    ms[what]?.push(took);
    return took;
  };
  const { handle } = buffer.dispatch(x, layout);
  const dispatchOnce = (): void => {
    buffer.dispatch(x, { handle })[Symbol.dispose]();
  };
  dispatchOnce();
  const goal = time("dispatch", dispatchOnce);
  block[0] = 1_000_000n;
  compute(block);
  const million = time("compute", () => void compute(block));
  block[0] = BigInt(Math.max(1, Math.round((goal / million) * 1e6)));
  for (const name of Object.keys(ms)) ms[name] = [];
  for (let turn = 0; turn < job.turns; turn++) {
    time("dispatch", dispatchOnce);
    time("compute", () => void compute(block));
    time("serial", () => {
      dispatchOnce();
      compute(block);
    });
    time("both", () => {
      const result = buffer.dispatch(x, { handle, asyncFinish: true });
      compute(block);
      result.event.currentStreamWait();
      result[Symbol.dispose]();
    });
  }
  const rows = handle.numRecvRows;
  buffer.destroy();
  return { rows, rowBytes: 2 * job.hidden, ms };
}
