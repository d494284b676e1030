// Low-latency dispatch (bf16 in, fp8 out) and combine of a decoding batch, beside the bare round of
// flags plus a plain copy of the same bytes, measured in the same turns.

import { runThreads } from "@open-infra/ranks";
import { type BenchRow, median } from "@open-infra/testing";
import type { LowLatencyJob, LowLatencyTimes } from "./ranks/low-latency-rank.ts";

const module = new URL("./ranks/low-latency-rank.ts", import.meta.url);

async function rowsOf(ranks: number, job: LowLatencyJob): Promise<BenchRow[]> {
  const all = await runThreads<LowLatencyTimes>({ size: ranks, module, data: job });
  const [first] = all as [LowLatencyTimes];
  // A turn is over when the last rank is; each began it at the same barrier.
  const of = (name: string): number =>
    median(
      (first.us[name] as number[]).map((_, turn) =>
        Math.max(...all.map(({ us }) => us[name]?.[turn] as number)),
      ),
    );
  const cpu = (name: string): number => median(first.cpuUs[name] as number[]);
  const make = (name: string, copy: string, bytes: number): BenchRow => {
    const bound = of("flags") + of(copy);
    return {
      case: name,
      shape: `${ranks} ranks, ${job.tokens} × ${job.hidden}, top-${job.topk} of ${job.experts}`,
      us: of(name),
      gbs: (bytes * ranks) / of(name) / 1e3,
      rate:
        `${of("flags").toFixed(0)} µs flags + ${of(copy).toFixed(0)} µs copy; ` +
        `${((cpu("flags") + cpu(copy)) / cpu(name)).toFixed(2)}× in processor time`,
      peer: "flags + copy",
      peerRatio: bound / of(name),
    };
  };
  return [
    make("dispatch", "copy of dispatch", first.dispatchBytes),
    make("combine", "copy of combine", first.combineBytes),
    make("combine, zero copy", "copy of combine", first.combineBytes),
  ];
}

/** @param options.quick Fewer turns. */
export async function run(options: { readonly quick?: boolean } = {}): Promise<BenchRow[]> {
  const turns = options.quick ? 10 : 40;
  const job = { tokens: 128, hidden: 7168, topk: 8, experts: 256, turns };
  return [...(await rowsOf(2, job)), ...(await rowsOf(8, job))];
}
