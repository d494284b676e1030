// From a session's options to those of its executors: how many, of what size, where, by which
// channel.

import { availableParallelism, freemem } from "node:os";
import type { ChannelChoice } from "../channel/job-card.ts";
import { engineVersion } from "../executor/engine.ts";
import type { FleetOptions } from "../executor/fleet.ts";
import type { Capacity } from "../executor/protocol.ts";
import { clusterFromEnvironment } from "../launch/environment.ts";
import type { Launcher } from "../launch/launcher.ts";
import type { JobPlace, SessionOptions } from "./options.ts";

const outageMs = 300_000;
const localStartMs = 60_000;
/** Of an executor of which nothing is known: whatever a task asks for, it may have. */
const unknown: Capacity = {
  cpus: Number.POSITIVE_INFINITY,
  memoryBytes: Number.POSITIVE_INFINITY,
  gpus: Number.POSITIVE_INFINITY,
};

/** What a session does with what happens to its executors. */
export interface FleetEvents extends Pick<FleetOptions, "onStart" | "onNone" | "onNoMore"> {
  readonly onExpect: (capacity: Capacity) => void;
}

/** A launcher and a channel, by the environment, else by the options. */
function clusterOf(options: SessionOptions): {
  readonly launcher: Launcher | undefined;
  readonly channel: ChannelChoice;
} {
  const said = clusterFromEnvironment(process.env);
  const launcher = said.launcher === "local" ? undefined : (said.launcher ?? options.launcher);
  const usual: ChannelChoice =
    launcher === undefined
      ? { kind: "ipc" }
      : { kind: "files", ...(options.durable !== undefined && { durable: options.durable }) };
  return { launcher, channel: said.channel ?? options.channel ?? usual };
}

/** See the head of this file. @throws InputError for what the environment says wrongly */
export function fleetOptions(
  options: SessionOptions,
  { root, jobId }: JobPlace,
  { onExpect, ...events }: FleetEvents,
): FleetOptions {
  const { executorCpus, executorMemoryBytes, durable, minFreeDiskBytes } = options;
  const { launcher, channel } = clusterOf(options);
  const count = Math.max(1, options.numExecutors ?? launcher?.count ?? 1);
  // Elsewhere machines are not shared with this one's other executors.
  const sharers = launcher === undefined ? count : 1;
  return {
    jobRoot: root,
    jobId,
    count,
    capacity: {
      cpus: executorCpus ?? Math.max(1, Math.floor(availableParallelism() / sharers)),
      memoryBytes: executorMemoryBytes ?? Math.floor((freemem() * 0.8) / sharers),
      gpus: 0,
    },
    saidCapacity: {
      ...(executorCpus !== undefined && { cpus: executorCpus }),
      ...(executorMemoryBytes !== undefined && { memoryBytes: executorMemoryBytes }),
    },
    storage: {
      ...(durable !== undefined && { durable }),
      ...(minFreeDiskBytes !== undefined && { minFreeDiskBytes }),
    },
    engine: engineVersion(),
    launcher,
    channel,
    maxRestarts: options.maxRestarts ?? 3,
    startTimeoutMs: options.noExecutorMs ?? launcher?.startTimeoutMs ?? localStartMs,
    channelOutageMs: options.channelOutageMs ?? outageMs,
    ...events,
    onExpect: (expected) => {
      for (let i = 0; i < expected; i++) onExpect(unknown);
    },
  };
}
