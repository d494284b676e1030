// Ranks as processes of this host, each with one rank or several as its threads; they share memory.
// If this process is killed, the system kills them (parent.ts).

import { fork } from "node:child_process";
import { InputError } from "@open-infra/errors";
import { childChannel } from "./channel.ts";
import { type Endpoint, expectSize, RankHost } from "./rank-host.ts";
import type { RankStart } from "./rank-run.ts";
import { sourceArguments } from "./source-module.ts";
import { hostOptions, type RunOptions, rankStarts } from "./threads.ts";

/** How ranks are started as processes. */
export interface ProcessesOptions extends RunOptions {
  /** Ranks of one process, as its threads. @default 1: the process's main thread */
  readonly ranksPerProcess?: number;
  /** Added to the environment of the processes. */
  readonly env?: Readonly<Record<string, string>>;
  /** Called with each process's id and ranks once it runs. */
  readonly onStart?: (pid: number, ranks: readonly number[]) => void;
}

/** What a process is told first. */
export interface ProcessStart {
  readonly starts: readonly RankStart[];
  readonly parent: number;
}

/**
 * Runs a function on `size` ranks in processes and gives their results by rank, as `runThreads`
 * does. Results, errors and `data` are copied.
 *
 * @throws what the rank threw; RankDeadError if its process ended
 */
export async function runProcesses<T = unknown>(options: ProcessesOptions): Promise<T[]> {
  const { size, ranksPerProcess = 1, env = {}, onStart } = options;
  expectSize(size);
  if (!Number.isInteger(ranksPerProcess) || ranksPerProcess < 1) {
    throw new InputError("ranksPerProcess", `${ranksPerProcess}`, "an integer of at least 1");
  }
  const host = new RankHost(hostOptions(options));
  const starts = rankStarts(options);
  try {
    for (let first = 0; first < size; first += ranksPerProcess) {
      const { endpoint, pid } = startProcess(starts.slice(first, first + ranksPerProcess), env);
      host.add(endpoint);
      if (pid !== undefined) onStart?.(pid, endpoint.ranks);
    }
  } catch (error) {
    await host.destroy();
    throw error;
  }
  return (await host.finish()) as T[];
}

function startProcess(
  starts: readonly RankStart[],
  env: Readonly<Record<string, string>>,
): { readonly endpoint: Endpoint; readonly pid: number | undefined } {
  const { url, flags } = sourceArguments();
  const child = fork(url("rank-process"), {
    serialization: "advanced",
    execArgv: [...inheritedFlags(process.execArgv), ...flags],
    env: { ...process.env, ...env },
  });
  const { promise: ended, resolve } = Promise.withResolvers<string>();
  child.on("error", (error) => resolve(`before it began: ${error.message}`));
  child.on("exit", (code, signal) =>
    resolve(signal === null ? `with code ${code}` : `by ${signal}`),
  );
  child.send({ starts, parent: process.pid } satisfies ProcessStart, () => {});
  const endpoint: Endpoint = {
    ranks: starts.map(({ join }) => join.rank),
    name: `process ${child.pid ?? "that did not start"}`,
    channel: childChannel(child),
    kill: () => void child.kill("SIGKILL"),
    ended,
  };
  return { endpoint, pid: child.pid };
}

/**
 * Flags of this process that its ranks have as well. Not a script given on the command line, for
 * then every rank would be that script again and start ranks of its own, without end; nor a
 * debugger's port, which only one process can have.
 */
export function inheritedFlags(flags: readonly string[]): string[] {
  const kept: string[] = [];
  for (let i = 0; i < flags.length; i++) {
    const flag = flags[i] as string;
    if (/^--(inspect|watch|test)/.test(flag)) continue;
    if (/^(-e|-p|-pe|--eval|--print|--input-type)(=|$)/.test(flag)) {
      if (!flag.includes("=")) i++;
      continue;
    }
    kept.push(flag);
  }
  return kept;
}
