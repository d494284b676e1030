// MPI_Alltoallv doing the job of dispatch and combine, where Open MPI is installed.

import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { hasProgram } from "@open-infra/testing";

/** Times of one run, in milliseconds. */
export interface MpiTimes {
  readonly dispatch: readonly number[];
  readonly combine: readonly number[];
}

/** Why there is no comparison. */
export const mpiMissing: string | undefined = hasProgram("mpirun")
  ? hasProgram("mpicc")
    ? undefined
    : "no mpicc (apt-get install libopenmpi-dev)"
  : "no mpirun (apt-get install openmpi-bin libopenmpi-dev)";

/** The compiled peer. */
export class MpiPeer implements Disposable {
  readonly #dir: string;
  readonly #program: string;

  constructor() {
    this.#dir = mkdtempSync(join(tmpdir(), "deep-ep-mpi-"));
    this.#program = join(this.#dir, "alltoallv");
    const source = fileURLToPath(new URL("./peers/alltoallv.c", import.meta.url));
    execFileSync("mpicc", ["-O3", "-march=native", source, "-o", this.#program]);
  }

  run(ranks: number, job: readonly number[]): MpiTimes {
    const flags = ["--oversubscribe", "--mca", "mpi_yield_when_idle", "1", "--bind-to", "none"];
    if (process.getuid?.() === 0) flags.push("--allow-run-as-root");
    const args = [...flags, "-n", `${ranks}`, this.#program, ...job.map(String)];
    const { stdout, status, stderr } = spawnSync("mpirun", args, {
      encoding: "utf8",
      timeout: 240_000,
    });
    if (status !== 0) throw new Error(`mpirun ended with ${status}: ${stderr}`);
    const lines = stdout.trim().split("\n");
    const column = (i: number): number[] => lines.map((line) => Number(line.split(" ")[i]));
    return { dispatch: column(1), combine: column(2) };
  }

  [Symbol.dispose](): void {
    rmSync(this.#dir, { recursive: true, force: true });
  }
}
