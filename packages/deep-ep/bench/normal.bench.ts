// Dispatch and combine of the normal mode at the originals' size, beside plain copies of the same
// bytes in the same run, a naive all-to-all of ours, and MPI_Alltoallv in turns of processes; and
// dispatch under a computation.

import { runThreads } from "@open-infra/ranks";
import { type BenchRow, median } from "@open-infra/testing";
import { MpiPeer, type MpiTimes, mpiMissing } from "./mpi-peer.ts";
import type { NormalJob, NormalTimes } from "./ranks/normal-rank.ts";

const module = new URL("./ranks/normal-rank.ts", import.meta.url);

interface Run {
  /** Milliseconds by what was done, over all turns. */
  readonly ms: Record<string, number[]>;
  readonly bytes: number;
  readonly mpi: { dispatch: number[]; combine: number[] };
}

async function measure(
  ranks: number,
  job: NormalJob,
  rounds: number,
  peer?: MpiPeer,
): Promise<Run> {
  const run: Run = { ms: {}, bytes: 0, mpi: { dispatch: [], combine: [] } };
  let bytes = 0;
  for (let round = 0; round < rounds; round++) {
    const all = await runThreads<NormalTimes>({ size: ranks, module, data: job });
    bytes = all.reduce((sum, { rows, rowBytes }) => sum + rows * rowBytes, 0);
    for (const [name, times] of Object.entries(all[0]?.ms ?? {})) {
      run.ms[name] = [...(run.ms[name] ?? []), ...times];
    }
    if (peer === undefined) continue;
    const { tokens, hidden, topk, experts, turns } = job;
    const times: MpiTimes = peer.run(ranks, [tokens, hidden, topk, experts, turns]);
    run.mpi.dispatch.push(...times.dispatch);
    run.mpi.combine.push(...times.combine);
  }
  return { ...run, bytes };
}

function rows(ranks: number, job: NormalJob, run: Run): BenchRow[] {
  const of = (name: string): number => median(run.ms[name] as number[]);
  const copyMs = Math.min(of("copy"), of("streamed copy"));
  const kind = job.fp8 ? "fp8" : "bf16";
  const shape = `${ranks} ranks, ${job.tokens} × ${job.hidden}, top-${job.topk} of ${job.experts}`;
  const make = (
    name: "dispatch" | "combine",
    peer: string,
    peerMs: number | undefined,
  ): BenchRow => ({
    case: `${name} ${kind}`,
    shape,
    us: of(name) * 1000,
    gbs: run.bytes / of(name) / 1e6,
    boundRatio: copyMs / of(name),
    bound: "bandwidth",
    peer,
    ...(peerMs !== undefined && { peerRatio: peerMs / of(name) }),
  });
  const list: BenchRow[] = [];
  if (run.ms.naive !== undefined) {
    list.push(make("dispatch", "naive all-to-all", of("naive")));
  }
  if (run.mpi.dispatch.length > 0) {
    list.push(make("dispatch", "MPI_Alltoallv", median(run.mpi.dispatch)));
    list.push(make("combine", "MPI_Alltoallv", median(run.mpi.combine)));
  } else if (job.fp8) {
    list.push(make("dispatch", "", undefined));
  } else {
    list.push(make("combine", mpiMissing ?? "not compared", undefined));
  }
  return list;
}

async function overlapRow(ranks: number, job: NormalJob): Promise<BenchRow> {
  const all = await runThreads<NormalTimes>({ size: ranks, module, export: "overlap", data: job });
  const ms = all[0]?.ms as Record<string, number[]>;
  const of = (name: string): number => median(ms[name] as number[]);
  return {
    case: "cached dispatch under a computation as long",
    shape: `${ranks} rank${ranks > 1 ? "s" : ""}, ${job.tokens} × ${job.hidden}, bf16`,
    us: of("both") * 1000,
    rate: `dispatch ${of("dispatch").toFixed(0)} ms, computation ${of("compute").toFixed(0)} ms`,
    peer: "one after the other",
    peerRatio: of("serial") / of("both"),
  };
}

/** @param options.quick Fewer tokens and turns. */
export async function run(options: { readonly quick?: boolean } = {}): Promise<BenchRow[]> {
  const { quick = false } = options;
  using peer = mpiMissing === undefined ? new MpiPeer() : undefined;
  const job = { tokens: quick ? 512 : 4096, hidden: 7168, topk: 8, experts: 256 };
  const turns = 4;
  const list: BenchRow[] = [];
  for (const ranks of [2, 8]) {
    const bf16 = { ...job, fp8: false, naive: true, turns };
    list.push(
      ...rows(ranks, bf16, await measure(ranks, bf16, ranks === 2 && !quick ? 2 : 1, peer)),
    );
    const fp8 = { ...job, fp8: true, naive: false, turns };
    list.push(...rows(ranks, fp8, await measure(ranks, fp8, 1)));
  }
  for (const ranks of [1, 2]) {
    const small = { ...job, tokens: quick ? 512 : 2048, fp8: false, naive: false, turns: 7 };
    list.push(await overlapRow(ranks, small));
  }
  return list;
}
