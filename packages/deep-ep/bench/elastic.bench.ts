// ElasticBuffer's dispatch (FP8) and combine (bf16) of top-8 of 256 experts, 7168 columns: bytes
// that arrive a second, over those of a plain copy of as many bytes by all ranks at once in the
// same round. Combine only reads what the copy reads and writes, so it can be above 1.

import { runThreads } from "@open-infra/ranks";
import { type BenchRow, formatRows, median } from "@open-infra/testing";
import type { ElasticBenchData, ElasticBenchTimes } from "./elastic-rank.ts";

interface Setting {
  readonly size: number;
  readonly tokens: number;
  readonly directMemory: boolean;
  readonly doExpand: boolean;
}

const settings: readonly Setting[] = [
  { size: 2, tokens: 4096, directMemory: true, doExpand: false },
  { size: 2, tokens: 4096, directMemory: false, doExpand: false },
  { size: 2, tokens: 4096, directMemory: true, doExpand: true },
  { size: 8, tokens: 1024, directMemory: true, doExpand: false },
  { size: 8, tokens: 1024, directMemory: false, doExpand: false },
  { size: 8, tokens: 1024, directMemory: true, doExpand: true },
];

/** Rows of the bench runner. */
export async function run(options: { readonly quick?: boolean } = {}): Promise<BenchRow[]> {
  const rows: BenchRow[] = [];
  for (const setting of settings) {
    const { size, directMemory, doExpand } = setting;
    const tokens = options.quick ? setting.tokens / 4 : setting.tokens;
    const data: ElasticBenchData = {
      tokens,
      hidden: 7168,
      numExperts: 256,
      numTopk: 8,
      rounds: options.quick ? 5 : 11,
      directMemory,
      doExpand,
    };
    const module = new URL("./elastic-rank.ts", import.meta.url);
    const all = await runThreads<ElasticBenchTimes>({ size, module, data, commThreads: 1 });
    const way = directMemory ? "memory" : "windows";
    const shape = `${size} ranks × ${tokens}, ${way}${doExpand ? ", expanded" : ""}`;
    rows.push(
      rowOf("dispatch FP8", shape, all, "dispatchUs", "dispatchCopyUs"),
      rowOf("dispatch FP8, cached", shape, all, "cachedUs", "dispatchCopyUs"),
      rowOf("combine bf16", shape, all, "combineUs", "combineCopyUs"),
    );
  }
  return rows;
}

type Times = "dispatchUs" | "cachedUs" | "combineUs" | "dispatchCopyUs" | "combineCopyUs";

/** The slowest rank's time of each round, without the first two. */
function slowest(all: readonly ElasticBenchTimes[], of: Times): number[] {
  const rounds = all[0]?.[of] ?? [];
  return rounds.map((_, i) => Math.max(...all.map((times) => times[of][i] as number))).slice(2);
}

function rowOf(
  name: string,
  shape: string,
  all: readonly ElasticBenchTimes[],
  of: Times,
  bound: Times,
): BenchRow {
  const us = median(slowest(all, of));
  const copyUs = median(slowest(all, bound));
  const field = of === "combineUs" ? "combineBytes" : "dispatchBytes";
  const bytes = all.reduce((sum, times) => sum + times[field], 0);
  return {
    case: name,
    shape,
    us,
    gbs: bytes / us / 1000,
    boundRatio: copyUs / us,
    bound: "bandwidth",
  };
}

if (import.meta.main)
  console.log(formatRows(await run({ quick: process.argv.includes("--quick") })));
