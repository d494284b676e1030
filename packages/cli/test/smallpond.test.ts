// `open-infra smallpond …` as a person meets it: a script runs, is explained, interrupted and
// gone on with; its job is listed, looked at, served, and one task of it run again.

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type CliResult, runCli, startCli } from "./run-cli.ts";

const script = fileURLToPath(new URL("./smallpond/job.ts", import.meta.url));
const bin = fileURLToPath(new URL("../bin/open-infra.js", import.meta.url));
let folder = "";
let env: Record<string, string> = {};
let first: CliResult;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "open-infra-smallpond-"));
  env = { SP_DATA_ROOT: join(folder, "jobs") };
  first = await smallpond("run", "--job-id", "nightly", "--", script, join(folder, "out"));
}, 60_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const smallpond = (...args: readonly string[]): Promise<CliResult> =>
  runCli(["smallpond", ...args], env);

interface Status {
  readonly state: string;
  readonly tasks: number;
  readonly done: number;
  readonly steps: readonly { node: string; kind: string; done: number; reused: number }[];
  readonly executors: readonly { state: string; done: number }[];
  readonly failures: readonly { final: boolean; error: string }[];
}

async function statusOf(job: string): Promise<Status> {
  return JSON.parse((await smallpond("status", job, "--json")).stdout) as Status;
}

/** Waits until so many tasks of a job have finished. */
async function someFinished(job: string, count: number, child: ChildProcess): Promise<void> {
  const log = join(folder, "jobs", job, "log", "events.jsonl");
  const finished = (): number =>
    existsSync(log) ? readFileSync(log, "utf8").split('"event":"finished"').length - 1 : 0;
  while (finished() < count && child.exitCode === null) await sleep(30);
}

/** Processes that have a text on their command line, as executors have their job's folder. */
function processesNaming(text: string): number {
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  const lines = pids.map((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "utf8");
    } catch {
      return "";
    }
  });
  return lines.filter((line) => line.includes(text)).length;
}

