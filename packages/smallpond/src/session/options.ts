// How a session is set up: what `init` is told, what the environment says, and which of the two
// counts. As in the original, the environment does, so that whoever starts a script can move it
// without editing it.

import { randomUUID } from "node:crypto";
import { homedir } from "node:os";
import { basename, join, resolve } from "node:path";
import { InputError } from "@open-infra/errors";
import type { ChannelChoice } from "../channel/job-card.ts";
import type { Launcher } from "../launch/launcher.ts";
import type { FaultOptions } from "../scheduler/policy.ts";
import type { StorageOptions } from "../task/disk.ts";
import type { ParquetOptions } from "../task/task.ts";

/** How a session runs. Names in brackets are variables of the environment, which go first. */
export interface SessionOptions extends FaultOptions, StorageOptions {
  /** Names the job's folder; the same one again resumes it (`SP_JOBID`). @default random */
  readonly jobId?: string;
  /**
   * When the job began (`SP_JOB_TIME`, as ISO 8601). If given, the folder's name begins with it, as
   * the original's does, and resuming takes both. @default now, and not in the folder's name
   */
  readonly jobTime?: Date;
  /** For people (`SP_JOB_NAME`). @default the script's name */
  readonly jobName?: string;
  /**
   * Below it all jobs' folders lie, on a file system that all executors share (`SP_DATA_ROOT`).
   * @default ~/.cache/open-infra/smallpond
   */
  readonly dataRoot?: string;
  /** Executor processes (`SP_NUM_EXECUTORS`). @default 1, with all cores */
  readonly numExecutors?: number;
  /** Cores of an executor. @default this machine's, shared out */
  readonly executorCpus?: number;
  readonly executorMemoryBytes?: number;
  /**
   * What starts executors (`SP_LAUNCHER` and what goes with it): `slurm({ nodes: 4 })`, `mpirun()`,
   * `ssh()`, `kubernetes()`, `command()`. @default processes on this machine
   */
  readonly launcher?: Launcher;
  /**
   * How executors are talked to (`SP_CHANNEL` and what goes with it): `files()`, `nats()`.
   * @default pipes to this machine's processes; files with a launcher
   */
  readonly channel?: ChannelChoice;
  /** How long the channel may be away before the session gives up. @default 5 minutes */
  readonly channelOutageMs?: number;
  /** Executors started anew for lost ones, in all. @default 3 */
  readonly maxRestarts?: number;
  readonly seed?: number;
  /** False runs plans as they are written, a task for every step. @default true */
  readonly optimize?: boolean;
  /** How results are written. @default zstd 3 */
  readonly parquet?: Partial<ParquetOptions>;
  /** How rows on their way to another partition are written. @default lz4, pages of version 2 */
  readonly shuffleParquet?: Partial<ParquetOptions>;
  /**
   * What tasks computed is deleted when the session ends well; what was written to users' folders
   * stays. @default true for a job with a random name, which nobody can resume; false for others
   */
  readonly removeOutput?: boolean;
  /**
   * Runs nothing: each action prints its plan on stdout and finds no rows, nothing is written
   * (`SP_EXPLAIN`). @default false
   */
  readonly explain?: boolean;
}

/** All of them, as the compiler sees to. */
const optionNames: Readonly<Record<keyof SessionOptions, true>> = {
  jobId: true,
  jobTime: true,
  jobName: true,
  dataRoot: true,
  numExecutors: true,
  executorCpus: true,
  executorMemoryBytes: true,
  launcher: true,
  channel: true,
  channelOutageMs: true,
  maxRestarts: true,
  seed: true,
  optimize: true,
  parquet: true,
  shuffleParquet: true,
  removeOutput: true,
  explain: true,
  maxFailures: true,
  maxLosses: true,
  retryErrors: true,
  prioritizeRetry: true,
  crashIsMemory: true,
  stopExecutorOnFailure: true,
  heartbeatTimeoutMs: true,
  executorStartMs: true,
  noExecutorMs: true,
  stopGraceMs: true,
  speculation: true,
  stragglerMs: true,
  speculationSamples: true,
  boost: true,
  keepIntermediates: true,
  maxDiskBytes: true,
  durable: true,
  minFreeDiskBytes: true,
};

/** Who and where a session is. */
export interface JobPlace {
  readonly jobId: string;
  readonly jobTime: Date;
  readonly jobName: string;
  readonly root: string;
  readonly removeOutput: boolean;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Options with what the environment says put in. @throws InputError that names the wrong one */
export function withEnvironment(
  options: SessionOptions,
  environment: Environment = process.env,
): SessionOptions {
  for (const name of Object.keys(options)) {
    if (!Object.hasOwn(optionNames, name)) {
      throw new InputError("init: option", name, Object.keys(optionNames).join(", "));
    }
  }
  const { SP_JOBID, SP_JOB_TIME, SP_JOB_NAME, SP_DATA_ROOT, SP_NUM_EXECUTORS } = environment;
  const { SP_EXPLAIN } = environment;
  const set = (value: string | undefined): value is string => value !== undefined && value !== "";
  return {
    ...options,
    ...(set(SP_JOBID) && { jobId: SP_JOBID }),
    ...(set(SP_JOB_TIME) && { jobTime: timeOf(SP_JOB_TIME) }),
    ...(set(SP_JOB_NAME) && { jobName: SP_JOB_NAME }),
    ...(set(SP_DATA_ROOT) && { dataRoot: SP_DATA_ROOT }),
    ...(set(SP_NUM_EXECUTORS) && { numExecutors: executorsOf(SP_NUM_EXECUTORS) }),
    ...(set(SP_EXPLAIN) && { explain: SP_EXPLAIN !== "0" }),
  };
}

function timeOf(text: string): Date {
  const time = new Date(text);
  if (!Number.isNaN(time.getTime())) return time;
  throw new InputError("SP_JOB_TIME", text, "a time such as 2026-01-31T12:00:00Z");
}

/** The original's 0 is "on this machine", which is one executor here. */
function executorsOf(text: string): number {
  const count = Number(text);
  if (Number.isInteger(count) && count >= 0) return Math.max(1, count);
  throw new InputError("SP_NUM_EXECUTORS", text, "an integer of at least 0");
}

/** Finds a job's names and folder. @throws InputError for names that are no file names */
export function jobPlace(options: SessionOptions): JobPlace {
  const { jobTime, removeOutput } = options;
  const jobId = options.jobId ?? randomUUID().slice(0, 8);
  if (!/^[\w.-]+$/.test(jobId) || /^\.+$/.test(jobId)) {
    throw new InputError("jobId", jobId, "letters, digits, '_', '.' and '-'");
  }
  if (jobTime !== undefined && Number.isNaN(jobTime.getTime())) {
    throw new InputError("jobTime", "Invalid Date", "a time");
  }
  const numExecutors = options.numExecutors ?? 1;
  if (!Number.isInteger(numExecutors) || numExecutors < 0) {
    throw new InputError("numExecutors", `${numExecutors}`, "an integer of at least 0");
  }
  const dataRoot = options.dataRoot ?? join(homedir(), ".cache", "open-infra", "smallpond");
  const stamp = jobTime?.toISOString().slice(0, 19).replaceAll(/[T:]/g, "-");
  const script = basename(process.argv[1] ?? "session").replace(/\.[cm]?[jt]s$/, "");
  return {
    jobId,
    jobTime: jobTime ?? new Date(),
    jobName: options.jobName ?? script,
    root: resolve(dataRoot, stamp === undefined ? jobId : `${stamp}.${jobId}`),
    removeOutput: removeOutput ?? options.jobId === undefined,
  };
}
