// Where a rank that was started by somebody learns who it is: the variables of torchrun (which
// `open-infra launch` sets too), of mpirun, of srun. No MPI or PMI is linked; that Open MPI or
// Slurm started the process is all that is used of them.

import { InfraError, InputError } from "@open-infra/errors";
import { isLoopback } from "./tcp-guard.ts";

/** Environment variables. */
export type Environment = Readonly<Partial<Record<string, string>>>;

/** Who a rank is, and where it meets the others. */
export interface RankEnvironment {
  readonly rank: number;
  readonly size: number;
  readonly localRank: number;
  /** Ranks of this host; where nobody says, at least as many as are known of. */
  readonly localSize: number;
  readonly masterHost: string;
  readonly masterPort: number;
  /** Whose variables these are. */
  readonly source: "torchrun" | "openmpi" | "slurm";
  /** The launcher holds the store; else rank 0 does. */
  readonly launcherHoldsStore: boolean;
  readonly secret: string;
  readonly timeoutMs: number | undefined;
  readonly transport: "auto" | "shm" | "ucx" | "tcp" | undefined;
  readonly linkHost: string | undefined;
}

/** The variables say nothing, too little, or two different things. */
export class RankEnvironmentError extends InfraError {
  /** The variable to set or to change. */
  readonly variable: string;

  constructor(variable: string, message: string) {
    super("rank-environment", message);
    this.variable = variable;
  }
}

/** Names of the same five facts under each starter. */
const starters = [
  {
    source: "torchrun",
    rank: "RANK",
    size: "WORLD_SIZE",
    localRank: "LOCAL_RANK",
    localSize: "LOCAL_WORLD_SIZE",
  },
  {
    source: "openmpi",
    rank: "OMPI_COMM_WORLD_RANK",
    size: "OMPI_COMM_WORLD_SIZE",
    localRank: "OMPI_COMM_WORLD_LOCAL_RANK",
    localSize: "OMPI_COMM_WORLD_LOCAL_SIZE",
  },
  {
    source: "slurm",
    rank: "SLURM_PROCID",
    size: "SLURM_NTASKS",
    localRank: "SLURM_LOCALID",
    localSize: "SLURM_LOCAL_NTASKS",
  },
] as const;

const defaultPort = 29_500;
const transports = ["auto", "shm", "ucx", "tcp"] as const;

/**
 * Reads who this process is. The first starter whose rank is set counts: a launcher inside an
 * allocation of Slurm is the closer one.
 *
 * @throws RankEnvironmentError naming the variable
 */
export function readRankEnvironment(env: Environment = process.env): RankEnvironment {
  const starter = starters.find(({ rank }) => isSet(env[rank]));
  if (starter === undefined) {
    throw new RankEnvironmentError(
      "RANK",
      "no launcher has said which rank this is: neither RANK (open-infra launch, torchrun), " +
        "OMPI_COMM_WORLD_RANK (mpirun) nor SLURM_PROCID (srun) is set; start it by " +
        "`open-infra launch --nproc-per-node 2 -- script.ts`",
    );
  }
  const size = wanted(env, starter.size, 1, 65_536, `${starter.rank} is set but`);
  const rank = wanted(env, starter.rank, 0, size - 1, `${starter.size} is ${size} but`);
  const localSize = localSizeOf(env, starter, size);
  const localRank =
    integer(env, starter.localRank, 0, localSize - 1) ?? (localSize === size ? rank : 0);
  return {
    ...{ rank, size, localRank, localSize, source: starter.source },
    ...master(env, starter.source, size === localSize),
    launcherHoldsStore: env.OPEN_INFRA_STORE === "launcher",
    secret: env.OPEN_INFRA_SECRET ?? "",
    timeoutMs: integer(env, "OPEN_INFRA_TIMEOUT_MS", 1, 1e9),
    transport: transportOf(env.OPEN_INFRA_TRANSPORT),
    linkHost: env.OPEN_INFRA_LINK_HOST,
  };
}

function isSet(value: string | undefined): value is string {
  return value !== undefined && value !== "";
}

