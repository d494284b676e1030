// An executor's life: it opens the job's channel, says that it is ready, does what it is told, says
// every now and then that it is there, and ends when told or when its driver is gone.

import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import type { Channel, Delivery } from "../channel/channel.ts";
import { openChannel, readCard } from "../channel/job-card.ts";
import type { StorageOptions } from "../task/disk.ts";
import { findCapacity } from "./capacity.ts";
import { Executor } from "./executor.ts";
import { queueOf } from "./handle.ts";
import { driverName, driverQueue, type Report } from "./hub.ts";
import { machineLoad } from "./load.ts";
import type { Capacity, FromExecutor, ToExecutor } from "./protocol.ts";

/** How an executor is run. */
export interface ExecutorOptions {
  /** The job's folder, as `session.folder.root` says. */
  readonly jobRoot: string;
  /** Unique in the job. @default host, process and chance */
  readonly id?: string;
  /** What it takes on. @default as the job's session says, else what this machine has */
  readonly capacity?: Partial<Capacity>;
  readonly storage?: StorageOptions;
  /** Ends it after what it is doing. */
  readonly signal?: AbortSignal;
}

/** Why an executor ended. */
export type ExecutorEnd = "shutdown" | "rejoin" | "driver-gone" | "stopped";

const beatMs = 500;
/** A channel that is away for so many times the driver's patience will not come back. */
const troubleFactor = 10;

/** A name that no other executor of the job has. */
export function freshId(): string {
  const host =
    hostname()
      .split(".")[0]
      ?.replace(/[^A-Za-z0-9-]/g, "-") || "host";
  return `${host}-${process.pid}-${randomBytes(4).toString("hex")}`;
}

/**
 * Runs an executor of the job in a folder until its end.
 *
 * @throws InputError if no session runs there, ChannelError if its channel cannot be reached
 */
export async function runExecutor(options: ExecutorOptions): Promise<ExecutorEnd> {
  const card = readCard(options.jobRoot);
  const channel = await openChannel(options.jobRoot, card, false);
  try {
    return await serve(channel, {
      ...options,
      id: options.id ?? freshId(),
      capacity: findCapacity({ ...card.capacity, ...options.capacity }),
      storage: options.storage ?? card.storage,
      driverSilentMs: card.driverSilentMs,
    });
  } finally {
    await channel.close();
  }
}

/** What {@link serve} needs to know. */
export interface ServeOptions extends ExecutorOptions {
  readonly id: string;
  readonly capacity: Capacity;
  readonly driverSilentMs: number;
}

/** Runs an executor over an open channel until its end. */
export async function serve(channel: Channel, options: ServeOptions): Promise<ExecutorEnd> {
  const { id, jobRoot, capacity, storage, driverSilentMs, signal } = options;
  const ended = Promise.withResolvers<ExecutorEnd>();
  let serial = 0;
  let lastSent: Promise<void> = Promise.resolve();
  const send = (message: FromExecutor): void => {
    const who = "ready" in message ? { pid: process.pid, host: hostname() } : {};
    const report: Report = { from: id, message, ...who };
    lastSent = channel.send(driverQueue, `${id}-r${serial++}`, JSON.stringify(report));
    // What cannot be said now is repeated by the channel; a refusal ends the executor.
    lastSent.catch((error: Error) => ended.reject(error));
  };
  const executor = new Executor(
    { id, jobRoot, capacity, ...(storage !== undefined && { storage }) },
    send,
  );
  // Whose process freezes and is given a message again has it once: by attempt, of which each is
  // sent once.
  const take = ({ body, ack }: Delivery): void => {
    const message = JSON.parse(body) as ToExecutor;
    void ack().catch(() => {});
    if ("shutdown" in message) ended.resolve("shutdown");
    else if ("rejoin" in message) ended.resolve("rejoin");
    else executor.take(message);
  };
  const consumer = await channel.consume(queueOf(id), take, { inFlight: 4096 });
  const driver = await watchDriver(channel, driverSilentMs, () => ended.resolve("driver-gone"));
  const beat = (): void => {
    channel.beat(id, JSON.stringify({ alive: Date.now(), load: machineLoad() }));
  };
  beat();
  const timer = setInterval(beat, beatMs);
  const leave = (): void => {
    send({ leaving: String(signal?.reason ?? "it was told to end") });
  };
  signal?.addEventListener("abort", leave, { once: true });
  try {
    return await ended.promise;
  } finally {
    clearInterval(timer);
    signal?.removeEventListener("abort", leave);
    executor.close();
    driver();
    await lastSent.catch(() => {});
    await consumer.close();
  }
}

/** Calls once when the driver was silent for too long; gives what ends the watch. */
async function watchDriver(
  channel: Channel,
  silentMs: number,
  gone: () => void,
): Promise<() => void> {
  let silent = 0;
  let away = 0;
  const watcher = await channel.watch((from) => {
    if (from === driverName) silent = 0;
  });
  // Ticks of this process, not the clock: a machine that slept has not been left alone.
  const timer = setInterval(() => {
    away = channel.trouble === undefined ? 0 : away + beatMs;
    if (channel.trouble === undefined) silent += beatMs;
    if (silent > silentMs || away > troubleFactor * silentMs) gone();
  }, beatMs);
  return () => {
    clearInterval(timer);
    void watcher.close();
  };
}
