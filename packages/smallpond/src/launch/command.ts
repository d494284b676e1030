// Launchers that are one program of the system: mpirun, ssh, and any other by a template.

import { InputError } from "@open-infra/errors";
import { type Launcher, type LaunchRequest, shellLine } from "./launcher.ts";
import { runProgram, together } from "./program.ts";

const minuteMs = 60_000;

/** How `mpirun` starts executors. */
export interface MpirunOptions {
  /** @default the session's numExecutors, or 1 */
  readonly count?: number;
  /** Hosts with their slots, as `mpirun --host` takes them: `a:2,b:2`. */
  readonly hosts?: string;
  readonly extraArguments?: readonly string[];
  /** @default "mpirun" */
  readonly program?: string;
  /** @default 2 minutes */
  readonly startTimeoutMs?: number;
}

/** Executors as processes of one `mpirun`; they use nothing of MPI. */
export function mpirun(options: MpirunOptions = {}): Launcher {
  const { count, hosts, extraArguments = [], program = "mpirun" } = options;
  return {
    name: "mpirun",
    startTimeoutMs: options.startTimeoutMs ?? 2 * minuteMs,
    ...(count !== undefined && { count }),
    launch: (request) =>
      runProgram("mpirun", [
        program,
        "-n",
        String(request.count),
        ...(hosts === undefined ? [] : ["--host", hosts]),
        ...extraArguments,
        ...request.command,
      ]),
  };
}

/** How `ssh` starts executors. */
export interface SshOptions {
  /** One executor each; name one twice for two. Keys and users are ssh's own configuration. */
  readonly hosts: readonly string[];
  readonly extraArguments?: readonly string[];
  /** Run before the executor on each host: `module load nodejs`. */
  readonly before?: string;
  /** @default "ssh" */
  readonly program?: string;
  /** @default 2 minutes */
  readonly startTimeoutMs?: number;
}

/** Executors on named hosts, each by an `ssh` of its own that never asks for a password. */
export function ssh(options: SshOptions): Launcher {
  const { hosts, extraArguments = [], before, program = "ssh" } = options;
  if (hosts.length === 0) throw new InputError("ssh: hosts", "empty", "at least one host");
  for (const host of hosts) {
    // ssh would read it as an option.
    if (/^-|\s/.test(host)) throw new InputError("ssh: hosts", host, "a host's name");
  }
  const one = (
    request: LaunchRequest,
    host: string,
  ): Promise<Awaited<ReturnType<Launcher["launch"]>>> => {
    // -tt: with a terminal, the far end is hung up on when the connection ends.
    const line = `${before === undefined ? "" : `${before} && `}exec ${shellLine(request.command)}`;
    const flags = ["-o", "BatchMode=yes", "-o", "ServerAliveInterval=15", "-tt"];
    return runProgram("ssh", [program, ...flags, ...extraArguments, host, line]);
  };
  return {
    name: "ssh",
    count: hosts.length,
    startTimeoutMs: options.startTimeoutMs ?? 2 * minuteMs,
    launch: async (request) => {
      const chosen = Array.from(
        { length: request.count },
        (_, i) => hosts[i % hosts.length] as string,
      );
      const parts = await Promise.all(chosen.map((host) => one(request, host)));
      return together(`ssh to ${[...new Set(chosen)].join(", ")}`, parts);
    },
  };
}

/** How any program starts executors. */
export interface CommandOptions {
  /**
   * Words of a command. `{command}` alone becomes the executor's words, inside a word one line for
   * a shell; `{count}`, `{index}`, `{cpus}`, `{memoryMib}`, `{name}`, `{folder}` are filled in.
   */
  readonly template: readonly string[];
  /** True: run once, and it starts all of them. @default false: run for each executor */
  readonly startsAll?: boolean;
  readonly count?: number;
  /** @default 10 minutes */
  readonly startTimeoutMs?: number;
}

/** Executors by a command of yours: `command({ template: ["qrsh", "-V", "{command}"] })`. */
export function command(options: CommandOptions): Launcher {
  const { template, startsAll = false, count } = options;
  if (!template.some((word) => word.includes("{command}"))) {
    throw new InputError("command: template", template.join(" "), "words with {command} in them");
  }
  return {
    name: "command",
    startTimeoutMs: options.startTimeoutMs ?? 10 * minuteMs,
    ...(count !== undefined && { count }),
    launch: async (request) => {
      const runs = startsAll ? 1 : request.count;
      const parts = await Promise.all(
        Array.from({ length: runs }, (_, i) => runProgram("command", fill(template, request, i))),
      );
      return together(`${template[0]}`, parts);
    },
  };
}

function fill(template: readonly string[], request: LaunchRequest, index: number): string[] {
  const { cpus = 1, memoryBytes = 0 } = request;
  const values: Readonly<Record<string, string>> = {
    count: String(request.count),
    index: String(index),
    cpus: String(Math.ceil(cpus)),
    memoryMib: String(Math.ceil(memoryBytes / 2 ** 20)),
    name: request.name,
    folder: request.folder,
    command: shellLine(request.command),
  };
  return template.flatMap((word) =>
    word === "{command}"
      ? request.command
      : [word.replaceAll(/\{(\w+)\}/g, (all, name: string) => values[name] ?? all)],
  );
}