function integer(env: Environment, name: string, low: number, high: number): number | undefined {
  const text = env[name];
  if (!isSet(text)) return undefined;
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (value >= low && value <= high) return value;
  throw new RankEnvironmentError(
    name,
    `${name} is ${JSON.stringify(text)}; expected an integer from ${low} to ${high}`,
  );
}

function wanted(env: Environment, name: string, low: number, high: number, why: string): number {
  const text = env[name];
  if (!isSet(text)) throw new RankEnvironmentError(name, `${why} ${name} is not`);
  try {
    return integer(env, name, low, high) as number;
  } catch (cause) {
    throw new RankEnvironmentError(name, `${why} ${(cause as Error).message}`);
  }
}

function localSizeOf(env: Environment, starter: (typeof starters)[number], size: number): number {
  const told = integer(env, starter.localSize, 1, size);
  if (told !== undefined) return told;
  if (starter.source === "slurm") {
    const counts = expandCounts(env.SLURM_STEP_TASKS_PER_NODE ?? env.SLURM_TASKS_PER_NODE ?? "");
    const node = integer(env, "SLURM_NODEID", 0, 1_000_000) ?? 0;
    const here = counts[node];
    if (here !== undefined && here <= size) return here;
  }
  // One host, unless somebody says otherwise by a master address; then only a lower bound is known.
  const several = isSet(env.MASTER_ADDR) && !isLoopback(env.MASTER_ADDR);
  return several ? (integer(env, starter.localRank, 0, size - 1) ?? 0) + 1 : size;
}

/** `4(x2),3` as [4, 4, 3]. */
export function expandCounts(text: string): number[] {
  return [...text.matchAll(/(\d+)(?:\(x(\d+)\))?/g)].flatMap(([, count, times]) =>
    Array.from({ length: Number(times ?? 1) }, () => Number(count)),
  );
}

/** The first host of `node[03-07,12],other` is `node03`. */
export function firstHost(list: string): string {
  const [, prefix = "", first = "", suffix = ""] =
    /^([^,[]*)(?:\[(\d+)[^\]]*\])?([^,[]*)/.exec(list.trim()) ?? [];
  return `${prefix}${first}${suffix}`;
}

function master(
  env: Environment,
  source: RankEnvironment["source"],
  oneHost: boolean,
): { masterHost: string; masterPort: number } {
  const told = integer(env, "MASTER_PORT", 1, 65_535);
  // Where torchrun's agent holds a store of PyTorch's on the port, ours is on the next.
  const next = source === "torchrun" && env.TORCHELASTIC_USE_AGENT_STORE === "True" ? 1 : 0;
  const masterPort = told === undefined ? jobPort(env, source) : told + next;
  if (isSet(env.MASTER_ADDR)) return { masterHost: env.MASTER_ADDR, masterPort };
  if (oneHost) return { masterHost: "127.0.0.1", masterPort };
  const hosts = source === "slurm" ? (env.SLURM_STEP_NODELIST ?? env.SLURM_JOB_NODELIST) : "";
  const first = firstHost(hosts ?? "");
  if (first !== "") return { masterHost: first, masterPort };
  throw new RankEnvironmentError(
    "MASTER_ADDR",
    "MASTER_ADDR is not set though the ranks are on several hosts; give all of them the address " +
      "of rank 0's host (mpirun: -x MASTER_ADDR=host)",
  );
}

/** Jobs that share a host get different ports. */
function jobPort(env: Environment, source: RankEnvironment["source"]): number {
  const job =
    source === "slurm"
      ? env.SLURM_JOB_ID
      : source === "openmpi"
        ? (env.OMPI_MCA_ess_base_jobid ?? env.PMIX_NAMESPACE)
        : undefined;
  if (!isSet(job)) return defaultPort;
  let hash = 0;
  for (const char of job) hash = (hash * 31 + char.charCodeAt(0)) % 20_000;
  return 20_000 + hash;
}

function transportOf(text: string | undefined): RankEnvironment["transport"] {
  if (!isSet(text)) return undefined;
  const known = transports.find((name) => name === text);
  if (known !== undefined) return known;
  throw new InputError("OPEN_INFRA_TRANSPORT", JSON.stringify(text), transports.join(", "));
}
