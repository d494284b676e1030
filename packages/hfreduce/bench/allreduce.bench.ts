// Allreduce on one host, beside MPI_Allreduce doing the same job in turns, and beside the pass over
// memory that bounds it, measured in the same run. Rows of small sizes show latency.

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { runProcesses, runThreads } from "@open-infra/ranks";
import { type BenchRow, hasProgram, median } from "@open-infra/testing";
import type { AllreduceBench, AllreduceTimes } from "./ranks/allreduce.ts";
import type { OverlapTimes } from "./ranks/overlap.ts";

interface Case {
  readonly name: string;
  readonly size: number;
  readonly bytes: number;
  readonly repeats: number;
  readonly processes?: boolean;
  readonly inPlace?: boolean;
  readonly registered?: boolean;
  readonly ranksPerNode?: number;
  readonly algorithm?: "tree" | "ring";
  readonly mpi?: boolean;
}

const mib = 1 << 20;
const module = new URL("./ranks/allreduce.ts", import.meta.url);

const cases: readonly Case[] = [
  ...[2, 4, 8].map((size) => ({ name: "threads", size, bytes: 64 * mib, repeats: 3, mpi: true })),
  ...[2, 4].map((size): Case => {
    const how = { processes: true, registered: true };
    return { name: "processes, allocated", size, bytes: 64 * mib, repeats: 3, mpi: true, ...how };
  }),
  { name: "processes", size: 2, bytes: 64 * mib, repeats: 3, processes: true, mpi: true },
  { name: "threads, out", size: 2, bytes: 64 * mib, repeats: 3, inPlace: false, mpi: true },
  ...[1024, 65_536, mib].map((bytes) => ({
    name: "threads",
    size: 2,
    bytes,
    repeats: 100,
    mpi: true,
  })),
  ...(["tree", "ring"] as const).flatMap((algorithm) =>
    [mib / 4, 16 * mib].map((bytes) => {
      const how = { ranksPerNode: 1, algorithm };
      return { name: `nodes of one rank, ${algorithm}`, size: 4, bytes, repeats: 10, ...how };
    }),
  ),
];

/** Microseconds of each repeat, of the slowest rank. */
function slowest(all: readonly AllreduceTimes[], of: keyof AllreduceTimes): number[] {
  const repeats = all[0]?.[of].length ?? 0;
  return Array.from({ length: repeats }, (_, i) =>
    Math.max(...all.map((times) => times[of][i] as number)),
  );
}

function runOurs(c: Case): Promise<AllreduceTimes[]> {
  const { size, bytes, repeats, inPlace = true, registered = false, ranksPerNode } = c;
  const data: AllreduceBench = {
    ...{ bytes, repeats, inPlace, registered },
    algorithm: c.algorithm ?? "auto",
  };
  const options = { size, timeoutMs: 60_000, module, data, ...(ranksPerNode && { ranksPerNode }) };
  return c.processes === true ? runProcesses(options) : runThreads(options);
}

/** The peer, compiled; or why there is none. */
class MpiPeer implements Disposable {
  readonly #dir: string = mkdtempSync(join(tmpdir(), "open-infra-mpi-"));
  readonly missing: string | undefined;

  constructor() {
    if (!hasProgram("mpicc") || !hasProgram("mpirun")) {
      this.missing = "no MPI: apt-get install -y openmpi-bin libopenmpi-dev";
      return;
    }
    const source = fileURLToPath(new URL("./peers/allreduce.c", import.meta.url));
    execFileSync("mpicc", ["-O3", source, "-o", join(this.#dir, "allreduce")]);
  }

  run({ size, bytes, repeats, inPlace = true }: Case): number[] {
    const program = join(this.#dir, "allreduce");
    const text = execFileSync(
      "mpirun",
      ["--oversubscribe", "-n", `${size}`, program, `${bytes}`, `${repeats}`, inPlace ? "1" : "0"],
      {
        encoding: "utf8",
        timeout: 60_000,
        stdio: ["ignore", "pipe", "ignore"],
        env: { ...process.env, OMPI_ALLOW_RUN_AS_ROOT: "1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: "1" },
      },
    );
    return text.trim().split("\n").map(Number);
  }

  [Symbol.dispose](): void {
    rmSync(this.#dir, { recursive: true, force: true });
  }
}

async function rowOf(c: Case, mpi: MpiPeer, rounds: number): Promise<BenchRow> {
  const us: number[] = [];
  const passUs: number[] = [];
  const peerUs: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const all = await runOurs(c);
    us.push(...slowest(all, "us"));
    passUs.push(...slowest(all, "passUs"));
    if (c.mpi === true && mpi.missing === undefined) peerUs.push(...mpi.run(c));
  }
  const time = median(us);
  const name = c.bytes >= mib ? `${c.bytes / mib} MiB` : `${c.bytes / 1024} KiB`;
  // In place, every byte of every rank is read and written once.
  const moved = 2 * c.bytes * c.size * (c.inPlace === false ? 2 : 1);
  const large = c.bytes >= 16 * mib;
  const bound = (median(passUs) * (c.inPlace === false ? 2 : 1)) / time;
  return {
    case: `allreduce f32, ${c.name}`,
    shape: `${name}, ${c.size} ranks`,
    us: time,
    ...(large && { gbs: moved / time / 1e3, boundRatio: bound, bound: "bandwidth" as const }),
    ...(c.mpi === true && { peer: mpi.missing ?? "MPI_Allreduce" }),
    ...(peerUs.length > 0 && { peerRatio: median(peerUs) / time }),
  };
}

async function overlapRow(repeats: number): Promise<BenchRow> {
  const overlap = new URL("./ranks/overlap.ts", import.meta.url);
  const data = { bytes: 16 * mib, repeats };
  const run = { size: 1, timeoutMs: 60_000, module: overlap, data };
  const [times] = (await runThreads<OverlapTimes>(run)) as [OverlapTimes];
  return {
    case: "allreduce f32 while the rank computes as long",
    shape: "16 MiB, 1 rank × 8 devices",
    us: times.togetherUs,
    peer: "one after the other",
    peerRatio: times.apartUs / times.togetherUs,
  };
}

export async function run(options: { readonly quick?: boolean } = {}): Promise<BenchRow[]> {
  const { quick = false } = options;
  using mpi = new MpiPeer();
  const rows: BenchRow[] = [];
  const chosen = quick ? cases.filter(({ size }) => size === 2).slice(0, 3) : cases;
  // Eight ranks of the peer on few cores take seconds a call.
  for (const c of chosen) rows.push(await rowOf(c, mpi, quick || c.size > 4 ? 1 : 2));
  rows.push(await overlapRow(quick ? 2 : 6));
  return rows;
}
