// The process that a launcher starts: it starts the executor proper, and starts it again when it
// crashes, since the launcher (one Slurm job, one mpirun) mostly cannot.

import { fork } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { ownFlags, ownModule } from "../own-module.ts";
import type { StorageOptions } from "../task/disk.ts";
import type { Capacity } from "./protocol.ts";

/** What an executor's process is told on its command line. */
export type ProcessStart =
  | {
      /** Started by a launcher. */
      readonly role?: undefined;
      readonly jobRoot: string;
      readonly capacity?: Partial<Capacity>;
      /** Executors started anew after a crash. @default 3 */
      readonly maxRestarts?: number;
    }
  | {
      /** Its channel is what the job's card says. */
      readonly role: "carded";
      readonly jobRoot: string;
      readonly id?: string;
      readonly capacity?: Partial<Capacity>;
      readonly storage?: StorageOptions;
      readonly rejoinCode: number;
    }
  | {
      /** Its channel is the pipe to its parent. */
      readonly role: "piped";
      readonly jobRoot: string;
      readonly id: string;
      readonly capacity: Capacity;
      readonly storage?: StorageOptions;
      readonly rejoinCode: number;
    };

/** Ends with this when it shall come anew. */
export const rejoinCode = 75;

const restartDelayMs = 500;

/** The file that is an executor's process, and the flags it needs. */
export function executorProgram(): { readonly file: string; readonly flags: readonly string[] } {
  return { file: ownModule("./executor-process", import.meta.url).pathname, flags: ownFlags };
}

/** Keeps an executor alive; gives the code to end with. */
export async function superviseExecutor(
  start: Extract<ProcessStart, { readonly role?: undefined }>,
): Promise<number> {
  let restarts = start.maxRestarts ?? 3;
  let ending = false;
  for (;;) {
    const { file, flags } = executorProgram();
    const own = { ...start, role: "carded", rejoinCode };
    const child = fork(file, [JSON.stringify(own)], { execArgv: [...flags], stdio: "inherit" });
    const end = (): void => {
      ending = true;
      child.kill("SIGTERM");
    };
    process.on("SIGTERM", end);
    process.on("SIGINT", end);
    const code = await new Promise<number>((resolve) => {
      child.once("exit", (exit, signal) => resolve(signal === null ? (exit ?? 1) : 128));
      child.once("error", () => resolve(1));
    });
    process.off("SIGTERM", end);
    process.off("SIGINT", end);
    if (code === 0 || ending) return ending ? 0 : code;
    // Coming back is no crash, and is not counted.
    if (code !== rejoinCode && restarts-- <= 0) return code;
    await sleep(restartDelayMs);
  }
}
