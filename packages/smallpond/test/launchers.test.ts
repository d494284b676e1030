// Launchers: a real mpirun, and programs that stand for ssh, kubectl and a cluster nobody knows;
// who joins, who joins late, who never comes.

import { spawn } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { InputError } from "@open-infra/errors";
import { hasProgram, requirement } from "@open-infra/testing";
import { afterEach, beforeEach, expect, test } from "vitest";
import { findCapacity } from "../src/executor/capacity.ts";
import {
  command,
  files,
  fromModule,
  init,
  kubernetes,
  LaunchError,
  mpirun,
  NoExecutorError,
  type Session,
  type SessionOptions,
  ssh,
} from "../src/index.ts";
import { clusterFromEnvironment } from "../src/launch/environment.ts";

const noMpi = requirement(
  "smallpond under mpirun",
  hasProgram("mpirun") || "mpirun is not installed (apt-get install openmpi-bin)",
);
const steps = new URL("./steps.ts", import.meta.url);
const executor = fileURLToPath(new URL("../src/executor/executor-process.ts", import.meta.url));
let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "smallpond-launch-"));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

function open(options: Partial<SessionOptions>): Promise<Session> {
  const size = { executorCpus: 1, executorMemoryBytes: 2 ** 29 };
  return init({ dataRoot: root, jobId: "job", heartbeatTimeoutMs: 2_000, ...size, ...options });
}

async function runs(session: Session, tasks: number, ms: number): Promise<Set<string>> {
  const used = new Set<string>();
  const off = session.listen(({ executor }) => executor !== undefined && used.add(executor));
  const items = Array.from({ length: tasks * 10 }, (_, i) => i);
  const frame = (await session.fromItems(items)).repartition(tasks, { byRows: true });
  const rows = await frame.mapBatches(fromModule(steps, "slow", [ms])).takeAll();
  off();
  expect(rows.map((row) => Number(row.item)).sort((a, b) => a - b)).toEqual(items);
  return used;
}

/** A program that stands for another one. */
function fake(name: string, text: string): string {
  const file = join(root, name);
  writeFileSync(file, `#!/bin/sh\n${text}\n`);
  chmodSync(file, 0o755);
  return file;
}

async function come(session: Session, count: number): Promise<void> {
  const here = (): number => Object.keys(session.executorPids).length;
  await expect.poll(here, { timeout: 20_000 }).toBe(count);
}

test.skipIf(noMpi)(
  "executors of mpirun; one is killed and its supervisor starts another",
  async () => {
    const extraArguments = ["--allow-run-as-root", "--oversubscribe"];
    await using session = await open({ launcher: mpirun({ count: 2, extraArguments }) });
    await come(session, 2);
    const [first] = Object.values(session.executorPids) as [number];
    let finished = 0;
    session.listen(({ type }) => {
      if (type === "finished" && ++finished === 10) process.kill(first, "SIGKILL");
    });
    await runs(session, 40, 20);
    await expect.poll(() => Object.values(session.executorPids)).not.toContain(first);
    await come(session, 2);
    await session.shutdown();
    expect(existsSync(join(session.folder.root, "channel"))).toBe(false);
  },
);

test("ssh gets one line a host; an executor that nobody asked for joins", async () => {
  // The last argument is the line that the far shell runs.
  const program = fake("ssh", `echo "$@" >>${join(root, "calls")}; for x; do :; done; eval "$x"`);
  await using session = await open({ launcher: ssh({ hosts: ["a", "b"], program }) });
  await come(session, 2);
  const start = JSON.stringify({ jobRoot: session.folder.root });
  const extra = spawn(process.execPath, [...process.execArgv, executor, start], {
    stdio: "inherit",
  });
  const ended = new Promise((resolve) => extra.once("exit", resolve));
  await come(session, 3);
  // More, where a busy machine lets one seem lost for a while and come back.
  expect((await runs(session, 40, 20)).size).toBeGreaterThanOrEqual(3);
  const calls = readFileSync(join(root, "calls"), "utf8");
  expect(calls).toMatch(/BatchMode=yes.* a exec /);
  expect(calls).toMatch(/BatchMode=yes.* b exec /);
  expect(calls).not.toContain("secret");
  await session.shutdown();
  expect(await ended).toBe(0);
});

