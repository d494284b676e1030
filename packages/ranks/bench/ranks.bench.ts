// Ranks that share memory: a signal and back, a barrier, a put beside a plain copy of the same run,
// and what starting work costs. Links have a bench of their own (links.bench.ts).

import { type RunOptions, runProcesses, runThreads } from "@open-infra/ranks";
import { type BenchRow, median } from "@open-infra/testing";
import type { SharedTimes, SharedWork, StartTimes } from "./ranks-bench-rank.ts";

const module = new URL("./ranks-bench-rank.ts", import.meta.url);
const mib = 1 << 20;

type Run = (options: RunOptions) => Promise<unknown[]>;
const kinds: readonly (readonly [string, Run])[] = [
  ["threads", (options) => runThreads(options)],
  ["processes", (options) => runProcesses(options)],
];

export async function run({ quick = false } = {}): Promise<readonly BenchRow[]> {
  const repeats = quick ? 1 : 3;
  const work: SharedWork = {
    rounds: quick ? 2000 : 20_000,
    sizes: quick ? [65_536] : [4096, mib, 32 * mib],
  };
  const rows: BenchRow[] = [];
  for (const [kind, start] of kinds) rows.push(...(await pairRows(kind, start, work, repeats)));
  for (const size of quick ? [4] : [4, 8]) {
    for (const [kind, start] of kinds) rows.push(await barrierRow(kind, start, size, repeats));
  }
  rows.push(...(await startRows(quick ? 2000 : 20_000)));
  return rows;
}

async function pairRows(
  kind: string,
  start: Run,
  work: SharedWork,
  repeats: number,
): Promise<BenchRow[]> {
  const all: SharedTimes[] = [];
  for (let i = 0; i < repeats; i++) {
    const [first] = (await start({ size: 2, module, data: work })) as SharedTimes[];
    all.push(first as SharedTimes);
  }
  const shape = `2 ${kind}`;
  const rows: BenchRow[] = [
    { case: "signal and back", shape, us: median(all.map(({ roundTripUs }) => roundTripUs)) },
    { case: "the same, a core each", shape, us: median(all.map(({ pinnedUs }) => pinnedUs)) },
    { case: "barrier", shape, us: median(all.map(({ barrierUs }) => barrierUs)) },
  ];
  work.sizes.forEach((bytes, i) => {
    const us = median(all.map(({ puts }) => puts[i]?.us as number));
    const copyUs = median(all.map(({ puts }) => puts[i]?.copyUs as number));
    const size = bytes < mib ? `${bytes / 1024} KiB` : `${bytes / mib} MiB`;
    rows.push({
      ...{ case: `put of ${size}`, shape, us, gbs: bytes / us / 1000 },
      ...{ peer: "memcpy", peerRatio: copyUs / us },
    });
  });
  return rows;
}

async function barrierRow(
  kind: string,
  start: Run,
  size: number,
  repeats: number,
): Promise<BenchRow> {
  const all: number[] = [];
  for (let i = 0; i < repeats; i++) {
    const data: SharedWork = { rounds: 2000, sizes: [] };
    const [first] = (await start({ size, module, data })) as SharedTimes[];
    all.push((first as SharedTimes).barrierUs);
  }
  return { case: "barrier", shape: `${size} ${kind}`, us: median(all) };
}

async function startRows(rounds: number): Promise<BenchRow[]> {
  const [times] = await runThreads<StartTimes>({
    ...{ size: 1, module, export: "starts", data: rounds },
  });
  const { runUs, waitUs, finishedUs } = times as StartTimes;
  const shape = "a kernel that does nothing";
  return [
    { case: "run", shape, us: runUs },
    { case: "enqueue, wait", shape, us: waitUs },
    { case: "enqueue, await finished", shape, us: finishedUs },
  ];
}
