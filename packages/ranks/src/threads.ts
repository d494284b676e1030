// Ranks as worker threads of this process: the embedded default.

import { Worker } from "node:worker_threads";
import { workerChannel } from "./channel.ts";
import type { JoinOptions } from "./group-options.ts";
import { type Endpoint, expectSize, RankHost } from "./rank-host.ts";
import type { RankStart } from "./rank-run.ts";
import { sourceArguments } from "./source-module.ts";

/** What a run of ranks does, and how they join; equal on all of them. */
export interface RunOptions
  extends Pick<
    JoinOptions,
    "ranksPerNode" | "timeoutMs" | "commThreads" | "spinUs" | "transport" | "onRankExit"
  > {
  readonly size: number;
  /** A module whose default export is `(group, data) => result`; it runs on every rank. */
  readonly module: URL;
  /** The export to call. @default "default" */
  readonly export?: string;
  /** Given to every rank; plain data. */
  readonly data?: unknown;
  /** Ends all ranks. */
  readonly signal?: AbortSignal;
}

/** How ranks are started as threads. */
export type ThreadsOptions = RunOptions;

/**
 * Runs a function on `size` ranks and gives their results by rank. The first failure ends all,
 * unless `onRankExit` is `continue`: then a failed rank's result is undefined.
 *
 * @throws what the rank threw; RankDeadError if it ended without a word
 */
export async function runThreads<T = unknown>(options: ThreadsOptions): Promise<T[]> {
  expectSize(options.size);
  const host = new RankHost(hostOptions(options));
  try {
    for (const start of rankStarts(options)) host.add(startThread(start));
  } catch (error) {
    await host.destroy();
    throw error;
  }
  return (await host.finish()) as T[];
}

/** The part of the options that the host needs. */
export function hostOptions({ size, signal, onRankExit }: RunOptions): {
  readonly size: number;
  readonly signal: AbortSignal | undefined;
  readonly goesOn: boolean;
} {
  return { size, signal, goesOn: onRankExit === "continue" };
}

/** What each rank is started with. */
export function rankStarts(options: RunOptions): RankStart[] {
  const { size, module, data, signal: _, export: name = "default", ...join } = options;
  return Array.from({ length: size }, (_unused, rank) => ({
    module: module.href,
    export: name,
    data,
    join: { ...pickJoin(join), rank, size },
  }));
}

/** Only what ranks join by: whatever else an option object of a caller holds may not be copied. */
function pickJoin(options: Partial<RunOptions>): Partial<JoinOptions> {
  const { ranksPerNode, timeoutMs, commThreads, spinUs, transport, onRankExit } = options;
  return {
    ...(ranksPerNode !== undefined && { ranksPerNode }),
    ...(timeoutMs !== undefined && { timeoutMs }),
    ...(commThreads !== undefined && { commThreads }),
    ...(spinUs !== undefined && { spinUs }),
    ...(transport !== undefined && { transport }),
    ...(onRankExit !== undefined && { onRankExit }),
  };
}

/** Starts one rank as a thread. */
export function startThread(start: RankStart): Endpoint {
  const { rank } = start.join;
  const { url, flags } = sourceArguments();
  const worker = new Worker(url("rank-thread"), {
    name: `open-infra-rank-${rank}`,
    workerData: start,
    ...(flags.length > 0 && { execArgv: flags }),
  });
  let problem: unknown;
  worker.on("error", (error) => {
    problem = error;
  });
  const { promise: ended, resolve } = Promise.withResolvers<string>();
  worker.on("exit", (code) => {
    const why = problem === undefined ? "" : `: ${(problem as Error)?.message ?? problem}`;
    resolve(`with code ${code}${why}`);
  });
  return {
    ranks: [rank],
    name: `a thread of process ${process.pid}`,
    channel: workerChannel(worker),
    kill: () => void worker.terminate(),
    ended,
  };
}