test("a Job of Kubernetes is applied, followed and deleted", async () => {
  const said = join(root, "kubectl.log");
  const program = fake(
    "kubectl",
    `echo "$@" >>${said}\ncase "$*" in *apply*) cat >${join(root, "job.json")};; ` +
      `*"get pods"*) echo "pod-0 0/1 ImagePullBackOff";; ` +
      `*events*) echo "Failed to pull image";; esac`,
  );
  const volume = { claim: "shared", mountPath: root };
  const launcher = kubernetes({
    image: "node:26",
    volume,
    namespace: "data",
    program,
    startTimeoutMs: 1_500,
    podSpec: { nodeSelector: { disk: "fast" } },
  });
  const session = await open({ launcher, numExecutors: 3 });
  const frame = (await session.fromItems([1])).map("item + 1 AS item");
  const failure = await frame.compute().catch((error: Error) => error);
  expect(failure).toBeInstanceOf(NoExecutorError);
  expect(String(failure)).toMatch(/ImagePullBackOff.*Failed to pull image/s);
  await session.shutdown();
  const job = JSON.parse(readFileSync(join(root, "job.json"), "utf8"));
  expect(job).toMatchObject({
    apiVersion: "batch/v1",
    kind: "Job",
    spec: {
      completions: 3,
      parallelism: 3,
      template: { spec: { nodeSelector: { disk: "fast" }, restartPolicy: "OnFailure" } },
    },
  });
  const [container] = job.spec.template.spec.containers;
  expect(container.image).toBe("node:26");
  expect(container.resources.requests.cpu).toBe("1");
  expect(JSON.parse(container.command.at(-1))).toEqual({ jobRoot: session.folder.root });
  const calls = readFileSync(said, "utf8");
  expect(calls).toContain(`--namespace data delete job ${job.metadata.name} --wait=false`);
});

test("any command starts executors; one that fails is an error with what it said", async () => {
  const template = ["sh", "-c", "export SP_INDEX={index} && exec {command}"];
  await using session = await open({ launcher: command({ template, count: 2 }), channel: files() });
  await come(session, 2);
  // More, where a busy machine lets one seem lost for a while and come back.
  expect((await runs(session, 8, 5)).size).toBeGreaterThanOrEqual(2);
  await session.shutdown();
  const broken = ["sh", "-c", "echo no licence left >&2; exit 3 # {command}"];
  const second = await open({ launcher: command({ template: broken }), jobId: "second" });
  const frame = (await second.fromItems([1])).map("item + 1 AS item");
  const failure = await frame.compute().catch((error: Error) => error);
  expect(failure).toBeInstanceOf(NoExecutorError);
  expect(String(failure)).toContain("no licence left");
  await second.shutdown();
  const missing = open({ launcher: command({ template: ["no-such-program", "{command}"] }) });
  await expect(missing).rejects.toThrow(LaunchError);
});

test("the environment chooses launcher and channel, and what it says wrongly is named", () => {
  const chosen = clusterFromEnvironment({
    SP_LAUNCHER: "ssh",
    SP_SSH_HOSTS: "a,b",
    SP_CHANNEL: "nats",
    SP_NATS_SERVERS: "nats://x:4222,nats://y:4222",
    SP_NATS_USER: "u",
  });
  expect(chosen.launcher).toMatchObject({ name: "ssh", count: 2 });
  const servers = ["nats://x:4222", "nats://y:4222"];
  expect(chosen.channel).toEqual({ kind: "nats", servers, user: "u" });
  expect(clusterFromEnvironment({ SP_PLATFORM: "mpi" }).launcher).toMatchObject({ name: "mpirun" });
  expect(clusterFromEnvironment({})).toEqual({});
  expect(() => clusterFromEnvironment({ SP_LAUNCHER: "ssh" })).toThrow(/SP_SSH_HOSTS is not set/);
  expect(() => clusterFromEnvironment({ SP_LAUNCHER: "lsf" })).toThrow(/slurm, mpirun, ssh/);
  expect(() => clusterFromEnvironment({ SP_CHANNEL: "redis" })).toThrow(InputError);
});

test("an executor finds out what it may take on", () => {
  const slurm = { SLURM_CPUS_ON_NODE: "64", SLURM_MEM_PER_NODE: "1", CUDA_VISIBLE_DEVICES: "0,1" };
  expect(findCapacity({}, slurm)).toEqual({ cpus: 64, memoryBytes: 2 ** 20, gpus: 2 });
  const shared = { ...slurm, SLURM_STEP_TASKS_PER_NODE: "2(x4)" };
  expect(findCapacity({}, shared)).toEqual({ cpus: 32, memoryBytes: 2 ** 19, gpus: 1 });
  const perCpu = { SLURM_CPUS_PER_TASK: "3", SLURM_MEM_PER_CPU: "2" };
  expect(findCapacity({}, perCpu)).toEqual({ cpus: 3, memoryBytes: 6 * 2 ** 20, gpus: 0 });
  expect(findCapacity({ cpus: 5, memoryBytes: 7 }, slurm)).toMatchObject({
    cpus: 5,
    memoryBytes: 7,
  });
  expect(() => findCapacity({ cpus: 0 }, {})).toThrow(InputError);
});

test("what cannot work is refused at once", async () => {
  const pipes = open({ launcher: ssh({ hosts: ["a"] }), channel: { kind: "ipc" } });
  await expect(pipes).rejects.toThrow(/files or nats/);
  expect(() => ssh({ hosts: ["-oProxyCommand=x"] })).toThrow(InputError);
  expect(() => ssh({ hosts: [] })).toThrow(InputError);
  expect(() => command({ template: ["x"] })).toThrow(/\{command\}/);
});
