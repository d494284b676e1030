// `open-infra smallpond …` as a person meets it: a script runs, is explained, interrupted and
// gone on with; its job is listed, looked at, served, and one task of it run again.

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type CliResult, runCli } from "./run-cli.ts";

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
  readonly failures: readonly { final: boolean; error: string }[];
}

async function statusOf(job: string): Promise<Status> {
  return JSON.parse((await smallpond("status", job, "--json")).stdout) as Status;
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
    const log = join(folder, "jobs", "again", "log", "events.jsonl");
    const finished = (): number =>
      existsSync(log) ? readFileSync(log, "utf8").split('"event":"finished"').length - 1 : 0;
    while (finished() < 5 && child.exitCode === null) await new Promise((r) => setTimeout(r, 30));
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
