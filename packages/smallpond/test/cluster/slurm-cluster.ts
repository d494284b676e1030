// A Slurm cluster of several virtual nodes on this host, as a test's own processes: munged with a
// key of its own, slurmctld, and a slurmd for each node. Nothing of systemd, nothing in /etc.

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { hasProgram, type Requirement } from "@open-infra/testing";
import { freePort } from "./nats-server.ts";

/** Debian's packages, and the right to run them: slurmd wants to be root. */
export const slurmPrograms: Requirement =
  spawnSync("slurmctld", ["-V"]).status !== 0 || !hasProgram("munged")
    ? "slurmctld or munged is not installed (apt-get install slurm-wlm munge)"
    : process.getuid?.() === 0 || "slurmd runs as root only";

/** See the head of this file. */
export class TestSlurm {
  readonly folder: string;
  readonly #children: ChildProcess[] = [];

  private constructor() {
    this.folder = mkdtempSync(join(tmpdir(), "smallpond-slurm-"));
    chmodSync(this.folder, 0o755);
  }

  /** Environment of Slurm's programs. */
  get environment(): Readonly<Record<string, string>> {
    return { SLURM_CONF: join(this.folder, "slurm.conf") };
  }

  static async start(nodes: number): Promise<TestSlurm> {
    const cluster = new TestSlurm();
    try {
      await cluster.#start(nodes);
    } catch (error) {
      await cluster.stop();
      throw error;
    }
    return cluster;
  }

  /** Runs one of Slurm's programs. */
  call(...words: readonly string[]): string {
    const [program = "", ...rest] = words;
    const env = { ...process.env, ...this.environment };
    const { status, stdout, stderr } = spawnSync(program, rest, { env, encoding: "utf8" });
    if (status !== 0) throw new Error(`${words.join(" ")}: ${stderr}`);
    return stdout.trim();
  }

  async stop(): Promise<void> {
    // Slurm's daemons end their steps when told; munged last, as the others need it.
    for (const child of this.#children.reverse()) {
      const ended = new Promise((resolve) => child.once("exit", resolve));
      if (child.exitCode !== null || child.signalCode !== null) continue;
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), 3_000);
      await ended;
      clearTimeout(timer);
    }
    for (const pid of this.#steps()) process.kill(pid, "SIGKILL");
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** Daemons of steps that outlived their node's: those that listen in this cluster's folder. */
  #steps(): number[] {
    const sockets = readFileSync("/proc/net/unix", "utf8")
      .split("\n")
      .filter((line) => line.includes(`${this.folder}/`))
      .map((line) => `socket:[${line.trim().split(/\s+/)[6]}]`);
    return readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name))
      .filter((pid) => {
        try {
          if (readFileSync(`/proc/${pid}/comm`, "utf8").trim() !== "slurmstepd") return false;
          const files = readdirSync(`/proc/${pid}/fd`);
          return files.some((fd) => sockets.includes(readlinkSync(`/proc/${pid}/fd/${fd}`)));
        } catch {
          // It has ended meanwhile.
          return false;
        }
      })
      .map(Number);
  }

  async #start(nodes: number): Promise<void> {
    const { folder } = this;
    for (const name of ["state", "spool", "log"]) mkdirSync(join(folder, name));
    const key = join(folder, "munge.key");
    writeFileSync(key, randomBytes(128), { mode: 0o400 });
    const socket = join(folder, "munge.socket");
    this.#run("munged", [
      "-F",
      "--force",
      `--key-file=${key}`,
      `--socket=${socket}`,
      `--pid-file=${join(folder, "munged.pid")}`,
      `--log-file=${join(folder, "log", "munged.log")}`,
      `--seed-file=${join(folder, "munged.seed")}`,
    ]);
    const ports: number[] = [];
    for (let i = 0; i <= nodes; i++) ports.push(await freePort());
    writeFileSync(join(folder, "slurm.conf"), configuration(folder, socket, ports));
    await sleep(200);
    this.#run("slurmctld", ["-D"]);
    for (let i = 1; i <= nodes; i++) this.#run("slurmd", ["-D", "-N", `n${i}`]);
    for (let tries = 0; tries < 200; tries++) {
      await sleep(100);
      const idle = spawnSync("sinfo", ["-h", "-t", "idle", "-o", "%D"], {
        env: { ...process.env, ...this.environment },
        encoding: "utf8",
      });
      if (Number(idle.stdout.trim()) === nodes) return;
    }
    throw new Error(`no ${nodes} idle nodes in 20 s: ${this.#logs()}`);
  }

  #logs(): string {
    return ["slurmctld", "slurmd.n1"]
      .map((name) => {
        try {
          return readFileSync(join(this.folder, "log", `${name}.log`), "utf8").slice(-2_000);
        } catch {
          return `no log of ${name}`;
        }
      })
      .join("\n");
  }

  #run(program: string, flags: readonly string[]): void {
    const env = { ...process.env, ...this.environment };
    this.#children.push(spawn(program, flags, { stdio: "ignore", env }));
  }
}

function configuration(folder: string, socket: string, ports: readonly number[]): string {
  const [controller, ...daemons] = ports;
  const host = hostname();
  return [
    "ClusterName=test",
    `SlurmctldHost=${host}(127.0.0.1)`,
    `SlurmctldPort=${controller}`,
    "AuthType=auth/munge",
    `AuthInfo=socket=${socket}`,
    "CryptoType=crypto/munge",
    "SlurmUser=root",
    "SlurmdUser=root",
    `StateSaveLocation=${join(folder, "state")}`,
    `SlurmdSpoolDir=${join(folder, "spool")}/%n`,
    `SlurmctldPidFile=${join(folder, "slurmctld.pid")}`,
    `SlurmdPidFile=${join(folder, "slurmd.%n.pid")}`,
    `SlurmctldLogFile=${join(folder, "log", "slurmctld.log")}`,
    `SlurmdLogFile=${join(folder, "log")}/slurmd.%n.log`,
    "ProctrackType=proctrack/linuxproc",
    "TaskPlugin=task/none",
    "SelectType=select/cons_tres",
    "SelectTypeParameters=CR_CPU",
    "SchedulerType=sched/backfill",
    "SchedulerParameters=bf_interval=1,sched_min_interval=100000",
    "MpiDefault=none",
    "ReturnToService=2",
    "SlurmdTimeout=300",
    "KillWait=2",
    "JobAcctGatherType=jobacct_gather/none",
    "AccountingStorageType=accounting_storage/none",
    // Virtual nodes may say what the machine has not.
    "SlurmdParameters=config_overrides",
    ...daemons.map(
      (port, i) =>
        `NodeName=n${i + 1} NodeHostname=${host} NodeAddr=127.0.0.1 Port=${port} ` +
        "CPUs=2 RealMemory=1000 State=UNKNOWN",
    ),
    "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP",
    "",
  ].join("\n");
}