describe("smallpond run", () => {
  it("runs a script and leaves its rows, its figures and its log", () => {
    const { code, stdout, stderr } = first;
    expect({ code, stdout }, stderr).toEqual({ code: 0, stdout: `wrote ${join(folder, "out")}\n` });
    expect(stderr).toMatch(/smallpond: \d+ tasks, log in .*nightly\/log\n/);
    const files = readdirSync(join(folder, "out")).filter((name) => name.endsWith(".parquet"));
    expect(files.length).toBeGreaterThan(0);
    const log = readdirSync(join(folder, "jobs", "nightly", "log"));
    for (const name of ["events.jsonl", "tasks.jsonl", "metrics.csv", "timeline_exec.json"]) {
      expect(log).toContain(name);
    }
    const csv = readFileSync(join(folder, "jobs", "nightly", "log", "metrics.csv"), "utf8");
    expect(csv.split("\n")[0]).toContain("elapsed_ms_p95");
  });

  it("says what a failing query was, and how to go on", async () => {
    const args = ["run", "--job-id", "wrong", "--", script, "nowhere", "wrong"];
    const { code, stderr } = await smallpond(...args);
    expect(code).not.toBe(0);
    expect(stderr).toContain("missing > 3");
    expect(stderr).toContain("go on with --job-id wrong");
    const places = stderr.split("\n").filter((line) => line.startsWith("    at "));
    expect(places, stderr).toEqual([expect.stringMatching(/smallpond\/job\.ts:11$/)]);
  });

  it("leaves errors that are not ours to Node", async () => {
    const plain = join(folder, "plain.mjs");
    writeFileSync(plain, "throw new TypeError('mine')\n");
    const { code, stderr } = await smallpond("run", "--", plain);
    expect(code).toBe(1);
    expect(stderr).toMatch(/throw new TypeError.*TypeError: mine\n {4}at /s);
  });

  it.each([
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const)("ends the script and its executors at %s to itself alone", async (signal, code) => {
    const job = `alone-${signal}`;
    const args = ["smallpond", "run", "--job-id", job, "--", script, "nowhere", "slow"];
    const child = startCli(args, env);
    let stderr = "";
    child.stderr?.on("data", (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
    await someFinished(job, 1, child);
    child.kill(signal);
    expect(await ended, stderr).toBe(code);
    expect(stderr).toContain(`go on with --job-id ${job}`);
    await expect.poll(() => processesNaming(join(folder, "jobs", job)), { timeout: 5_000 }).toBe(0);
    expect(await statusOf(job)).toMatchObject({ state: "killed" });
  });

  it("goes on after Ctrl-C with what was finished", async () => {
    const args = ["run", "--job-id", "again", "--", script, "nowhere", "slow"];
    // A group of its own, since a terminal's Ctrl-C goes to all processes of one.
    const child = spawn(process.execPath, [bin, "smallpond", ...args], {
      ...{ env: { ...process.env, ...env }, detached: true },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let stderr = "";
    child.stderr?.on("data", (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
    await someFinished("again", 5, child);
    process.kill(-(child.pid as number), "SIGINT");
    expect(await ended, stderr).toBe(130);
    expect(stderr).toContain("go on with --job-id again");
    const second = await smallpond(...args);
    expect(second, second.stderr).toMatchObject({ code: 0, stdout: "120 rows\n" });
    const { steps } = await statusOf("again");
    expect(Math.max(...steps.map(({ reused }) => reused))).toBeGreaterThanOrEqual(1);
  }, 60_000);

  it("names a script that is not there, and a number of executors that cannot be", async () => {
    const missing = await smallpond("run", "no-such-script.ts");
    expect(missing).toMatchObject({ code: 2 });
    expect(missing.stderr).toContain("no-such-script.ts");
    expect(missing.stderr).not.toContain("    at ");
    const none = await smallpond("run", "--executors", "0", script);
    expect(none).toMatchObject({ code: 2 });
    expect(none.stderr).toMatch(/1/);
  });
});

describe("smallpond executor", () => {
  it("joins a job over files and does a part of its tasks", async () => {
    // Long enough for a second executor to come up on a busy machine.
    const command = [script, "nowhere", "slow", "1500"];
    const args = ["run", "--job-id", "joined", "--executors", "1", "--", ...command];
    const job = runCli(["smallpond", ...args], { ...env, SP_CHANNEL: "files" });
    const root = join(folder, "jobs", "joined");
    while (!existsSync(join(root, "channel", "job.json"))) await sleep(20);
    const [joined, run] = await Promise.all([
      smallpond("executor", "--job-root", root, "--cpus", "1"),
      job,
    ]);
    expect(run, run.stderr).toMatchObject({ code: 0, stdout: "120 rows\n" });
    expect(joined.code, joined.stderr).toBe(0);
    expect(joined.stderr).toContain("the job is over");
    const { executors } = await statusOf("joined");
    expect(executors.map(({ state }) => state)).toEqual(["left", "left"]);
    expect(Math.min(...executors.map(({ done }) => done))).toBeGreaterThan(0);
  }, 60_000);

  it("names a folder in which no job runs", async () => {
    const { code, stderr } = await smallpond("executor", "--job-root", folder);
    expect(code).toBe(2);
    expect(stderr).toContain(folder);
  });
});

describe("smallpond explain", () => {
  it("prints the plan of an action and runs nothing", async () => {
    const out = join(folder, "never");
    const { code, stdout, stderr } = await smallpond("explain", script, out);
    expect(code, stderr).toBe(0);
    expect(stdout).toContain("GROUP BY kind");
    expect(stdout).toContain("job.ts:");
    expect(existsSync(out)).toBe(false);
  });
});

describe("smallpond jobs, status", () => {
  it("lists jobs and tells each one's state", async () => {
    const { stdout } = await smallpond("jobs");
    expect(stdout).toMatch(/nightly +ended/);
    const jobs = JSON.parse((await smallpond("jobs", "--json")).stdout) as { jobId: string }[];
    expect(jobs.map(({ jobId }) => jobId)).toContain("nightly");
  });

  it("shows steps and executors of a job", async () => {
    const { state, tasks, done, steps } = await statusOf("nightly");
    expect({ state, left: tasks - done }).toEqual({ state: "ended", left: 0 });
    expect(steps.map(({ kind }) => kind)).toContain("sql");
    const { stdout } = await smallpond("status", "nightly");
    expect(stdout).toContain("GROUP BY kind");
    expect(stdout).toMatch(/executor +state/);
  });

  it("names the jobs there are when asked for another", async () => {
    const { code, stderr } = await smallpond("status", "weekly");
    expect(code).toBe(2);
    expect(stderr).toContain("nightly");
    expect(stderr).not.toContain("    at ");
  });
});

describe("smallpond rerun", () => {
  it("runs one task alone by its step's name or its key, with DuckDB's profile", async () => {
    const { steps } = await statusOf("nightly");
    const sql = steps.find(({ kind }) => kind === "sql")?.node ?? "";
    const byName = await smallpond("rerun", sql, "--job", "nightly");
    expect(byName.code, byName.stderr).toBe(0);
    expect(byName.stdout).toContain("GROUP BY kind");
    expect(byName.stdout).toMatch(/outputs +1, \d+ rows/);
    const key = byName.stdout.split("\n")[0]?.split(" ").at(-1)?.slice(0, 12) ?? "";
    const byKey = await smallpond("rerun", key, "--job", "nightly", "--json");
    const report = JSON.parse(byKey.stdout) as { task: { key: string }; profile?: string };
    expect(report.task.key.startsWith(key)).toBe(true);
    expect(report.profile).toBeTruthy();
  });

  it("names the steps when there is no such task", async () => {
    const { code, stderr } = await smallpond("rerun", "ffffffff0", "--job", "nightly");
    expect(code).toBe(2);
    expect(stderr).toMatch(/a key of the job, or a node: /);
  });
});
