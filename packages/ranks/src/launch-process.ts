// One launched rank: a process that ends when it is told to, or when its launcher dies, and that
// leaves its error where the launcher finds it.

import { type ChildProcess, spawn } from "node:child_process";
import { accessSync, constants, readFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import type { SerializedError } from "@open-infra/errors";
import { copyBytes, copyLines, type LineSink } from "./launch-output.ts";

/** How a rank is started. */
export interface RankProcessOptions {
  readonly rank: number;
  readonly localRank: number;
  /** Program and arguments. */
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly errorFile: string;
  /** Put before each line. */
  readonly prefix?: string;
  /** Undefined: the launcher's own. */
  readonly stdout?: LineSink;
  readonly stderr?: LineSink;
}

/** How a rank's process ended. */
export interface RankExit {
  readonly rank: number;
  readonly localRank: number;
  readonly pid: number;
  readonly exitCode: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly seconds: number;
  /** What it threw, if it joined by `joinFromEnvironment`. */
  readonly error?: SerializedError;
}

/** A rank's process. */
export class RankProcess {
  readonly rank: number;
  readonly ended: Promise<RankExit>;
  readonly #child: ChildProcess;
  #running = true;

  constructor(options: RankProcessOptions) {
    const { rank, localRank, command, env, stdout, stderr, prefix } = options;
    this.rank = rank;
    const start = performance.now();
    const [program = "", ...args] = withDeathSignal(command);
    const piped = prefix !== undefined || stdout !== undefined || stderr !== undefined;
    const stream = piped ? "pipe" : "inherit";
    // A process group of its own, so that signals reach what the rank has started as well, and a
    // terminal's Ctrl-C comes once, from the launcher.
    this.#child = spawn(program, args, {
      env: env as NodeJS.ProcessEnv,
      stdio: ["ignore", stream, stream],
      detached: true,
    });
    const copy = (from: ChildProcess["stdout"], to: LineSink): void => {
      if (from === null) return;
      if (prefix === undefined) copyBytes(from, to);
      else copyLines(from, to, prefix);
    };
    copy(this.#child.stdout, stdout ?? process.stdout);
    copy(this.#child.stderr, stderr ?? process.stderr);
    this.ended = new Promise((resolve, reject) => {
      this.#child.once("error", (error) => {
        this.#running = false;
        reject(error);
      });
      // `close` comes when its output has been read as well, unless a child of its own still holds
      // it; `exit` is what counts for the others.
      this.#child.once("exit", (exitCode, signal) => {
        this.#running = false;
        const error = readError(options.errorFile);
        resolve({
          ...{ rank, localRank, pid: this.#child.pid ?? 0, exitCode, signal },
          seconds: (performance.now() - start) / 1000,
          ...(error !== undefined && { error }),
        });
      });
    });
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Its output has been read, as far as it comes within a moment. */
  async drained(limitMs: number): Promise<void> {
    const streams = [this.#child.stdout, this.#child.stderr];
    const ends = streams.map(
      (stream) =>
        new Promise<void>((resolve) => {
          if (stream === null || stream.readableEnded) resolve();
          else stream.once("end", resolve);
        }),
    );
    await Promise.race([
      Promise.all(ends),
      new Promise((resolve) => setTimeout(resolve, limitMs).unref()),
    ]);
    for (const stream of streams) stream?.destroy();
  }

  /** Signals it and what it has started. */
  kill(signal: NodeJS.Signals): void {
    const { pid } = this.#child;
    if (pid === undefined) return;
    try {
      process.kill(-pid, signal);
    } catch {
      // The group is gone, or not made yet.
      if (this.#running) this.#child.kill(signal);
    }
  }
}

/** `setpriv` of util-linux asks the system to kill the rank if the launcher dies. */
function withDeathSignal(command: readonly string[]): readonly string[] {
  if (process.platform !== "linux") return command;
  const setpriv = findProgram("setpriv");
  return setpriv === undefined ? command : [setpriv, "--pdeathsig", "KILL", "--", ...command];
}

function findProgram(name: string): string | undefined {
  for (const folder of (process.env.PATH ?? "").split(delimiter)) {
    const path = join(folder, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Not in this folder.
    }
  }
  return undefined;
}

function readError(file: string): SerializedError | undefined {
  try {
    return JSON.parse(readFileSync(file, "utf8")) as SerializedError;
  } catch {
    // It left none.
    return undefined;
  }
}
