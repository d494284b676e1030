// A job's view as its lines make it, and the follower that reads them from a growing file.

import { appendFileSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { findJob, JobFollower, JobLister } from "../src/index.ts";
import { JobView, type LogLine } from "../src/live/index.ts";

const step = { kind: "sql", text: "SELECT 1", source: "job.ts:3", inputs: [] };
const plan: LogLine = {
  ...{ type: "action", atMs: 10 },
  steps: [
    { ...step, node: "scan#1", tasks: 2 },
    { ...step, node: "sql#2", inputs: ["scan#1"], tasks: 1 },
  ],
};
const job = (state: "running" | "ended", atMs: number): LogLine => ({
  ...{ type: "job", atMs, state, jobId: "nightly", pid: 7, host: "here" },
});
type TaskLine = Extract<LogLine, { type: "task" }>;
const task = (event: string, key: string, more: Partial<TaskLine> = {}): TaskLine => ({
  ...{ type: "task", atMs: 20, event, key, node: "scan#1", attempt: 0, executor: "local-0" },
  ...more,
});
const ready: LogLine = { type: "executor", atMs: 5, event: "ready", executor: "local-0" };

function viewOf(lines: readonly LogLine[]): JobView {
  const view = new JobView();
  for (const line of lines) view.take(line);
  return view;
}

describe("a job's view", () => {
  it("counts tasks, rows and time of each step", () => {
    const view = viewOf([
      ...[job("running", 1), ready, plan, task("started", "a"), task("started", "b")],
      task("finished", "a", { atMs: 30, rows: 5, bytes: 70, elapsedMs: 10, maxRssBytes: 900 }),
    ]);
    expect(view.progress).toEqual({ tasks: 3, done: 1, running: 1 });
    expect(view.steps.get("scan#1")).toMatchObject({
      ...{ done: 1, running: 1, rows: 5, bytes: 70, maxRssBytes: 900, elapsedMs: [10] },
    });
    expect(view.executors.get("local-0")).toMatchObject({ running: 1, done: 1, lastSeenMs: 30 });
    expect(view.attempts.map(({ outcome }) => outcome)).toEqual(["finished", "running"]);
    expect([view.jobId, view.state, view.startedMs, view.lastMs]).toEqual([
      ...["nightly", "running", 1, 30],
    ]);
  });

  it("counts a retried task once, and keeps why it was retried", () => {
    const view = viewOf([
      ...[ready, plan, task("started", "a")],
      task("retried", "a", { error: "out of memory" }),
      task("started", "a", { attempt: 1 }),
      task("finished", "a", { attempt: 1 }),
    ]);
    expect(view.steps.get("scan#1")).toMatchObject({ done: 1, retries: 1, running: 0, failed: 0 });
    expect(view.failures).toMatchObject([{ key: "a", final: false, error: "out of memory" }]);
  });

  it("lets a copy of a straggler win without counting its result twice", () => {
    const view = viewOf([
      ...[ready, plan, task("started", "a"), task("speculated", "a", { attempt: 1 })],
      ...[task("finished", "a", { attempt: 1 }), task("finished", "a")],
    ]);
    expect(view.steps.get("scan#1")).toMatchObject({ done: 1, speculated: 1, running: 0 });
  });

  it("takes results of an earlier run as done", () => {
    const view = viewOf([plan, task("reused", "a"), task("reused", "b")]);
    expect(view.steps.get("scan#1")).toMatchObject({ done: 2, reused: 2 });
  });

  it("leaves nothing running in a job that has ended", () => {
    const view = viewOf([ready, plan, task("started", "a"), job("ended", 99)]);
    expect(view.progress.running).toBe(0);
    expect(view.executors.get("local-0")?.running).toBe(0);
    expect(view.attempts).toMatchObject([{ outcome: "stopped", endMs: 99 }]);
  });

  it("keeps a bounded number of attempts and failures, and right counts of all", () => {
    const count = 50_000;
    const view = viewOf([ready, plan]);
    for (let i = 0; i < count; i++) {
      view.take(task("started", `${i}`));
      view.take(task("failed", `${i}`, { error: "no" }));
    }
    expect(view.attempts.length).toBeLessThanOrEqual(20_000);
    expect(view.failures).toHaveLength(200);
    expect(view.failures.at(-1)?.key).toBe(`${count - 1}`);
    expect(view.steps.get("scan#1")).toMatchObject({ failed: count, running: 0 });
  });
});

describe("following a log", () => {
  let root = "";
  const write = (text: string): void => {
    root ||= mkdtempSync(join(tmpdir(), "smallpond-follow-"));
    mkdirSync(join(root, "log"), { recursive: true });
    appendFileSync(join(root, "log", "events.jsonl"), text);
  };
  afterEach(() => {
    rmSync(root, { recursive: true, force: true });
    root = "";
  });
  const lines = (...all: readonly LogLine[]): string =>
    all.map((line) => `${JSON.stringify(line)}\n`).join("");

  it("takes every line once, though reads overlap and lines come in halves", async () => {
    const text = lines(ready, plan, task("started", "é"), task("retried", "é"));
    write(text.slice(0, -20));
    const follower = new JobFollower(root);
    await Promise.all([follower.read(), follower.read(), follower.read()]);
    expect(follower.view.actions).toBe(1);
    write(text.slice(-20));
    await Promise.all([follower.read(), follower.read()]);
    expect(follower.view.steps.get("scan#1")).toMatchObject({ retries: 1, running: 0 });
    expect(await follower.read()).toBe(false);
  });

  it("passes over a line that a killed writer left half", async () => {
    write(`${lines(plan)}{"type":"task","ev\n${lines(task("reused", "a"))}`);
    const follower = new JobFollower(root);
    await follower.read();
    expect(follower.view.progress.done).toBe(1);
  });

  it("lists a job as it grows, is gone on with, and is replaced", async () => {
    write(lines(job("running", 1), plan, task("reused", "a")));
    const dataRoot = join(root, "..");
    const jobId = basename(root);
    const lister = new JobLister(dataRoot);
    const look = async () => (await lister.list()).find((entry) => entry.jobId === jobId);
    // Nobody holds its lock.
    expect(await look()).toMatchObject({ state: "killed", done: 1, tasks: 3 });
    write(lines(job("running", 30), task("reused", "b"), job("ended", 40)));
    expect(await look()).toMatchObject({ state: "ended", done: 2, lastMs: 40 });
    expect(await look()).toBe(await look());
    rmSync(join(root, "log"), { recursive: true });
    write(lines(plan));
    expect(await look()).toMatchObject({ done: 0, tasks: 3 });
    expect(await findJob(jobId, dataRoot)).toBe(root);
    expect(await findJob(root, "/nowhere")).toBe(root);
    await expect(findJob("other", root)).rejects.toThrow(/no job lies under/);
  });

  it("finds nothing where there is no log", async () => {
    expect(await new JobFollower(join(tmpdir(), "smallpond-no-such-job")).read()).toBe(false);
  });
});
