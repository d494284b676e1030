// Launcher and channel by variables of the environment, so that a script that runs on a laptop runs
// on a cluster unedited. As for the session's other options, the environment goes first.

import { InputError } from "@open-infra/errors";
import { type ChannelChoice, files, nats } from "../channel/job-card.ts";
import { command, mpirun, ssh } from "./command.ts";
import { kubernetes } from "./kubernetes.ts";
import type { Launcher } from "./launcher.ts";
import { slurm } from "./slurm.ts";

type Environment = Readonly<Record<string, string | undefined>>;

/** What the environment says of where executors run. */
export interface ClusterChoice {
  /** undefined: nothing is said. */
  readonly launcher?: Launcher | "local";
  readonly channel?: ChannelChoice;
}

const launchers = ["local", "slurm", "mpirun", "ssh", "kubernetes", "command"] as const;

/**
 * Reads `SP_LAUNCHER` (or the original's `SP_PLATFORM`) and `SP_CHANNEL` with what goes with them.
 *
 * @throws InputError that names the variable
 */
export function clusterFromEnvironment(environment: Environment): ClusterChoice {
  const get = (name: string): string | undefined => environment[name] || undefined;
  const name = get("SP_LAUNCHER") ?? platformOf(get("SP_PLATFORM"));
  const channel = get("SP_CHANNEL");
  return {
    ...(name !== undefined && { launcher: launcherOf(name, get) }),
    ...(channel !== undefined && { channel: channelOf(channel, get) }),
  };
}

type Get = (name: string) => string | undefined;

/** The original calls mpirun `mpi`. */
function platformOf(platform: string | undefined): string | undefined {
  return platform?.toLowerCase() === "mpi" ? "mpirun" : platform;
}

function launcherOf(name: string, get: Get): Launcher | "local" {
  const extra = words(get("SP_LAUNCHER_ARGUMENTS"));
  const seconds = get("SP_START_TIMEOUT_S");
  const timeout = seconds === undefined ? {} : { startTimeoutMs: secondsOf(seconds) * 1000 };
  if (name === "local") return "local";
  if (name === "slurm") {
    const partition = get("SP_SLURM_PARTITION");
    const timeLimit = get("SP_SLURM_TIME");
    const pilot = get("SP_SLURM_PILOT");
    return slurm({
      ...timeout,
      extraArguments: extra,
      ...(partition !== undefined && { partition }),
      ...(timeLimit !== undefined && { timeLimit }),
      ...(pilot === "array" && { pilot }),
    });
  }
  if (name === "mpirun") {
    const hosts = get("SP_MPI_HOSTS");
    return mpirun({ ...timeout, extraArguments: extra, ...(hosts !== undefined && { hosts }) });
  }
  if (name === "ssh") {
    const hosts = required("SP_SSH_HOSTS", get, "hosts with commas between").split(",");
    return ssh({ ...timeout, hosts, extraArguments: extra });
  }
  if (name === "kubernetes") return kubernetesOf(get, timeout);
  if (name === "command") {
    const template = words(required("SP_COMMAND", get, "a command with {command} in it"));
    return command({ ...timeout, template });
  }
  throw new InputError("SP_LAUNCHER", name, launchers.join(", "));
}

function kubernetesOf(get: Get, timeout: { readonly startTimeoutMs?: number }): Launcher {
  const namespace = get("SP_K8S_NAMESPACE");
  return kubernetes({
    ...timeout,
    image: required("SP_K8S_IMAGE", get, "an image"),
    volume: {
      claim: required("SP_K8S_CLAIM", get, "a persistent volume claim"),
      mountPath: required("SP_K8S_MOUNT", get, "the path of the volume"),
    },
    ...(namespace !== undefined && { namespace }),
  });
}

function channelOf(name: string, get: Get): ChannelChoice {
  if (name === "ipc") return { kind: "ipc" };
  if (name === "files") return files();
  if (name !== "nats") throw new InputError("SP_CHANNEL", name, "ipc, files, nats");
  const servers = get("SP_NATS_SERVERS")?.split(",");
  const given = {
    user: get("SP_NATS_USER"),
    password: get("SP_NATS_PASSWORD"),
    token: get("SP_NATS_TOKEN"),
    nkeySeedFile: get("SP_NATS_NKEY_FILE"),
    credentialsFile: get("SP_NATS_CREDENTIALS_FILE"),
  };
  const caFile = get("SP_NATS_CA_FILE");
  const said = Object.entries(given).filter(([, value]) => value !== undefined);
  return nats({
    ...Object.fromEntries(said),
    ...(servers !== undefined && { servers }),
    ...(caFile !== undefined && { tls: { caFile } }),
  });
}

function required(name: string, get: Get, allowed: string): string {
  const value = get(name);
  if (value === undefined) throw new InputError(name, "not set", allowed);
  return value;
}

function words(text: string | undefined): string[] {
  return (text ?? "").split(/\s+/).filter((word) => word !== "");
}

function secondsOf(text: string): number {
  const seconds = Number(text);
  if (seconds > 0) return seconds;
  throw new InputError("SP_START_TIMEOUT_S", text, "a number above 0");
}
