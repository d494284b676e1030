// A session whose executors are a pilot job of a real Slurm, with four virtual nodes on this host.

import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { requirement } from "@open-infra/testing";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import {
  fromModule,
  init,
  LaunchError,
  NoExecutorError,
  type SessionOptions,
  slurm,
} from "../src/index.ts";
import { slurmPrograms, TestSlurm } from "./cluster/slurm-cluster.ts";

const skip = requirement("smallpond on Slurm", slurmPrograms);
const steps = new URL("./steps.ts", import.meta.url);
let cluster: TestSlurm;
let root: string;

beforeAll(async () => {
  if (skip) return;
  cluster = await TestSlurm.start(4);
  vi.stubEnv("SLURM_CONF", cluster.environment.SLURM_CONF);
});
afterAll(async () => {
  if (skip) return;
  vi.unstubAllEnvs();
  await cluster.stop();
});
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "smallpond-on-slurm-"));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const options = (more: Partial<SessionOptions>): SessionOptions => ({
  dataRoot: root,
  jobId: "job",
  executorCpus: 1,
  executorMemoryBytes: 2 ** 29,
  heartbeatTimeoutMs: 2_000,
  ...more,
});

test.skipIf(skip)(
  "a node goes down in the middle and the job completes on the others",
  async () => {
    await using session = await init(options({ launcher: slurm({ nodes: 4, partition: "main" }) }));
    const items = Array.from({ length: 800 }, (_, i) => i);
    const frame = (await session.fromItems(items))
      .repartition(80, { byRows: true })
      .mapBatches(fromModule(steps, "slow", [30]));
    const used = new Set<string>();
    const lost: string[] = [];
    let finished = 0;
    session.listen((event) => {
      if (event.executor !== undefined) used.add(event.executor);
      // All four are there by then.
      if (event.type === "finished" && Object.keys(session.executorPids).length === 4) {
        if (++finished === 4) {
          lost.push(...Object.keys(session.executorPids));
          cluster.call("scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=test");
        }
      }
    });
    const rows = await frame.takeAll();
    expect(rows.reduce((sum, row) => sum + Number(row.item), 0)).toBe((800 * 799) / 2);
    expect(rows).toHaveLength(800);
    expect(lost).toHaveLength(4);
    expect(used.size).toBeGreaterThanOrEqual(3);
    expect(cluster.call("squeue", "-h", "-o", "%T %D")).toContain("RUNNING");
    await expect.poll(() => Object.keys(session.executorPids).length, { timeout: 10_000 }).toBe(3);
    // Tasks are programs: only the owner may put some in.
    expect(statSync(join(session.folder.root, "channel")).mode & 0o777).toBe(0o700);
    await session.shutdown();
    expect(cluster.call("squeue", "-h", "-t", "RUNNING,PENDING")).toBe("");
  },
);

test.skipIf(skip)("what Slurm refuses is said in its own words", async () => {
  const wrong = options({ launcher: slurm({ nodes: 1, partition: "no-such" }) });
  const failure = await init(wrong).catch((error: Error) => error);
  expect(failure).toBeInstanceOf(LaunchError);
  expect(String(failure)).toMatch(/[Ii]nvalid partition/);
});

test.skipIf(skip)("executors that stay in Slurm's queue are an error with its reason", async () => {
  cluster.call("scontrol", "update", "PartitionName=main", "State=DOWN");
  try {
    const launcher = slurm({ nodes: 1, startTimeoutMs: 2_500 });
    await using session = await init(options({ launcher }));
    const frame = (await session.fromItems([1])).map("item + 1 AS item");
    const failure = await frame.compute().catch((error: Error) => error);
    expect(failure).toBeInstanceOf(NoExecutorError);
    expect(String(failure)).toMatch(/within 2500 ms.*PENDING.*PartitionDown/s);
  } finally {
    cluster.call("scontrol", "update", "PartitionName=main", "State=UP");
  }
});
