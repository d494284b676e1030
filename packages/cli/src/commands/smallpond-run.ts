// `open-infra smallpond run` and `explain`: a script in a process of its own, and its job as it
// goes, read from the log that the job writes.

import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { consoleDir } from "@open-infra/console";
import { startJobViewer } from "@open-infra/server";
import { JobFollower } from "@open-infra/smallpond";
import { type CliContext, note } from "../context.ts";
import { UsageError } from "../parse.ts";
import { dataRootOf, jobsUnder } from "../smallpond-jobs.ts";
import { JobProgress } from "../smallpond-progress.ts";
import { counted } from "../table.ts";

interface Flags {
  readonly jobId?: string;
  readonly dataRoot?: string;
  readonly executors?: number;
  readonly quiet: boolean;
  readonly console: boolean;
}

const drawMs = 150;
const own = import.meta.url;
const scriptErrors = new URL(`../script-errors${own.slice(own.lastIndexOf("."))}`, own).href;
/** Ctrl-C on a terminal has reached the script by then, if it was on the terminal. */
const passOnMs = 2_000;

export default async function run(
  this: CliContext,
  flags: Flags,
  script: string,
  ...args: string[]
): Promise<void> {
  await expectScript(script);
  const dataRoot = dataRootOf(flags, this);
  const { SP_JOBID } = this.process.env;
  const jobId = flags.jobId ?? (SP_JOBID || `run-${randomUUID().slice(0, 8)}`);
  const root = join(dataRoot, jobId);
  const follower = new JobFollower(root);
  // A job that goes on has a log already; only what is new is this run's.
  await follower.read();
  const before = follower.view.progress.done;
  const progress = new JobProgress(this, Date.now());
  await using viewer = flags.console
    ? await startJobViewer({ ...jobsUnder(dataRoot), job: jobId, console: consoleDir() })
    : undefined;
  if (viewer !== undefined) note(this, `smallpond: watch it on ${viewer.url}`);
  const code = await runScript(
    this,
    [script, ...args],
    progress,
    {
      SP_JOBID: jobId,
      SP_DATA_ROOT: dataRoot,
      ...(flags.executors !== undefined && { SP_NUM_EXECUTORS: String(flags.executors) }),
    },
    async () => {
      await follower.read();
      if (!flags.quiet) progress.draw(follower.view, Date.now());
    },
  );
  await follower.read();
  this.process.exitCode = code;
  const { done } = follower.view.progress;
  const named = flags.jobId !== undefined || Boolean(SP_JOBID);
  if (code === 0 && !named) await rm(join(root, "output"), { recursive: true, force: true });
  if (code === 0) {
    if (!flags.quiet)
      note(this, `smallpond: ${counted(done - before, "task")}, log in ${root}/log`);
  } else {
    note(this, `smallpond: not finished; go on with --job-id ${jobId} (log in ${root}/log)`);
  }
}

/** `open-infra smallpond explain`. */
export async function explain(
  this: CliContext,
  _flags: Record<never, never>,
  script: string,
  ...args: string[]
): Promise<void> {
  await expectScript(script);
  const dataRoot = await mkdtemp(join(tmpdir(), "smallpond-explain-"));
  try {
    const env = { SP_EXPLAIN: "1", SP_DATA_ROOT: dataRoot, SP_JOBID: "explain" };
    const code = await runScript(this, [script, ...args], undefined, env, async () => {});
    if (code !== 0) {
      note(this, "smallpond: the script ended early: it needs rows, and explaining computes none");
    }
    this.process.exitCode = code;
  } finally {
    await rm(dataRoot, { recursive: true, force: true });
  }
}

async function expectScript(script: string): Promise<void> {
  const found = await stat(script).catch(() => undefined);
  if (!found?.isFile()) throw new UsageError(`there is no script ${script}`);
}

/** Runs it to its end, passing on what it prints; its exit status as a shell has it. */
async function runScript(
  context: CliContext,
  command: readonly string[],
  progress: JobProgress | undefined,
  env: Readonly<Record<string, string>>,
  tick: () => Promise<void>,
): Promise<number> {
  const preload = `--import=${scriptErrors}`;
  const child = spawn(process.execPath, [...process.execArgv, preload, ...command], {
    stdio: ["inherit", "pipe", "pipe"],
    env: { ...process.env, ...env },
  });
  const pass = (to: { write(text: string): void }) => (chunk: Buffer) => {
    progress?.clear();
    to.write(chunk.toString());
  };
  child.stdout.on("data", pass(context.process.stdout));
  child.stderr.on("data", pass(context.process.stderr));
  // A terminal's Ctrl-C reaches the script by itself, and once is enough for a script that then
  // tidies up; what was sent to this process alone does not. This one stays to say how to go on.
  let passing: NodeJS.Timeout | undefined;
  const onInterrupt = (): void => {
    const waitMs = process.stdin.isTTY ? passOnMs : 0;
    passing ??= setTimeout(() => child.kill("SIGINT"), waitMs);
  };
  const onTerminate = (): void => void child.kill("SIGTERM");
  process.on("SIGINT", onInterrupt);
  process.on("SIGTERM", onTerminate);
  const timer = setInterval(() => void tick(), drawMs);
  try {
    return await new Promise<number>((done, failed) => {
      child.once("error", failed);
      child.once("close", (code, signal) => done(code ?? 128 + (signals[signal ?? ""] ?? 0)));
    });
  } finally {
    clearInterval(timer);
    clearTimeout(passing);
    progress?.clear();
    process.off("SIGINT", onInterrupt);
    process.off("SIGTERM", onTerminate);
  }
}

const signals: Readonly<Record<string, number>> = {
  SIGINT: 2,
  SIGKILL: 9,
  SIGTERM: 15,
  SIGSEGV: 11,
};
