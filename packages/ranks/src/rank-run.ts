// What a rank runs, whether it is a thread or a process: joins the group, calls the module's
// function, says how it ended.

import { InputError, type SerializedError, serializeError } from "@open-infra/errors";
import { type Channel, ChannelStore } from "./channel.ts";
import { firstThrown, GroupAbortedError } from "./errors.ts";
import type { Group } from "./group.ts";
import type { JoinOptions } from "./group-options.ts";
import { joinGroup } from "./join.ts";

/** Who a rank is and what it runs; plain data. */
export interface RankStart {
  readonly module: string;
  readonly export: string;
  readonly data: unknown;
  readonly join: Omit<JoinOptions, "store">;
}

/** How a rank ended, for whoever started it. */
export interface RankReport {
  readonly rank: number;
  readonly result?: unknown;
  readonly error?: SerializedError;
  /** How its thread ended without a word, where another thread of its process can tell. */
  readonly exit?: string;
}

/** Whoever started the ranks ends them all. */
export interface EndRequest {
  readonly endRanks: string;
}

/** Runs one rank to its end and reports. */
export async function runRank(start: RankStart, channel: Channel): Promise<void> {
  const { rank } = start.join;
  // An error that nobody catches ends the process or the thread; whoever started it hears which.
  const tell = (error: unknown): void => channel.post({ rank, error: serializeError(error) });
  process.once("uncaughtExceptionMonitor", tell);
  let report: RankReport;
  try {
    report = { rank, result: await callRank(start, channel) };
  } catch (error) {
    report = { rank, error: serializeError(error) };
  }
  try {
    channel.post(report);
  } catch (error) {
    // What cannot be copied to another thread.
    channel.post({ rank, error: serializeError(error) });
  }
  channel.close();
}

async function callRank(start: RankStart, channel: Channel): Promise<unknown> {
  const ended = Promise.withResolvers<never>();
  // Nobody may be waiting for it yet.
  ended.promise.catch(() => {});
  channel.listen((message) => {
    const { endRanks } = message as EndRequest;
    if (endRanks === undefined) return;
    const facts = { rank: start.join.rank, peer: -1, operation: "", awaited: "", waitedMs: 0 };
    ended.reject(new GroupAbortedError(endRanks, facts));
  });
  const body = await findBody(start);
  const group = await joinGroup({ ...start.join, store: new ChannelStore(channel) });
  // process.exit in a worker, or an error that nobody caught: what runs here must not outlive it.
  const abandon = (): void => group.abandon();
  process.once("exit", abandon);
  try {
    const result = await Promise.race([body(group, start.data), ended.promise]);
    await group.close();
    return result;
  } catch (thrown) {
    const error = firstThrown(thrown);
    if (group.onRankExit === "continue") group.abandon();
    else group.abort(`${group.describe(group.rank)} threw: ${(error as Error)?.message ?? error}`);
    await group.close();
    throw error;
  } finally {
    process.off("exit", abandon);
  }
}

async function findBody(start: RankStart): Promise<(group: Group, data: unknown) => unknown> {
  const module = (await import(start.module)) as Record<string, unknown>;
  const body = module[start.export];
  if (typeof body === "function") return body as (group: Group, data: unknown) => unknown;
  throw new InputError(`${start.module}: ${start.export}`, typeof body, "a function");
}
