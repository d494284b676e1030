// Executors by Slurm: one pilot job (or a job array) holds the nodes for the session's life, and
// tasks go to the executors in it by the channel. Never a Slurm job a task: Slurm starts about one
// a second, this hands out thousands.

import { writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { LaunchError } from "../errors.ts";
import { type Launched, type Launcher, type LaunchRequest, shellLine } from "./launcher.ts";
import { ask, expectAnswer } from "./program.ts";

/** How Slurm starts executors. */
export interface SlurmOptions {
  /** @default the session's numExecutors ÷ executorsPerNode */
  readonly nodes?: number;
  /** @default 1 */
  readonly executorsPerNode?: number;
  /** Cores of each executor. @default all of a node's, shared out, as the job owns the node */
  readonly cpusPerExecutor?: number;
  readonly partition?: string;
  /** `--time`, as Slurm writes it: `1-12:00:00`. @default the partition's */
  readonly timeLimit?: string;
  /**
   * `job`: all nodes at once. `array`: a job a node, which start as nodes become free and are
   * queued
   * again by Slurm if their node fails. @default "job"
   */
  readonly pilot?: "job" | "array";
  /** Put before ours, for `sbatch`: `["--account=x", "--gpus-per-node=8"]`. */
  readonly extraArguments?: readonly string[];
  /** Shell lines of the job before the executors: `module load nodejs`. */
  readonly before?: string;
  /** How long the job may wait in Slurm's queue. @default 1 hour */
  readonly startTimeoutMs?: number;
}

const hourMs = 3_600_000;
const pollMs = 2_000;
const tailLength = 2_000;

/** See the head of this file. */
export function slurm(options: SlurmOptions = {}): Launcher {
  const perNode = options.executorsPerNode ?? 1;
  return {
    name: "slurm",
    startTimeoutMs: options.startTimeoutMs ?? hourMs,
    ...(options.nodes !== undefined && { count: options.nodes * perNode }),
    launch: async (request) => {
      const script = join(request.folder, "pilot.sh");
      writeFileSync(script, pilotScript(options, request), { mode: 0o700 });
      const output = join(request.folder, "slurm-%A-%a.log");
      const words = [
        "sbatch",
        "--parsable",
        `--output=${output}`,
        ...sbatchFlags(options, request),
      ];
      const answer = await expectAnswer("slurm", [...words, script]);
      const id = /^\d+/.exec(answer.trim())?.[0];
      if (id === undefined) throw new LaunchError("slurm", `sbatch answered ${answer.trim()}`);
      return follow(id, join(request.folder, `slurm-${id}-`));
    },
  };
}

function nodesOf({ nodes, executorsPerNode = 1 }: SlurmOptions, { count }: LaunchRequest): number {
  return nodes ?? Math.ceil(count / executorsPerNode);
}

function sbatchFlags(options: SlurmOptions, request: LaunchRequest): string[] {
  const { executorsPerNode = 1, cpusPerExecutor, partition, timeLimit, pilot = "job" } = options;
  const nodes = nodesOf(options, request);
  const cpus =
    cpusPerExecutor ?? (request.cpus === undefined ? undefined : Math.ceil(request.cpus));
  return [
    `--job-name=${request.name}`,
    ...(partition === undefined ? [] : [`--partition=${partition}`]),
    ...(timeLimit === undefined ? [] : [`--time=${timeLimit}`]),
    ...(pilot === "array"
      ? ["--nodes=1", `--array=0-${nodes - 1}`, "--requeue"]
      : // A node that fails takes its executors along and nobody else's.
        [`--nodes=${nodes}`, "--no-kill", "--no-requeue"]),
    `--ntasks-per-node=${executorsPerNode}`,
    ...(cpus === undefined ? ["--exclusive"] : [`--cpus-per-task=${cpus}`]),
    ...(options.extraArguments ?? []),
  ];
}

/** What the job runs on its first node: a step with the executors, which outlives failed nodes. */
function pilotScript(options: SlurmOptions, { command }: LaunchRequest): string {
  const { executorsPerNode = 1, before = "" } = options;
  const flags = ["--no-kill", "--kill-on-bad-exit=0", "--wait=0", "--unbuffered"];
  return [
    "#!/bin/sh",
    before,
    `export SP_EXECUTORS_PER_NODE=${executorsPerNode}`,
    `exec srun ${flags.join(" ")} \${SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK} \\`,
    `  ${shellLine(command)}`,
    "",
  ].join("\n");
}

function follow(id: string, logPrefix: string): Launched {
  const ended = Promise.withResolvers<string>();
  let stopped = false;
  const state = async (): Promise<string> => {
    const { code, stdout } = await ask("slurm", ["squeue", "-h", "-j", id, "-o", "%i %T %D %r"]);
    return code === 0 ? stdout.trim() : "";
  };
  const tail = async (): Promise<string> => {
    // %a is 4294967294 for a job that is no array.
    for (const part of ["4294967294", "0"]) {
      const text = await readFile(`${logPrefix}${part}.log`, "utf8").catch(() => "");
      if (text !== "") return text.slice(-tailLength).trim();
    }
    return "";
  };
  const describe = async (): Promise<string> => {
    const [now, said] = [await state().catch(String), await tail()];
    const queue = now === "" ? "is not in squeue any more" : `squeue says ${now}`;
    return `job ${id} ${queue}${said === "" ? "" : `; its output ends:\n${said}`}`;
  };
  const poll = async (): Promise<void> => {
    while (!stopped) {
      await sleep(pollMs, undefined, { ref: false });
      // A controller that does not answer is no end of the job.
      const { code, stdout, stderr } = await ask("slurm", ["squeue", "-h", "-j", id]).catch(() => ({
        code: 1,
        stdout: "",
        stderr: "",
      }));
      const gone = code === 0 ? stdout.trim() === "" : /Invalid job id/i.test(stderr);
      if (gone) return ended.resolve(await describe());
    }
  };
  void poll();
  return {
    label: `Slurm job ${id}`,
    describe,
    ended: ended.promise,
    stop: async () => {
      stopped = true;
      // Executors that were told to end have mostly ended the job already.
      await ask("slurm", ["scancel", "--quiet", id]).catch(() => {});
      ended.resolve("cancelled");
    },
  };
}
