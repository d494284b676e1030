// A rank of the low-latency bench: times of dispatch and combine, of a bare round of flags, and of
// copying the same bytes, in turns.

import { Buffer } from "@open-infra/deep-ep";
import type { Group } from "@open-infra/ranks";
import { Tensor } from "@open-infra/tensor";
import { copyKernel, flagsKernel, nothing, randomTopk } from "./v1-kernels.ts";

export interface LowLatencyJob {
  readonly tokens: number;
  readonly hidden: number;
  readonly topk: number;
  readonly experts: number;
  readonly turns: number;
}

/** Microseconds of each turn, by what was done. */
export interface LowLatencyTimes {
  readonly us: Readonly<Record<string, number[]>>;
  /** Of processor time, all ranks together: what others on the machine do matters less to it. */
  readonly cpuUs: Readonly<Record<string, number[]>>;
  readonly dispatchBytes: number;
  readonly combineBytes: number;
}

function someRows(tokens: number, hidden: number): Tensor<"bf16"> {
  const x = Tensor.empty([tokens, hidden], "bf16");
  x.raw().forEach((_, i, all) => {
    all[i] = 0x3f00 + (i % 200);
  });
  return x;
}

export default async function run(group: Group, job: LowLatencyJob): Promise<LowLatencyTimes> {
  const { tokens, hidden, topk, experts, turns } = job;
  const numMaxDispatchTokensPerRank = tokens;
  const numRdmaBytes = Buffer.getLowLatencyRdmaSizeHint({
    numMaxDispatchTokensPerRank,
    hidden,
    numRanks: group.size,
    numExperts: experts,
  });
  const buffer = await Buffer.create(group, {
    numNvlBytes: 1 << 28,
    lowLatencyMode: true,
    numRdmaBytes,
  });
  const window = await group.openWindow({ name: "flags", bytes: 64, flags: group.size });
  const topkIdx = randomTopk(group.rank + 1, tokens, topk, experts);
  const topkWeights = Tensor.empty([tokens, topk], "f32");
  topkWeights.raw().fill(1 / topk);
  const x = someRows(tokens, hidden);
  const us: Record<string, number[]> = {};
  const cpuUs: Record<string, number[]> = {};
  const time = (what: string, work: () => void): void => {
    group.barrier();
    const cpu = process.cpuUsage();
    const start = performance.now();
    work();
    us[what] ??= [];
    us[what].push((performance.now() - start) * 1000);
    group.barrier();
    const { user, system } = process.cpuUsage(cpu);
    cpuUs[what] ??= [];
    cpuUs[what].push(user + system);
  };
  const dispatchBytes = tokens * topk * (hidden + hidden / 32 + 4);
  const combineBytes = tokens * topk * 2 * hidden;
  const from = Tensor.empty([combineBytes], "u8");
  from.raw().fill(1);
  const to = Tensor.empty([combineBytes], "u8");
  const options = { topkIdx, numMaxDispatchTokensPerRank, numExperts: experts };
  let seq = 0;
  for (let turn = 0; turn < turns + 3; turn++) {
    let result: ReturnType<typeof buffer.lowLatencyDispatch> | undefined;
    time("dispatch", () => {
      result = buffer.lowLatencyDispatch(x, options);
    });
    const { handle } = result as NonNullable<typeof result>;
    for (const zeroCopy of [false, true]) {
      // Combine needs a result of its own each time; only combine is timed.
      const again = zeroCopy ? buffer.lowLatencyDispatch(x, options).handle : handle;
      const y = buffer.getNextLowLatencyCombineBuffer(again);
      time(zeroCopy ? "combine, zero copy" : "combine", () => {
        buffer.lowLatencyCombine(y, { topkIdx, topkWeights, handle: again, zeroCopy });
      });
    }
    time("flags", () => group.run(flagsKernel, {}, { ...nothing, window, seq: seq++ }));
    for (const [name, bytes] of [
      ["copy of dispatch", dispatchBytes],
      ["copy of combine", combineBytes],
    ] as const) {
      time(name, () => group.run(copyKernel, {}, { ...nothing, x: from, out: to, bytes }));
    }
  }
  // Memory is touched for the first time.
  for (const times of [us, cpuUs].flatMap(Object.values<number[]>)) times.splice(0, 3);
  group.closeWindow(window);
  buffer.destroy();
  return { us, cpuUs, dispatchBytes, combineBytes };
}
