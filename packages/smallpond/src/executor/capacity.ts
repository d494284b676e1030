// What an executor may take on, found out where it runs: an allocator's variables, the container's
// limits, the machine, each shared out among the executors that were started there together.

import { availableParallelism } from "node:os";
import { InputError } from "@open-infra/errors";
import type { Capacity } from "./protocol.ts";

type Environment = Readonly<Record<string, string | undefined>>;

const mib = 2 ** 20;
/** Of a machine's memory; the rest is the system's and other programs'. */
const memoryPart = 0.8;

function numberIn(environment: Environment, ...names: readonly string[]): number | undefined {
  for (const name of names) {
    // Slurm writes "4(x2)" for nodes that are alike.
    const digits = /^\d+/.exec(environment[name] ?? "")?.[0];
    if (digits !== undefined) return Number(digits);
  }
  return undefined;
}

/**
 * Executors on this machine: of a Slurm step, of an MPI job, or as `SP_EXECUTORS_PER_NODE` says.
 */
function neighbours(environment: Environment): number {
  const names = [
    "SP_EXECUTORS_PER_NODE",
    "SLURM_STEP_TASKS_PER_NODE",
    "SLURM_NTASKS_PER_NODE",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "MPI_LOCALNRANKS",
  ];
  return Math.max(1, numberIn(environment, ...names) ?? 1);
}

function gpusOf(environment: Environment): number {
  const visible = environment.CUDA_VISIBLE_DEVICES ?? environment.ROCR_VISIBLE_DEVICES;
  if (visible !== undefined) return visible.split(",").filter((one) => /^[^-]/.test(one)).length;
  return numberIn(environment, "SLURM_GPUS_ON_NODE") ?? 0;
}

/**
 * An executor's capacity: what `said` has of it counts, the rest is found out.
 *
 * @throws InputError for a capacity that runs nothing
 */
export function findCapacity(
  said: Partial<Capacity>,
  environment: Environment = process.env,
): Capacity {
  const sharers = neighbours(environment);
  const machineCpus = availableParallelism();
  const cpusOnNode = numberIn(environment, "SLURM_CPUS_ON_NODE") ?? machineCpus;
  const cpus =
    said.cpus ??
    numberIn(environment, "SLURM_CPUS_PER_TASK") ??
    Math.max(1, Math.floor(cpusOnNode / sharers));
  const free = process.availableMemory() * memoryPart;
  const perNode = numberIn(environment, "SLURM_MEM_PER_NODE");
  const perCpu = numberIn(environment, "SLURM_MEM_PER_CPU");
  const granted = perCpu ? perCpu * mib * cpus : perNode ? (perNode * mib) / sharers : undefined;
  // Granted or not, what is not there cannot be used.
  const memoryBytes = said.memoryBytes ?? Math.floor(Math.min(granted ?? free, free / sharers));
  const gpus = said.gpus ?? Math.floor(gpusOf(environment) / sharers);
  if (!(cpus > 0)) throw new InputError("executorCpus", `${cpus}`, "more than 0");
  if (!(memoryBytes > 0)) throw new InputError("executorMemoryBytes", `${memoryBytes}`, "above 0");
  return { cpus, memoryBytes, gpus };
}
