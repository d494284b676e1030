// Executors as child processes of this one.

import { type ChildProcess, fork } from "node:child_process";
import type { Socket } from "node:net";
import { homedir } from "node:os";
import { join } from "node:path";
import type { IpcParent } from "../channel/ipc-parent.ts";
import type { ProcessEnd } from "./handle.ts";
import type { ExecutorStart } from "./protocol.ts";
import { executorProgram, type ProcessStart, rejoinCode } from "./supervise.ts";

export type { ExecutorHandle } from "./handle.ts";

/** Compiled code of earlier executors, which spares loading some 40 %. The user's own. */
const compileCache = join(homedir(), ".cache", "open-infra", "compile-cache");

/** Of an error stream, what is kept. */
const tailLength = 4_000;

/**
 * Starts an executor's process.
 *
 * @param pipes Its channel, if it is the pipe to it; else it finds the job's.
 */
export function startLocalProcess(start: ExecutorStart, pipes: IpcParent | undefined): ProcessEnd {
  const { file, flags } = executorProgram();
  const own: ProcessStart = {
    ...start,
    role: pipes === undefined ? "carded" : "piped",
    rejoinCode,
  };
  const child: ChildProcess = fork(file, [JSON.stringify(own)], {
    env: { NODE_COMPILE_CACHE: compileCache, ...process.env },
    execArgv: [...flags],
    serialization: "json",
    stdio: ["ignore", "inherit", "pipe", "ipc"],
  });
  pipes?.attach(child);
  // A script whose work is done ends though nobody called shutdown; the session keeps the process
  // alive while an action runs.
  child.unref();
  child.channel?.unref();
  (child.stderr as Socket | null)?.unref();
  let tail = "";
  child.stderr?.on("data", (bytes: Buffer) => {
    process.stderr.write(bytes);
    tail = (tail + bytes.toString()).slice(-tailLength);
  });
  const exited = new Promise<string>((resolve) => {
    child.once("exit", (code, signal) => resolve(signal ?? `exit code ${code}`));
    child.once("error", (error) => resolve(error.message));
  });
  return {
    pid: child.pid ?? 0,
    exited,
    kill: () => child.kill("SIGKILL"),
    stderrTail: () => tail,
  };
}
